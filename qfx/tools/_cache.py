"""Results of slow programs, kept by the hash of everything that they were computed from."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from qfx.errors import ToolError
from qfx.files import FULL, atomic_folder, recover

_KEEP = 400  # folders of one kind; the ones used longest ago go first


def root() -> Path:
    """Return the folder of all caches: ``$XDG_CACHE_HOME/qfx``, by default ``~/.cache/qfx``; deleting it is safe."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "qfx"


def digest(parts: Iterable[str | bytes]) -> str:
    """Return the hash of ``parts``, in order, each separated from the next."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:32]


def writable(kind: str = "") -> Path:
    """Return the folder of one kind of results; make it where it is missing.

    Raises:
        ToolError: it cannot be written.
    """
    place = root() / kind
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ToolError(
            f"the tool cache {place} must be writable, but: {error.strerror}: set XDG_CACHE_HOME to a folder that is"
        ) from error
    return place


def folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of ``key``; where it is not there yet, let ``make`` fill an empty one first.

    A failing ``make`` leaves nothing. Of two processes that want the same key, one makes it and the other waits.

    Raises:
        ToolError: it is not there, and the cache cannot be written.
    """
    place = root() / kind / key
    if not place.is_dir():
        with (writable(kind) / f".{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                recover(place)
                if not place.is_dir():
                    with atomic_folder(place) as new:
                        make(new)
                    _prune(place.parent)
            finally:
                Path(lock.name).unlink(missing_ok=True)
    with suppress(OSError):
        os.utime(place)
    return place


def _prune(kind: Path) -> None:
    places = [p for p in kind.iterdir() if not p.name.startswith(".")]
    for place in sorted(places, key=_age)[:-_KEEP]:
        shutil.rmtree(place, ignore_errors=True)


def _age(place: Path) -> float:
    with suppress(OSError):
        return place.stat().st_mtime
    return 0.0
