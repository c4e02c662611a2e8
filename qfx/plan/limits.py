"""What of a board a design may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields

from qfx.boards import Board
from qfx.errors import PlanError
from qfx.plan.data import Resources

MARGIN = 0.7  # share of each resource that a plan without a budget may use: estimates err, and placement needs room
RESOURCES = tuple(field.name for field in fields(Resources))


def available(board: Board) -> Resources:
    """Return all that a board has."""
    return Resources(board.budget.lut, board.budget.ff, 2 * board.budget.bram36, board.budget.dsp)


def limits(board: Board, budget: Mapping[str, float]) -> Resources:
    """Return a budget in counts.

    Args:
        budget: by lut, ff, bram18 or dsp, a share of the board (a float of at most 1) or a count (an int); of what is
            not named MARGIN of the board.

    Raises:
        PlanError: it names something else, or is no share and no count that the board has.
    """
    if unknown := set(budget) - set(RESOURCES):
        raise PlanError(f"budget must give {', '.join(RESOURCES)}, not {', '.join(sorted(map(str, unknown)))}")
    found: dict[str, int] = {}
    for name, most in asdict(available(board)).items():
        asked = budget.get(name, MARGIN)
        share = isinstance(asked, float)
        if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0 <= asked <= (1 if share else most):
            raise PlanError(
                f"budget {name} must be a share of {board.name} in 0.0..1.0 or a count in 0..{most:,}, not {asked!r}"
            )
        found[name] = int(asked * most) if share else int(asked)
    if found["lut"] < 1 or found["ff"] < 1:
        raise PlanError("budget must leave some lut and ff, not 0: nothing is built without them")
    return Resources(**found)


def excess(needed: Resources, budget: Resources) -> dict[str, str]:
    """Return what exceeds a budget: by the resource, how much of how much in words."""
    return {
        name: f"{getattr(needed, name):,} of {getattr(budget, name):,} {name.upper()}"
        for name in RESOURCES
        if getattr(needed, name) > getattr(budget, name)
    }
