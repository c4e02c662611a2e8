"""Writes are whole or nothing: a full disk or an interrupt leaves what was there, and no litter."""

import errno
import os

import pytest

from qfx.errors import QfxError
from qfx.files import atomic_folder, write_bytes, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_arguments):
    raise KeyboardInterrupt


@pytest.fixture(params=[full_disk, interrupt])
def failing_sync(request, monkeypatch):
    monkeypatch.setattr(os, "fsync", request.param)
    return OSError if request.param is full_disk else KeyboardInterrupt


def test_a_file_is_written_with_its_folders(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "größer")
    write_bytes(tmp_path / "a" / "b.bin", b"\0\1")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "größer"
    assert names(tmp_path / "a") == ["b.bin", "b.txt"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, failing_sync):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(failing_sync):
        write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["kept.txt"]


def test_a_written_file_has_ordinary_permissions(tmp_path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    target = tmp_path / "result"
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert names(target) == ["two"] and names(tmp_path) == ["result"]


def test_a_failed_folder_keeps_the_old_one_and_leaves_no_litter(tmp_path, failing_sync):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(failing_sync), atomic_folder(target) as folder:
        (folder / "new").write_text("half")
    assert names(target) == ["old"] and names(tmp_path) == ["result"]


def test_an_error_while_a_folder_is_filled_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left"), atomic_folder(tmp_path / "result") as folder:
        (folder / "first").touch()
        full_disk()
    assert names(tmp_path) == []


def test_an_interrupt_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "result"
    target.mkdir()
    (target / "old").touch()
    rename = type(target).rename

    def interrupted(self, to):
        if self.suffix == ".part":
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(type(target), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target):
        pass
    assert names(target) == ["old"] and names(tmp_path) == ["result"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_marked_folder_never_replaces_what_somebody_else_wrote(tmp_path, what):
    place = tmp_path / "work"
    if what == "folder":
        place.mkdir()
    thesis = place / "thesis.tex" if what == "folder" else place
    thesis.write_text("years of work")
    with (
        pytest.raises(QfxError, match=r"work must be new, empty, or a folder .* that qfx wrote, .* but it is a f"),
        atomic_folder(place, "manifest.json") as new,
    ):
        (new / "manifest.json").write_text("{}")
    assert thesis.read_text() == "years of work" and [*tmp_path.iterdir()] == [place]


def test_a_marked_folder_replaces_an_empty_one_and_its_own(tmp_path):
    (tmp_path / "work").mkdir()
    for text in ("first", "second"):
        with atomic_folder(tmp_path / "work", "manifest.json") as new:
            (new / "manifest.json").write_text(text)
        assert (tmp_path / "work" / "manifest.json").read_text() == text
