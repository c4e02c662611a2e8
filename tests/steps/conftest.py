"""What tests of steps share."""

from collections.abc import Iterator

import pytest

from qfx.steps import engine


@pytest.fixture(scope="module")
def unchanged_sources() -> Iterator[None]:
    """Whoever edits qfx while a module's tests run does not make its results stale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "sources_digest", lambda names: "the same")
        yield
