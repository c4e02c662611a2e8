"""The cache gives back what was made from the same input, and never half of it."""

import os
from pathlib import Path

import pytest

from qfx.errors import ToolError
from qfx.tools import _cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def write(folder):
    (folder / "made").write_text("content")


def refuse(_folder):
    raise AssertionError("this must not be made again")


def test_the_same_key_is_made_once():
    first = _cache.folder("kind", "key", write)
    assert _cache.folder("kind", "key", refuse) == first
    assert (first / "made").read_text() == "content"


def test_a_failed_make_leaves_nothing_and_can_be_repeated():
    def fail(folder):
        write(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _cache.folder("kind", "key", fail)
    assert _cache.folder("kind", "key", write).is_dir()


def test_the_digest_separates_its_parts():
    assert _cache.digest(["ab", "c"]) != _cache.digest(["a", "bc"]) != _cache.digest([b"a", b"", b"bc"])
    assert _cache.digest(["ab"]) == _cache.digest([b"ab"])


def test_the_oldest_entries_go_first(monkeypatch):
    monkeypatch.setattr(_cache, "_KEEP", 2)
    places = [_cache.folder("kind", f"key{index}", write) for index in range(4)]
    assert [place.is_dir() for place in places] == [False, False, True, True]


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_a_cache_that_cannot_be_made_is_a_sentence_with_the_remedy(monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", home)
    with pytest.raises(ToolError) as caught:
        _cache.folder("kind", "key", refuse)
    assert str(caught.value).startswith(f"the tool cache {home}/.cache/qfx/kind must be writable, but: No")
    assert str(caught.value).endswith(": set XDG_CACHE_HOME to a folder that is")


def test_a_cache_that_is_read_only_gives_what_it_has(monkeypatch):
    place = _cache.folder("kind", "key", write)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert _cache.folder("kind", "key", refuse) == place
    with pytest.raises(ToolError, match="kind must be writable, but: Permission denied: set XDG_CACHE_HOME"):
        _cache.folder("kind", "other", refuse)


def test_a_full_disk_stays_the_error_that_it_is(monkeypatch):
    def full(self, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        _cache.folder("kind", "key", refuse)
