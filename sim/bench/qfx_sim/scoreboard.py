"""Compares what came with what had to come, exactly, and reports the first difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qfx_sim.lanes import Lanes, codes_of


class Mismatch(AssertionError):
    """A DUT gave another word than expected, or too few or too many."""


def check(
    name: str,
    expected: Sequence[Any],
    received: Sequence[Any],
    times: Sequence[int] | None = None,
    lanes: Lanes | None = None,
) -> None:
    """Raise Mismatch at the first word of ``received`` that differs from ``expected``, or at a wrong number of words.

    ``times`` are the moments (ns) of the received words; with ``lanes`` the message names pixel, channel and codes.
    """
    for index, (want, got) in enumerate(zip(expected, received, strict=False)):
        if want != got:
            when = f" at {times[index]} ns" if times is not None else ""
            raise Mismatch(f"{name}: {_difference(index, want, got, lanes)}{when}")
    if len(expected) != len(received):
        raise Mismatch(f"{name}: {len(expected)} words must come, not {len(received)}")


def _difference(index: int, want: Any, got: Any, lanes: Lanes | None) -> str:
    if lanes is None:
        return f"word {index} must be {want!r}, not {got!r}"
    pixel, group = divmod(index, lanes.groups)
    wants, gots = (codes_of(word, lanes.width, lanes.lanes, lanes.signed) for word in (want, got))
    lane = next(i for i in range(lanes.lanes) if wants[i] != gots[i])
    place = f"word {index} (pixel {pixel}, channel {group * lanes.lanes + lane})"
    return f"{place} must be code {wants[lane]}, not {gots[lane]}"
