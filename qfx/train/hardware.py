"""What each choice of widths would take of a board, from the plan's own numbers: costs for `qfx.allocate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from itertools import combinations, product
from typing import Any

import numpy as np
from torch import Tensor, nn

from qfx.arguments import counted, require_cycles, require_kind
from qfx.boards import Board
from qfx.errors import TrainError
from qfx.graph.ops import Conv2d, DeformConv2d, Dense
from qfx.nn.calibrate import quantizers
from qfx.nn.choices import Choice
from qfx.nn.program import Cost
from qfx.plan import Resources, limits
from qfx.plan.cost import estimate
from qfx.plan.dataflow import Part, owner
from qfx.plan.limits import RESOURCES, available, excess
from qfx.plan.search import price
from qfx.plan.slopes import followed
from qfx.train.cost import Fifos, Planned, planned

Counts = np.ndarray[Any, np.dtype[np.int64]]  # in the order of RESOURCES


class Hardware:
    """A board and a rate, at which `qfx.allocate` plans a network.

    Args:
        cycles: of a frame, at most.
        estimate_rate: as for `qfx.plan.plan`.
    """

    def __init__(self, board: Board, cycles: int, estimate_rate: bool = False) -> None:
        require_kind(TrainError, "board", board, Board, 'a Board, such as Board.load("ultra96v2")')
        require_kind(TrainError, "cycles", cycles, int, "a whole number of cycles")
        require_cycles(TrainError, "cycles", cycles)
        self.board, self.cycles, self.estimate_rate = board, cycles, estimate_rate
        self._fifos: Fifos = {}

    @property
    def place(self) -> str:
        """The board and the rate, in words."""
        return f"{self.board.name} at {counted(self.cycles, 'cycle')} a frame"

    def limits(self, budget: Mapping[str, float]) -> dict[str, int]:
        """Return a budget as counts (see `qfx.plan.limits`)."""
        found = limits(self.board, budget)
        return {name: getattr(found, name) for name in RESOURCES}

    def costs(
        self, model: nn.Module, example: Tensor, limits: Mapping[str, int], choices: Sequence[Choice]
    ) -> dict[str, Cost]:
        """Return what widths cost of each resource, near those of ``model``, where it is exactly what the plan says.

        Unrolls are those of the plan. Each part takes what the plan's formulas say of its widths, with the multipliers
        that the plan would then choose. Of a part that depends on several widths, the sum of the changes by each alone
        and of those that any two make together is taken: products are exact. Ranges count as unchanged.
        """
        budget, worth = Resources(**limits), available(self.board)
        made = planned(model, example, self.board, self.cycles, budget, self.estimate_rate, self._fifos)
        known = quantizers(model)
        sources, reads = _sources(made, model)
        of = {name: choice.name for choice in choices for name in choice.quantizers}
        now = {choice.name: next(known[q].width for q in choice.quantizers if q in known) for choice in choices}
        table = _Table(now, {choice.name: choice.widths for choice in choices})
        for part, slopes in zip(made.network.parts, followed(made.graph, made.network.parts, reads), strict=True):
            by: dict[str, dict[str, float]] = {}
            for parameter, each in slopes.items():
                for source, slope in each.items():
                    if slope and (name := sources.get(source)) in of:
                        own = by.setdefault(of[name], {})
                        own[parameter] = own.get(parameter, 0.0) + slope
            table.add(part, by, _multipliers(part, worth, budget), worth)
        return table.costs()


def _sources(made: Planned, model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """The path of the quantizer behind each source of a width; and which layers read what no node states.

    Where the source of a layer's input has the very format of its quantizer, no Requantize stands between them.
    """
    paths = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    sources = {name: paths[id(quantizer)] for name, quantizer in made.stated.items() if id(quantizer) in paths}
    modules, reads = dict(model.named_modules()), {}
    for node in made.graph.nodes:
        own = paths.get(id(getattr(modules.get(node.name), "input_quant", None)))
        if own and isinstance(node.op, Conv2d | DeformConv2d | Dense):
            if sources.get(owner(made.graph, node.inputs[0])) != own:
                sources[own], reads[node.name] = own, own
    return sources, reads


class _Table:
    """The sum of what parts take, by widths."""

    def __init__(self, now: Mapping[str, int], choices: Mapping[str, Sequence[int]]) -> None:
        self.now, self.choices = now, choices
        self.fixed = np.zeros(len(RESOURCES), np.int64)
        self.single: dict[str, dict[int, Counts]] = {}
        self.pairs: dict[tuple[str, str], dict[tuple[int, int], Counts]] = {}

    def add(
        self, part: Part, by: Mapping[str, Mapping[str, float]], multipliers: Sequence[str], worth: Resources
    ) -> None:
        """Add a part, given how its parameters follow the width of each quantizer: ``by[quantizer][parameter]``."""

        def at(**widths: int) -> Counts:
            parameters = dict(part.parameters)
            for parameter in {parameter for name in widths for parameter in by[name]}:
                bits = sum(by[name].get(parameter, 0.0) * (w - self.now[name]) for name, w in widths.items())
                new = int(parameters[parameter]) + round(bits)
                parameters[parameter] = max(new, 1) if parameter.endswith("Width") else new
            return np.array(astuple(_cheapest(replace(part, parameters=parameters), multipliers, worth)[1]), np.int64)

        base = at()
        self.fixed += base
        alone = {name: {w: at(**{name: w}) - base for w in self.choices[name]} for name in by}
        for name, changes in alone.items():
            known = self.single.setdefault(name, dict.fromkeys(changes, np.zeros(len(RESOURCES), np.int64)))
            self.single[name] = {w: known[w] + change for w, change in changes.items()}
        for a, b in combinations(sorted(by), 2):
            both = {
                (v, w): at(**{a: v, b: w}) - base - alone[a][v] - alone[b][w]
                for v, w in product(self.choices[a], self.choices[b])
            }
            if any(change.any() for change in both.values()):
                known2 = self.pairs.get((a, b), dict.fromkeys(both, np.zeros(len(RESOURCES), np.int64)))
                self.pairs[a, b] = {key: known2[key] + change for key, change in both.items()}

    def costs(self) -> dict[str, Cost]:
        """The sums, of each resource."""
        return {
            name: Cost(
                float(self.fixed[i]),
                {each: {w: float(c[i]) for w, c in changes.items()} for each, changes in self.single.items()},
                {each: {w: float(c[i]) for w, c in changes.items()} for each, changes in self.pairs.items()},
            )
            for i, name in enumerate(RESOURCES)
        }


def _multipliers(part: Part, worth: Resources, budget: Resources) -> tuple[str, ...]:
    """The multipliers that the plan may take for a part at other widths; () where there are none to choose.

    One that it took against the price, because of the budget, it keeps.
    """
    now = str(part.parameters.get("Arithmetic", ""))
    if now not in ("lut", "dsp"):
        return ()
    kinds = tuple(kind for kind in ("lut", "dsp") if kind == now or not excess(_of(part, kind), budget))
    return kinds if _cheapest(part, kinds, worth)[0] == now else (now,)


def _cheapest(part: Part, multipliers: Sequence[str], worth: Resources) -> tuple[str, Resources]:
    """The cheapest multiplier, and what the part then takes."""
    tried = [(kind, _of(part, kind)) for kind in multipliers] or [("", estimate(part))]
    return min(tried, key=lambda each: price(each[1], worth))


def _of(part: Part, multiplier: str) -> Resources:
    return estimate(replace(part, parameters={**part.parameters, "Arithmetic": multiplier}))
