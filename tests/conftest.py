"""What all tests share: one source of random numbers, seeded by the test's own name."""

import zlib

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run of `make test`; `make test-full` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("fixed")


@pytest.fixture
def seed(request) -> int:
    """A number that is the same in every run and differs from test to test."""
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def rng(seed) -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(seed)
