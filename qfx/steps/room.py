"""Whether a full disk is behind an error: programs say it in many ways, or only fail."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qfx.files import FULL, has_room
from qfx.tools import _cache

_SAYINGS = tuple(os.strerror(number) for number in FULL)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise the OSError of a full disk, with the folder that is full as its file name, whatever an error in the block
    says, where a disk that steps write to is full: that of ``folder``, of the tool cache or of temporary files.

    It looks before anyone who hears of the error removes files, which makes room.
    """
    try:
        yield
    except Exception as error:
        where = _full_place(error, [folder.parent, _cache.root(), Path(os.environ.get("TMPDIR") or "/tmp")])
        if where is None:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where)) from error


def _full_place(error: Exception, folders: list[Path]) -> str | Path | None:
    """The full folder or file behind ``error``, or None; the emptiest guess where room was made since."""
    for folder in folders:
        if not has_room(folder):
            return folder
    if isinstance(error, OSError) and error.errno in FULL and error.filename:
        return str(error.filename2 or error.filename)
    if (isinstance(error, OSError) and error.errno in FULL) or any(saying in str(error) for saying in _SAYINGS):
        return min((folder for folder in folders if folder.is_dir()), key=lambda folder: shutil.disk_usage(folder).free)
    return None
