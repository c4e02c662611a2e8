"""Checks of what a caller hands to a public function, so that a mistake is a sentence that says what to do."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qfx.errors import QfxError

NAME = re.compile(r"(?!__metadata__$)[A-Za-z0-9_][A-Za-z0-9_.\-]*")  # of a node of a graph, and so of a layer
LEGAL_NAME = "letters, digits, '_', '.' or '-', not begin with '.' or '-', and not be '__metadata__'"

CLOCKS_MHZ = (1, 1000)
"""The slowest and the fastest clock of a board, a design or a plan."""

MOST_CYCLES = 10**12
"""The most cycles that anyone may allow a frame: an hour at 250 MHz."""


def require_kind(error: type[QfxError], name: str, value: Any, kind: type | tuple[type, ...], asked: str) -> None:
    """Raise ``error`` unless ``value`` is of a kind; ``asked`` says in words which, and how to come by one."""
    if not isinstance(value, kind):
        raise error(f"{name} must be {asked}, not {shown(value)}")


def require_number(
    error: type[QfxError],
    name: str,
    value: Any,
    least: float = 0.0,
    most: float = math.inf,
    kind: str = "a number",
    above: bool = False,
    below: bool = False,
) -> None:
    """Raise ``error`` unless ``value`` is a finite number from ``least`` to ``most``.

    Args:
        above, below: whether ``least``, or ``most``, itself is refused too.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most or (above and value == least) or (below and value == most):
        asked = f"above {least:g}" if above else f"of at least {least:g}"
        if most < math.inf:
            last = f"{'below' if below else 'at most'} {most:g}"
            asked = f"{asked} and {last}" if above or below else f"from {least:,} to {most:,}"
        raise error(f"{name} must be {kind} {asked}, not {shown(value)}")


def require_whole(error: type[QfxError], name: str, value: Any, least: int = 1) -> None:
    """Raise ``error`` unless ``value`` is an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise error(f"{name} must be a whole number of at least {least}, not {shown(value)}")


def require_choice(error: type[QfxError], name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ``error`` unless ``value`` is one of some names."""
    if value not in choices:
        raise error(f"{name} must be {' or '.join(map(repr, choices))}, not {shown(value)}")


def require_clock(error: type[QfxError], name: str, mhz: float | None) -> None:
    """Raise ``error`` unless a clock, where one is given, lies within CLOCKS_MHZ."""
    if mhz is not None:
        require_number(error, name, mhz, *CLOCKS_MHZ)


def require_cycles(error: type[QfxError], name: str, cycles: int | None) -> None:
    """Raise ``error`` unless the cycles of a frame, where they are given, are a whole number from 1 to MOST_CYCLES."""
    if cycles is not None:
        require_kind(error, name, cycles, int, "a whole number of cycles")
        require_number(error, name, cycles, 1, MOST_CYCLES, "a whole number")


def as_path(error: type[QfxError], name: str, value: Any) -> Path:
    """Return ``value`` as a Path; raise ``error`` if it does not name a place."""
    require_kind(error, name, value, (str, os.PathLike), "a path")
    return Path(value)


def shown(value: Any) -> str:
    """A value in few words: itself if it is short, else its type."""
    return repr(value) if isinstance(value, str | int | float | None) else type(value).__name__


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 cycle, 1,024 cycles."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
