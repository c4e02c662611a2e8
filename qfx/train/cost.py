"""What a model in training would take as hardware: the plan's own estimate, differentiable in learned widths and K."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qfx.arguments import require_kind
from qfx.boards import Board
from qfx.errors import TrainError
from qfx.graph import Graph
from qfx.graph.lower import lowered
from qfx.nn.quantizer import Quantizer
from qfx.plan import NodePlan, Plan, Resources, network, plan
from qfx.plan.cost import estimate
from qfx.plan.dataflow import Network
from qfx.plan.depths import size_fifos
from qfx.plan.fit import fitted
from qfx.plan.limits import RESOURCES, available
from qfx.plan.model import Rate
from qfx.plan.pacing import paced_fifos
from qfx.plan.search import total
from qfx.plan.slopes import Slope, digits_of, sloped
from qfx.train.sizes import learned_sizes, size_of, sizes_in_use

Fifos = dict[Any, tuple[dict[str, int], Rate]]  # depths of each way to build it, with the rate that they keep


@dataclass(frozen=True)
class Local:
    """The estimate at the widths and K that quantizers have, and how it changes with them."""

    sizes: dict[str, float]  # of each quantizer whose width or K is learned, by its path
    values: dict[str, float]  # of lut, ff, bram18, dsp, cycles
    slopes: dict[str, dict[str, float]]  # of each of them, by quantizer: a bit, or a digit, more costs so much more


class HardwareCost:
    """LUT, FF, BRAM18, DSP and cycles a frame of a model on a board, as scalars with gradients to learned sizes.

    Sizes are widths in bits, and the K of K-hot constants, of which the largest of a layer's channels counts. The model
    is lowered and planned as `qfx.lower` and `qfx.plan.plan` do it, so that at the sizes in use the numbers are the
    plan's, in every unit. Their gradients are those of the plan's own formulas without their rounding up, in
    the unrolls and arithmetic that the plan has chosen. Cycles depend on these alone, and have no gradient.

    Calling it returns ``value + slope * (size - size then)`` from the last `refresh`, which costs a fraction of a
    second; where sizes have changed by whole bits or digits since, that is an estimate of the estimate, until the next
    refresh.

    Args:
        model: calibrated layers of qfx.nn; it is looked at, not copied.
        example: an input, of which only the shape counts.
        cycles: of a frame, at most; None: as few as fit.
        budget: what the design may take, as for `qfx.plan.plan`; None: the board.
        estimate_rate: as for `qfx.plan.plan`.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        board: Board,
        cycles: int | None = None,
        budget: Resources | None = None,
        estimate_rate: bool = False,
    ) -> None:
        require_kind(TrainError, "board", board, Board, 'a Board, such as Board.load("ultra96v2")')
        self.model, self.example, self.board, self.cycles = model, example[:1], board, cycles
        self.budget, self.estimate_rate = budget or available(board), estimate_rate
        self._fifos: Fifos = {}
        self.local = self._local()

    def plan(self) -> Plan:
        """Return the plan of the model as it is, or raise as `qfx.plan.plan` does."""
        graph = lowered(self.model, self.example)[0]
        return plan(graph, self.board, self.cycles, estimate_rate=self.estimate_rate, budget=self.budget)

    def refresh(self) -> None:
        """Lower and plan again: the sizes, and so the slopes, are those of now."""
        self.local = self._local()

    def __call__(self) -> dict[str, Tensor]:
        """Return each of lut, ff, bram18, dsp and cycles as a float64 scalar."""
        known = learned_sizes(self.model)
        found = {}
        for count, value in self.local.values.items():
            found[count] = torch.tensor(value, dtype=torch.float64)
            for name, slope in self.local.slopes[count].items():
                found[count] = found[count] + slope * (size_of(known[name]) - self.local.sizes[name])
        return found

    @property
    def stale(self) -> bool:
        """Whether a width has changed by a bit or more, or a K by a digit, since the last refresh."""
        return sizes_in_use(self.model) != self.local.sizes

    @torch.no_grad()
    def _local(self) -> Local:
        made = planned(self.model, self.example, self.board, self.cycles, self.budget, self.estimate_rate, self._fifos)
        whole = sloped(made.graph, made.network)
        paths = {id(quantizer): name for name, quantizer in learned_sizes(self.model).items()}
        numbers = {**{name: getattr(whole, name) for name in RESOURCES}, "cycles": made.interval}
        numbers = {count: number if isinstance(number, Slope) else Slope(number) for count, number in numbers.items()}
        values = {count: float(number.value) for count, number in numbers.items()}
        slopes = {count: _by_quantizer(number.by, made.stated, paths) for count, number in numbers.items()}
        return Local(sizes_in_use(self.model), values, slopes)


@dataclass(frozen=True)
class Planned:
    """A model as a graph, and the parts that the plan makes of it."""

    graph: Graph
    stated: Mapping[str, Quantizer]  # by node or constant, what states its format
    network: Network
    interval: int  # cycles of a frame

    @property
    def resources(self) -> Resources:
        """The estimate for the whole design."""
        return total(estimate(part) for part in self.network.parts)


def planned(
    model: nn.Module,
    example: Tensor,
    board: Board,
    cycles: int | None,
    budget: Resources,
    estimate_rate: bool,
    fifos: Fifos,
) -> Planned:
    """Lower a model and plan it, FIFOs that are known as they are; if nothing fits, what exceeds the budget least."""
    graph, stated = lowered(model, example)

    def build(nodes: Mapping[str, NodePlan]) -> Planned:
        shape = network(graph, nodes, {})  # what depths follow: also a Requantize, or a stage of one, comes and goes
        key = tuple((part.name, part.timing, tuple(stream.words for stream in part.outputs)) for part in shape.parts)
        if key not in fifos:
            fifos[key] = (paced_fifos if estimate_rate else size_fifos)(graph, nodes)
        depths, rate = fifos[key]
        return Planned(graph, stated, network(graph, nodes, depths), rate.interval)

    return fitted(graph, available(board), budget, cycles, build)


def _by_quantizer(
    by: Mapping[str, float], stated: Mapping[str, Quantizer], paths: Mapping[int, str]
) -> dict[str, float]:
    """Slopes by what states a width or K in the graph as those by the quantizer that learns it."""
    found: dict[str, float] = {}
    for name, quantizer in stated.items():
        path, source = paths.get(id(quantizer)), digits_of(name) if quantizer.learns_digits else name
        if path is not None and source in by:
            found[path] = found.get(path, 0.0) + by[source]
    return dict(sorted(found.items()))
