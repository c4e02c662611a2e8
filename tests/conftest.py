"""What all tests share: one source of random numbers, seeded by the test's own name."""

import os
import tempfile
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run of `make test`; `make test-full` looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what benches leave for a look after a failure among pytest's own folders, which it clears."""
    before, folder = os.environ.get("TMPDIR"), tmp_path_factory.mktemp("left")
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    yield
    os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
    tempfile.tempdir = None


@pytest.fixture
def seed(request) -> int:
    """A number that is the same in every run and differs from test to test."""
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def rng(seed) -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(seed)
