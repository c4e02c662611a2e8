"""Writing files so that a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qfx.errors import QfxError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the operating system answers where a disk, or our share of it, is full."""

_ROOM = 1 << 20  # bytes; a disk with less is full


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at ``path`` by ``data``, whole or not at all; make missing parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: Path, error: type[QfxError] = QfxError) -> None:
    """Make a folder and those above it; raise ``error`` where that is impossible, unless the disk is full."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise _unwritable(path, reason, error) from reason


@contextmanager
def atomic_folder(path: Path, mark: str = "", error: type[QfxError] = QfxError) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error.

    On an error or an interrupt the new folder is removed and whatever was at ``path`` stays as it was. A folder
    cannot be exchanged in one call, so for an instant between two renames ``path`` may be absent; an interrupt there
    puts the old one back.

    Args:
        mark: a file that lies in every folder of this kind: one that is not empty and lacks it is somebody else's.
            Without a mark whatever is there is replaced.

    Raises:
        QfxError: (or the ``error`` given) what is at ``path`` is not ours to replace, or nothing can be written there.
    """
    if mark:
        _require_ours(path, mark, error)
    make_folder(path.parent, error)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as reason:
        raise _unwritable(path, reason, error) from reason
    try:
        aside.chmod(0o777 & ~_umask())
        yield aside
        for file in sorted(p for p in aside.rglob("*") if p.is_file() and not p.is_symlink()):
            _sync_file(file)
        _exchange(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def _unwritable(path: Path, reason: OSError, error: type[QfxError]) -> Exception:
    """What to raise where ``path`` cannot be made: ``error``, or on a full disk the reason itself, which steps know."""
    if reason.errno in FULL:
        return reason
    return error(f"{path} must be a place that can be written to, but: {reason.strerror}: choose another place")


def _require_ours(path: Path, mark: str, error: type[QfxError]) -> None:
    if path.is_dir() and ((path / mark).is_file() or not any(path.iterdir())):
        return
    if path.exists() or path.is_symlink():
        kind = "a folder with other files" if path.is_dir() else "a file"
        raise error(
            f"{path} must be new, empty, or a folder of this kind that qfx wrote, since it is replaced as a whole, but "
            f"it is {kind}: choose another place"
        )


def recover(path: Path) -> None:
    """Clean up after an `atomic_folder` that was killed: put back what it moved aside, drop what it had half made."""
    for old in path.parent.glob(f".{path.name}.*.old"):
        if not path.exists() and (old / "old").is_dir():
            (old / "old").rename(path)
        shutil.rmtree(old, ignore_errors=True)
    for part in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(part, ignore_errors=True)


def has_room(folder: Path) -> bool:
    """Whether a file of some size can be written to ``folder`` now; nothing else that is wrong with it counts."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(_ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in FULL
    return True


def _exchange(new: Path, path: Path) -> None:
    """Move the folder ``new`` to ``path``, and what was there out of the way first."""
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent)) / "old"
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Make a rename in ``path`` durable where the file system can."""
    with suppress(OSError):
        _sync_file(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
