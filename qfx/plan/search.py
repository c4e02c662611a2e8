"""The cheapest unroll and arithmetic of each node that meet a number of cycles, and what keeps within less."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import product

from qfx.arguments import counted
from qfx.errors import PlanError
from qfx.graph import Graph, Node
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
from qfx.plan.data import NodePlan, Resources, unroll
from qfx.plan.dataflow import Part, ends_segment, owner, readers, stream_words
from qfx.plan.limits import MARGIN, RESOURCES
from qfx.plan.program import Choice, Stream, cheapest, joins
from qfx.plan.timing import Pixels, Sieve, Timing, Window

_WEIGHT = {
    "lut": 2.0,
    "ff": 0.5,
    "bram18": 1.0,
    "dsp": 1.0,
}  # a LUT is dearer than its share: everything else needs LUTs
_POOR = 5  # a step between divisors larger than this makes powers of two the better lanes


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


def _ranked(choices: Iterable[Choice], worth: Resources) -> list[Choice]:
    """The choices with their prices, the cheapest first."""
    priced = (replace(choice, price=price(choice.resources, worth)) for choice in choices)
    return sorted(priced, key=lambda choice: choice.price)


class Search:
    """All choices of every segment, once; then the cheapest of each under a number of cycles.

    Args:
        worth: by whose shares resources are priced.
    """

    def __init__(self, graph: Graph, worth: Resources) -> None:
        self.graph, self.worth = graph, worth
        self.readers = readers(graph)
        self.segments = list(self._segments())
        places = {node.name: number for number, segment in enumerate(self.segments) for node in segment}
        self.streams = [self._streams(segment, places) for segment in self.segments]
        self.choices = {segment[0].name: _ranked(self._choices(segment), worth) for segment in self.segments}
        targets = {choice.cycles for choices in self.choices.values() for choice in choices}
        least = max(min(c.cycles for c in choices) for choices in self.choices.values())
        self.targets = sorted(target for target in targets if target >= least)

    def at(self, worth: Resources) -> Search:
        """Return the same choices at other prices."""
        other = copy(self)
        other.worth = worth
        other.choices = {source: _ranked(choices, worth) for source, choices in self.choices.items()}
        return other

    def fastest(self) -> int:
        """Return the fewest cycles at which the cheapest plan keeps to MARGIN of ``worth``, else the most there are."""
        low, high = 0, len(self.targets) - 1
        while low < high:
            middle = (low + high) // 2
            if self._leaves_margin(self.targets[middle]):
                high = middle
            else:
                low = middle + 1
        return self.targets[high]

    def within(self, target: int, room: Resources | None = None) -> dict[str, NodePlan]:
        """Return the cheapest plan in which no part takes more than ``target`` cycles a frame.

        With ``room`` the cheapest that its nodes fit into; where none does, what exceeds it least.
        """
        chosen = self._chosen(target) if room is None else self._fitted(target, room)
        nodes = {name: made for choice in chosen for name, made in choice.nodes.items()}
        return {node.name: nodes[node.name] for node in self.graph.nodes if not isinstance(node.op, Flatten)}

    def _leaves_margin(self, target: int) -> bool:
        try:
            used = total(choice.resources for choice in self._chosen(target))
        except PlanError:  # no lanes that join
            return False
        return all(getattr(used, name) <= MARGIN * getattr(self.worth, name) for name in RESOURCES)

    def _chosen(self, target: int) -> list[Choice]:
        """Return the cheapest choice of each segment that is fast enough.

        A segment that nothing joins to its inputs puts their lanes out of question, and all are chosen anew.
        """
        avoided: set[_Lanes] = set()
        while True:
            chosen: list[Choice] = []
            for number, segment in enumerate(self.segments):
                source, last = segment[0], segment[-1].name
                fast = [c for c in self._fast(source, target) if (last, c.nodes[last].out_lanes) not in avoided]
                if not fast:
                    raise PlanError(
                        f"node {source.name!r} must have lanes that divide or are divided by its inputs' and readers', "
                        f"but has none at {counted(target, 'cycle')} a frame: allow more cycles a frame"
                    )
                best = next((choice for choice in fast if not self._misfits(number, choice, chosen)), None)
                if best is None:
                    avoided |= min((self._misfits(number, choice, chosen) for choice in fast), key=len)
                    break
                chosen.append(best)
            else:
                return chosen

    def _fitted(self, target: int, room: Resources) -> list[Choice]:
        """Return the cheapest choices that fit into a room, one for each segment."""
        fast = [self._fast(segment[0], target) for segment in self.segments]
        return cheapest(fast, [stream for streams in self.streams for stream in streams], room)

    def _fast(self, source: Node, target: int) -> list[Choice]:
        """The choices that take at most ``target`` cycles, the cheapest first."""
        fast = [choice for choice in self.choices[source.name] if choice.cycles <= target]
        if not fast:
            least = min(choice.cycles for choice in self.choices[source.name])
            raise PlanError(
                f"node {source.name!r} must take at most {counted(target, 'cycle')} a frame, but takes {least} even "
                f"fully unrolled: allow more cycles a frame"
            )
        return fast

    def _misfits(self, number: int, choice: Choice, chosen: Sequence[Choice]) -> set[_Lanes]:
        """The streams, with their lanes, that no adapter joins to a choice for the segment ``number``."""
        streams = [
            (each.name, chosen[each.source].nodes[each.name].out_lanes, each.reader) for each in self.streams[number]
        ]
        return {(name, lanes) for name, lanes, reader in streams if not joins(lanes, choice.nodes[reader].in_lanes)}

    def _streams(self, segment: list[Node], places: Mapping[str, int]) -> list[Stream]:
        """What other segments give the source of a segment."""
        source = segment[0]
        names = [
            owner(self.graph, name)
            for position, name in enumerate(source.inputs)
            if name in self.graph.by_name and not parts.is_offset(source, position)
        ]
        return [Stream(name, places[name], source.name, places[source.name]) for name in names]

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

    def _choices(self, segment: list[Node]) -> Iterator[Choice]:
        """Every way to build the segment; the pipe behind the source depends on its lanes only."""
        pipes: dict[int, list[list[NodePlan]]] = {}
        whole = any(self._read_whole(node) for node in segment)
        for axes in _unrolls(self.graph, segment[0], whole):
            lanes = axes["co"]
            if lanes not in pipes:
                pipes[lanes] = [self._node(node, unroll(co=lanes, ci=lanes)) for node in segment[1:]]
            for made in product(self._node(segment[0], axes), *pipes[lanes]):
                cost = total(node.resources for node in made)
                names = (node.name for node in segment)
                cycles = max(node.cycles for node in made)
                yield Choice(dict(zip(names, made, strict=True)), cycles, cost)

    def _read_whole(self, node: Node) -> bool:
        """Whether a Flatten of several pixels, a Concat or a DepthToSpace reads the node: lanes divide channels."""
        several = node.type.size > node.type.channels
        readers_of = self.graph.consumers[node.name]
        return any(
            isinstance(r.op, Concat | DepthToSpace) or (isinstance(r.op, Flatten) and several) for r in readers_of
        )

    def _node(self, node: Node, axes: dict[str, int]) -> list[NodePlan]:
        """The node with each arithmetic that may be tried for it."""
        if isinstance(node.op, Input):
            return [NodePlan(axes, cycles=stream_words(node.type, axes["co"]))]
        kinds = _arithmetics(self.graph, node)
        return [self._priced(node, NodePlan(axes, kind, "auto" if kind != "none" else "none")) for kind in kinds]

    def _priced(self, node: Node, made: NodePlan) -> NodePlan:
        """Fill in cycles and resources of one node."""
        blocks = parts.make(self.graph, node, made, sized=False)
        out = stream_words(node.type, made.out_lanes)
        cycles = max(_cycles(b.timing, out) for b in blocks)
        pieces = [
            Part("", b.module, node.name, {}, (), b.parameters, b.timing, dict.fromkeys(b.memories, "")) for b in blocks
        ]
        return replace(made, cycles=cycles, resources=total(estimate(piece) for piece in pieces))


def total(resources: Iterable[Resources]) -> Resources:
    """Return the sum of resources."""
    return sum(resources, Resources())


def price(cost: Resources, worth: Resources) -> float:
    """Return what resources are worth, by their shares of ``worth``: the search takes the cheapest."""
    return sum(weight * getattr(cost, name) / max(1, getattr(worth, name)) for name, weight in _WEIGHT.items())


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
