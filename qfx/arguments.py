"""Checks of what a caller hands to a public function, so that a mistake is a sentence that says what to do."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from qfx.errors import QfxError

NAME = re.compile(r"(?!__metadata__$)[A-Za-z0-9_][A-Za-z0-9_.\-]*")  # of a node of a graph, and so of a layer
LEGAL_NAME = "letters, digits, '_', '.' or '-', not begin with '.' or '-', and not be '__metadata__'"


def require_kind(error: type[QfxError], name: str, value: Any, kind: type | tuple[type, ...], asked: str) -> None:
    """Raise ``error`` unless ``value`` is of a kind; ``asked`` says in words which, and how to come by one."""
    if not isinstance(value, kind):
        raise error(f"{name} must be {asked}, not {shown(value)}")


def require_number(error: type[QfxError], name: str, value: Any, least: float = 0.0) -> None:
    """Raise ``error`` unless ``value`` is a finite number of at least ``least``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < least:
        raise error(f"{name} must be a number of at least {least:g}, not {shown(value)}")


def as_path(error: type[QfxError], name: str, value: Any) -> Path:
    """Return ``value`` as a Path; raise ``error`` if it does not name a place."""
    require_kind(error, name, value, (str, os.PathLike), "a path")
    return Path(value)


def shown(value: Any) -> str:
    """A value in few words: itself if it is short, else its type."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
