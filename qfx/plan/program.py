"""The cheapest choices that fit into a room, one for each segment of a graph: an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from qfx.plan.data import NodePlan, Resources
from qfx.plan.limits import RESOURCES

_SHARP = 1e3  # by which the objective is stretched, whose differences below 1e-7 the solver takes for none
_TIE = 1e-6  # less than a flip-flop's price
_OPTIONS = {"mip_rel_gap": 0.0, "node_limit": 10_000}  # twenty convolutions take some tens of nodes
_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Choice:
    """One way to build the source of a segment, and with it the pipe behind."""

    nodes: Mapping[str, NodePlan]  # the source and the nodes of its pipe
    cycles: int
    resources: Resources
    price: float = 0.0


@dataclass(frozen=True)
class Stream:
    """What one segment gives another; adapters join lanes of which one number divides the other."""

    name: str  # of the node that makes it
    source: int  # the number of its segment
    reader: str
    sink: int  # the number of the reader's segment


def joins(a: int, b: int) -> bool:
    """Whether an adapter joins streams of so many lanes."""
    return max(a, b) % min(a, b) == 0


def cheapest(choices: Sequence[Sequence[Choice]], streams: Sequence[Stream], room: Resources) -> list[Choice]:
    """Return the choices of least price, one of each segment, that fit into ``room`` and that adapters join.

    Where there are none, those for which the sum over resources of ``max(0, used / room - 1)`` is least. The choices of
    a segment come the cheapest first.
    """
    program = _Program([_best(each, streams, number) for number, each in enumerate(choices)], streams, room)
    found = program.solve(exceeding=False) or program.solve(exceeding=True)
    assert found is not None  # `Search` has looked whether any join
    return found


def _best(choices: Sequence[Choice], streams: Sequence[Stream], number: int) -> list[Choice]:
    """The choices of a segment, the cheapest first, without those whose lanes a cheaper one has that takes no more."""
    ends = sorted({each.name for each in streams if each.source == number})
    heads = sorted({each.reader for each in streams if each.sink == number})
    found, needs = [], dict[tuple[int, ...], list[_Array]]()
    for choice in choices:
        lanes = (*(choice.nodes[name].in_lanes for name in heads), *(choice.nodes[name].out_lanes for name in ends))
        needed, alike = _counts(choice.resources), needs.setdefault(lanes, [])
        if not any((other <= needed).all() for other in alike):
            found.append(choice)
            alike.append(needed)
    return found


class _Program:
    """A variable of 0 or 1 for each choice, and for each resource one for what is exceeded, as a share of the room."""

    def __init__(self, choices: Sequence[Sequence[Choice]], streams: Sequence[Stream], room: Resources) -> None:
        self.choices = [choice for each in choices for choice in each]
        ranks = [rank / len(each) for each in choices for rank in range(len(each))]  # of equals the first
        self.prices = np.array([choice.price for choice in self.choices]) + _TIE * np.array(ranks)
        self.first = [0, *accumulate(len(each) for each in choices)]
        self.size = len(self.choices) + len(RESOURCES)
        one_each = [self._row(number, [True] * len(each)) for number, each in enumerate(choices)]
        apart = [row for stream in streams for row in self._apart(choices, stream)]
        most, scale = _counts(room), np.maximum(_counts(room), 1)
        used = np.array([_counts(choice.resources) for choice in self.choices]).T / scale[:, None]
        self.rows = np.vstack([*one_each, *apart, np.hstack([used, -np.eye(len(RESOURCES))])])
        self.high = np.concatenate([np.ones(len(one_each) + len(apart)), most / scale])
        self.low = np.where(np.arange(len(self.high)) < len(one_each), 1.0, -np.inf)

    def solve(self, exceeding: bool) -> list[Choice] | None:
        """Return the choices, if any fit, or with ``exceeding`` those that exceed the room least."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and seldom needed
        from scipy.sparse import csr_array

        real = np.arange(self.size) >= len(self.choices)
        cost = np.concatenate([self.prices * (1.0 if exceeding else _SHARP), np.full(len(RESOURCES), _SHARP)])
        bounds = Bounds(0, np.where(real, np.inf if exceeding else 0.0, 1.0))
        held = LinearConstraint(csr_array(self.rows), self.low, self.high)
        solved = milp(cost, integrality=~real, bounds=bounds, constraints=held, options=_OPTIONS)
        if solved.x is None:
            return None
        return [choice for choice, taken in zip(self.choices, solved.x, strict=False) if taken > 0.5]

    def _row(self, number: int, marked: Sequence[bool]) -> _Array:
        """A row with 1 at the marked choices of a segment."""
        row = np.zeros(self.size)
        row[self.first[number] : self.first[number + 1]] = marked
        return row

    def _apart(self, choices: Sequence[Sequence[Choice]], stream: Stream) -> list[_Array]:
        """For each number of lanes that a stream may have: a row that keeps from it what it does not join."""
        made = [choice.nodes[stream.name].out_lanes for choice in choices[stream.source]]
        read = [choice.nodes[stream.reader].in_lanes for choice in choices[stream.sink]]
        return [
            self._row(stream.source, [each == lanes for each in made])
            + self._row(stream.sink, [not joins(lanes, each) for each in read])
            for lanes in sorted(set(made))
            if not all(joins(lanes, each) for each in read)
        ]


def _counts(resources: Resources) -> _Array:
    return np.array([getattr(resources, name) for name in RESOURCES], np.float64)
