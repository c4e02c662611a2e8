"""Where the folders that are not Python lie: in a checkout at its root, in an installed wheel inside the package."""

from __future__ import annotations

from pathlib import Path

from qfx.errors import QfxError

_PACKAGE = Path(__file__).resolve().parent
_DATA = _PACKAGE / "_data"

NAMES = ("boards", "designs", "hls", "rtl", "sim/bench")


def path(name: str) -> Path:
    """Return the folder ``name``: "boards", "designs", "hls", "rtl" or "sim/bench" (the folder that holds qfx_sim)."""
    if name not in NAMES:
        raise QfxError(f"resource must be one of {', '.join(NAMES)}, not {name!r}")
    if not _DATA.is_dir():
        found = _PACKAGE.parent / name
    elif name == "sim/bench":
        found = _PACKAGE.parent
    else:
        found = _DATA / name
    if not found.is_dir():
        raise QfxError(f"resource {name!r} must be installed with qfx, but {found} is missing: install qfx again")
    return found
