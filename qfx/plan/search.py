"""The planner: the cheapest unroll and arithmetic of each node that meet a number of cycles, and the best that fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from qfx.arguments import counted, require_clock, require_cycles, require_kind
from qfx.boards import Board
from qfx.errors import PlanError
from qfx.graph import Graph, Node, fingerprint, require_graph
from qfx.graph.ops import (
    Affine,
    ChannelMax,
    ChannelSum,
    Concat,
    Conv2d,
    DeformConv2d,
    Dense,
    DepthToSpace,
    Flatten,
    Input,
    MaxPool,
    Multiply,
    Select,
    SumPool,
)
from qfx.plan import parts
from qfx.plan.cost import estimate
from qfx.plan.data import NodePlan, NoFitError, Plan, Resources, unroll
from qfx.plan.dataflow import Part, ends_segment, network, owner, readers, stream_words
from qfx.plan.depths import size_fifos
from qfx.plan.limits import MARGIN, available, excess
from qfx.plan.pacing import paced_fifos
from qfx.plan.timing import Pixels, Sieve, Timing, Window

_WEIGHT = {
    "lut": 2.0,
    "ff": 0.5,
    "bram18": 1.0,
    "dsp": 1.0,
}  # a LUT is dearer than its share: everything else needs LUTs
_POOR = 5  # a step between divisors larger than this makes powers of two the better lanes


def plan(
    graph: Graph,
    board: Board,
    target_cycles: int | None = None,
    clock_mhz: float | None = None,
    estimate_rate: bool = False,
    budget: Resources | None = None,
) -> Plan:
    """Choose how ``graph`` is built on ``board``.

    Args:
        target_cycles: cycles of a frame that no part may exceed; None: as few as fit the board with a margin.
        clock_mhz: None: the board's.
        estimate_rate: take FIFO depths, interval and latency from an even schedule (`qfx.plan.pacing`) instead of from
            the event model, which is exact but takes time and memory for each word of a large network.
        budget: what the design may take (`limits`); None: all of the board.

    Raises:
        PlanError: the target cannot be met, or what meets it does not fit; the node and the resource are named.
    """
    _require_arguments(graph, board, target_cycles, clock_mhz)
    budget = budget or available(board)
    nodes = choose(graph, budget, target_cycles)
    depths, rate = paced_fifos(graph, nodes) if estimate_rate else size_fifos(graph, nodes)
    net = network(graph, nodes, depths)
    costs = {name: _sum(estimate(p) for p in net.parts if p.computes and p.node == name) for name in nodes}
    nodes = {name: replace(node, resources=costs[name]) for name, node in nodes.items()}
    others = _sum(estimate(part) for part in net.parts if not part.computes)
    made = Plan(
        graph.name, fingerprint(graph), board.name, board.part, clock_mhz or board.clock_mhz, nodes, depths,
        rate.interval, rate.latency, others, budget,
    )  # fmt: skip
    _require_fit(made, target_cycles)
    return made


def choose(graph: Graph, budget: Resources, target_cycles: int | None) -> dict[str, NodePlan]:
    """Return unroll and arithmetic of each node: the cheapest, of what ``budget`` has, that take ``target_cycles``.

    Without a target those of the fewest cycles that leave a MARGIN of the budget.
    """
    search = _Search(graph, budget)
    return search.best() if target_cycles is None else search.within(target_cycles)


def _require_arguments(graph: Graph, board: Board, target_cycles: int | None, clock_mhz: float | None) -> None:
    require_graph(graph, PlanError)
    require_kind(PlanError, "board", board, Board, 'a Board, such as Board.load("ultra96v2")')
    require_clock(PlanError, "clock_mhz", clock_mhz)
    require_cycles(PlanError, "target_cycles", target_cycles)


def lane_choices(channels: int, divisors_only: bool = False) -> tuple[int, ...]:
    """Return the numbers of lanes to try for ``channels``: each divides the next, so any two streams can be joined.

    Divisors where they lie close enough, else powers of two, whose last word has idle lanes.
    """
    divisors, rest = [1], channels
    factor = 2
    while rest > 1:
        while rest % factor:
            factor += 1
        rest //= factor
        divisors.append(divisors[-1] * factor)
    if divisors_only or all(b <= _POOR * a for a, b in zip(divisors, divisors[1:], strict=False)):
        return tuple(divisors)
    return tuple(1 << i for i in range((channels - 1).bit_length() + 1))


_Lanes = tuple[str, int]  # a node and the lanes of its stream


@dataclass(frozen=True)
class _Choice:
    """One way to build the source of a segment, and with it the pipe behind."""

    nodes: Mapping[str, NodePlan]  # the source and the nodes of its pipe
    cycles: int
    resources: Resources
    price: float


class _Search:
    """All choices of every segment, once; then the cheapest of each under a number of cycles."""

    def __init__(self, graph: Graph, budget: Resources) -> None:
        self.graph, self.budget = graph, budget
        self.readers = readers(graph)
        self.segments = list(self._segments())
        self.choices = {segment[0].name: self._choices(segment) for segment in self.segments}

    def best(self) -> dict[str, NodePlan]:
        """Return the fastest plan that stays within MARGIN of each budget."""
        targets = sorted({choice.cycles for choices in self.choices.values() for choice in choices})
        targets = [t for t in targets if t >= max(min(c.cycles for c in choices) for choices in self.choices.values())]
        low, high = 0, len(targets) - 1
        while low < high:
            middle = (low + high) // 2
            if self._fits(targets[middle]):
                high = middle
            else:
                low = middle + 1
        return self.within(targets[high])

    def within(self, target: int) -> dict[str, NodePlan]:
        """Return the cheapest plan in which no part takes more than ``target`` cycles a frame."""
        nodes: dict[str, NodePlan] = {}
        for choice in self._chosen(target):
            nodes |= choice.nodes
        return {node.name: nodes[node.name] for node in self.graph.nodes if not isinstance(node.op, Flatten)}

    def _fits(self, target: int) -> bool:
        try:
            used = _sum(choice.resources for choice in self._chosen(target))
        except PlanError:  # no lanes that join
            return False
        return all(getattr(used, f.name) <= MARGIN * getattr(self.budget, f.name) for f in fields(Resources))

    def _chosen(self, target: int) -> list[_Choice]:
        """Return the cheapest choice of each segment that is fast enough.

        A segment that nothing joins to its inputs puts their lanes out of question, and all are chosen anew.
        """
        avoided: set[_Lanes] = set()
        while True:
            lanes: dict[str, int] = {}
            chosen: list[_Choice] = []
            for segment in self.segments:
                source, last = segment[0], segment[-1].name
                fast = [c for c in self._fast(source, target) if (last, c.nodes[last].out_lanes) not in avoided]
                misfits = {i: self._misfits(source, choice, lanes) for i, choice in enumerate(fast)}
                if not fast:
                    raise PlanError(
                        f"node {source.name!r} must have lanes that divide or are divided by its inputs' and readers', "
                        f"but has none at {counted(target, 'cycle')} a frame: allow more cycles a frame"
                    )
                best = min(misfits, key=lambda i: (len(misfits[i]), fast[i].price))
                if misfits[best]:
                    avoided |= misfits[best]
                    break
                chosen.append(fast[best])
                lanes |= {node.name: fast[best].nodes[node.name].out_lanes for node in segment}
            else:
                return chosen

    def _fast(self, source: Node, target: int) -> list[_Choice]:
        """The choices that take at most ``target`` cycles."""
        fast = [choice for choice in self.choices[source.name] if choice.cycles <= target]
        if not fast:
            least = min(choice.cycles for choice in self.choices[source.name])
            raise PlanError(
                f"node {source.name!r} must take at most {counted(target, 'cycle')} a frame, but takes {least} even "
                f"fully unrolled: allow more cycles a frame"
            )
        return fast

    def _misfits(self, source: Node, choice: _Choice, lanes: Mapping[str, int]) -> set[_Lanes]:
        """The streams, with their lanes, that no adapter joins to the choice."""
        found = set()
        for position, name in enumerate(source.inputs):
            if name in self.graph.by_name and not parts.is_offset(source, position):
                stream = owner(self.graph, name)
                a, b = lanes[stream], choice.nodes[source.name].in_lanes
                if max(a, b) % min(a, b):
                    found.add((stream, a))
        return found

    def _segments(self) -> Iterator[list[Node]]:
        """The graph's nodes as segments: a source and the pipe that follows it."""
        taken: set[str] = set()
        for node in self.graph.nodes:
            if isinstance(node.op, Flatten) or node.name in taken:
                continue
            segment = [node]
            if not isinstance(node.op, Input):
                while not ends_segment(self.graph, self.readers[segment[-1].name]):
                    segment.append(self.graph.by_name[self.readers[segment[-1].name][0][0]])
            taken |= {each.name for each in segment}
            yield segment

    def _choices(self, segment: list[Node]) -> list[_Choice]:
        """Every way to build the segment; the pipe behind the source depends on its lanes only."""
        pipes: dict[int, dict[str, NodePlan]] = {}
        whole = any(self._read_whole(node) for node in segment)
        found = []
        for axes in _unrolls(self.graph, segment[0], whole):
            lanes = axes["co"]
            if lanes not in pipes:
                pipes[lanes] = {node.name: self._node(node, unroll(co=lanes, ci=lanes)) for node in segment[1:]}
            nodes = {segment[0].name: self._node(segment[0], axes), **pipes[lanes]}
            cost = _sum(node.resources for node in nodes.values())
            cycles = max(node.cycles for node in nodes.values())
            found.append(_Choice(nodes, cycles, cost, price(cost, self.budget)))
        return found

    def _read_whole(self, node: Node) -> bool:
        """Whether a Flatten of several pixels, a Concat or a DepthToSpace reads the node: lanes divide channels."""
        several = node.type.size > node.type.channels
        readers_of = self.graph.consumers[node.name]
        return any(
            isinstance(r.op, Concat | DepthToSpace) or (isinstance(r.op, Flatten) and several) for r in readers_of
        )

    def _node(self, node: Node, axes: dict[str, int]) -> NodePlan:
        if isinstance(node.op, Input):
            return NodePlan(axes, cycles=stream_words(node.type, axes["co"]))
        kinds = _arithmetics(self.graph, node)
        tried = [self._priced(node, NodePlan(axes, kind, "auto" if kind != "none" else "none")) for kind in kinds]
        return min(tried, key=lambda each: price(each.resources, self.budget))

    def _priced(self, node: Node, made: NodePlan) -> NodePlan:
        """Fill in cycles and resources of one node."""
        blocks = parts.make(self.graph, node, made, sized=False)
        out = stream_words(node.type, made.out_lanes)
        cycles = max(_cycles(b.timing, out) for b in blocks)
        pieces = [
            Part("", b.module, node.name, {}, (), b.parameters, b.timing, dict.fromkeys(b.memories, "")) for b in blocks
        ]
        return replace(made, cycles=cycles, resources=_sum(estimate(piece) for piece in pieces))


def price(cost: Resources, budget: Resources) -> float:
    """Return what resources are worth where so much may be taken: the search takes the cheapest."""
    return sum(weight * getattr(cost, name) / max(1, getattr(budget, name)) for name, weight in _WEIGHT.items())


def _cycles(timing: Timing, words: int) -> int:
    """A part's own time for a frame of ``words`` words out."""
    match timing:
        case Window():
            return timing.cycles
        case Pixels():
            return max(words, words // timing.b * timing.a)
        case Sieve():
            return timing.words
        case _:
            return words


def _arithmetics(graph: Graph, node: Node) -> tuple[str, ...]:
    """The multipliers to try: K-hot constants are made for shifts, so nothing else is tried for them."""
    if isinstance(node.op, Multiply):
        return ("lut", "dsp")
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    if not constants or not isinstance(node.op, Conv2d | DeformConv2d | Dense | Affine):
        return ("none",)
    return ("khot",) if constants[0].max_digits is not None else ("lut", "dsp")


def _unrolls(graph: Graph, node: Node, whole: bool) -> Iterator[dict[str, int]]:
    """The unrolls of a segment's source; with ``whole`` no lane may be idle."""
    channels = node.type.channels
    match node.op:
        case Conv2d() if not parts.is_depthwise(graph, node):
            kernel = graph.constants[node.inputs[1]].codes.shape
            groups = node.op.groups
            inputs = lane_choices(kernel[2], divisors_only=groups > 1)
            for ci in inputs:
                for co in lane_choices(channels // groups, divisors_only=whole or groups > 1):
                    for ky, kx in _taps(kernel[:2]):
                        yield unroll(co=co, ci=ci, ky=ky, kx=kx)
        case Dense():
            for ci in lane_choices(graph.by_name[node.inputs[0]].type.channels):
                for co in lane_choices(channels):
                    yield unroll(co=co, ci=ci)
        case Conv2d() | MaxPool() | SumPool():
            kernel = (
                node.op.kernel
                if isinstance(node.op, MaxPool | SumPool)
                else graph.constants[node.inputs[1]].codes.shape
            )
            for lanes in lane_choices(channels, divisors_only=whole):
                for ky, kx in _taps(kernel[:2]):
                    yield unroll(co=lanes, ci=lanes, ky=ky, kx=kx)
        case ChannelMax() | ChannelSum():
            for ci in lane_choices(graph.by_name[node.inputs[0]].type.channels):
                yield unroll(ci=ci)
        case Select():
            for ci in lane_choices(graph.by_name[node.inputs[0]].type.channels):
                for co in lane_choices(channels, divisors_only=whole):
                    yield unroll(co=co, ci=ci)
        case DepthToSpace():
            for lanes in lane_choices(channels, divisors_only=True):
                yield unroll(co=lanes, ci=lanes)
        case Concat():
            a, b = (graph.by_name[name].type.channels for name in node.inputs)
            for lanes in range(1, a + 1):
                if a % lanes == 0 and not (whole and b % lanes):
                    yield unroll(co=lanes, ci=lanes)
        case _:
            for lanes in lane_choices(channels, divisors_only=whole):
                yield unroll(co=lanes, ci=lanes)


def _taps(kernel: tuple[int, ...]) -> list[tuple[int, int]]:
    """One tap a step, one row of taps, or all."""
    return sorted({(1, 1), (1, kernel[1]), (kernel[0], kernel[1])})


def _sum(resources: Iterator[Resources] | Sequence[Resources]) -> Resources:
    return sum(resources, Resources())


def _require_fit(made: Plan, target_cycles: int | None) -> None:
    """Raise NoFitError where the estimate exceeds the board."""
    exceeded = []
    for name, words in excess(made.resources, made.budget).items():
        worst = max(made.nodes, key=lambda node: getattr(made.nodes[node].resources, name))
        exceeded.append(f"{words} (node {worst!r}: {getattr(made.nodes[worst].resources, name):,})")
    if not exceeded:
        return
    if target_cycles is None:
        found, remedy = "in the smallest folding found, of", "use smaller widths, fewer channels or a larger board"
    else:
        found, remedy = "at", "allow more cycles a frame, or use smaller widths or fewer channels"
    raise NoFitError(
        f"the graph {made.graph!r} must fit {made.board}, but needs {', '.join(exceeded)} {found} "
        f"{counted(made.interval, 'cycle')} a frame: {remedy}",
        made,
    )
