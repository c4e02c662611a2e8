"""The integer program of bit allocation: a width for each quantizer, least noise, costs within their limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Widths = Mapping[str, int]  # of quantizers, by their paths
Pair = tuple[str, str]


@dataclass(frozen=True)
class Cost:
    """``fixed + sum over q of single[q][w[q]] + sum over (p, q) of pairs[p, q][w[p], w[q]]`` for widths w."""

    fixed: float = 0.0
    single: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    pairs: Mapping[Pair, Mapping[tuple[int, int], float]] = field(default_factory=dict)

    def of(self, widths: Widths) -> float:
        """Return the cost of these widths."""
        alone = sum(costs[widths[name]] for name, costs in self.single.items())
        return self.fixed + alone + sum(costs[widths[a], widths[b]] for (a, b), costs in self.pairs.items())


def least_noise(
    choices: Mapping[str, Sequence[int]],
    noise: Mapping[str, Mapping[int, float]],
    limits: Sequence[tuple[Cost, float]],
    too_wide: Sequence[Widths] = (),
) -> dict[str, int] | None:
    """Choose a width for each quantizer: the least sum of noise, each cost at most its limit; None: there are none.

    A binary variable for each width of each quantizer says that it is chosen. One for each two widths of each pair
    carries their common cost; it is held to the widths of its two quantizers, and so needs not be binary itself.

    Args:
        choices: the widths to choose from; of one there is no choice.
        noise: of each quantizer that has it, by width.
        too_wide: at least one quantizer becomes narrower than each of these says.
    """
    pairs = sorted({pair for cost, _ in limits for pair in cost.pairs})
    program = _Program(
        [(name, width) for name, given in choices.items() for width in given],
        [(pair, (v, w)) for pair in pairs for v in choices[pair[0]] for w in choices[pair[1]]],
    )
    for name, given in choices.items():
        program.constrain({(name, width): 1.0 for width in given}, 1, 1)
    for pair in pairs:
        for side, name in enumerate(pair):
            for width in choices[name]:
                same = {key: 1.0 for key in program.twos if key[0] == pair and key[1][side] == width}
                program.constrain({**same, (name, width): -1.0}, 0, 0)
    for cost, most in limits:
        program.constrain(_terms(cost, max(most, 1.0)), -np.inf, (most - cost.fixed) / max(most, 1.0))
    for widths in too_wide:
        slimmer = {(name, w): 1.0 for name, given in choices.items() for w in given if w < widths[name]}
        program.constrain(slimmer, 1, np.inf)
    return program.solve({(name, width): value for name, by in noise.items() for width, value in by.items()})


def _terms(cost: Cost, unit: float) -> dict[Any, float]:
    """What each variable adds to a cost."""
    alone = {(name, width): value / unit for name, costs in cost.single.items() for width, value in costs.items()}
    both = {(pair, widths): value / unit for pair, costs in cost.pairs.items() for widths, value in costs.items()}
    return alone | both


class _Program:
    """Variables by their keys, and constraints on sums of them."""

    def __init__(self, ones: Sequence[tuple[str, int]], twos: Sequence[tuple[Pair, tuple[int, int]]]) -> None:
        self.ones, self.twos = ones, twos
        self._column: dict[Any, int] = {key: number for number, key in enumerate([*ones, *twos])}
        self._rows: list[dict[int, float]] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def constrain(self, terms: Mapping[Any, float], low: float, high: float) -> None:
        """Hold ``sum of terms[key] * variable[key]`` within ``low`` and ``high``."""
        self._rows.append({self._column[key]: factor for key, factor in terms.items()})
        self._low.append(low)
        self._high.append(high)

    def solve(self, noise: Mapping[tuple[str, int], float]) -> dict[str, int] | None:
        """Return the chosen widths of least noise, if there are any."""
        from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and seldom needed
        from scipy.sparse import csr_array

        scale = max(noise.values(), default=1.0) or 1.0
        objective = np.zeros(len(self._column))
        for key, value in noise.items():
            objective[self._column[key]] = value / scale
        entries = [(row, column, value) for row, terms in enumerate(self._rows) for column, value in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = csr_array((values, (rows, columns)), shape=(len(self._rows), len(self._column)))
        binary = np.arange(len(self._column)) < len(self.ones)
        held = LinearConstraint(matrix, self._low, self._high)
        solved = milp(objective, integrality=binary, bounds=Bounds(0, 1), constraints=held)
        if solved.x is None:
            return None
        return {name: width for name, width in self.ones if solved.x[self._column[name, width]] > 0.5}
