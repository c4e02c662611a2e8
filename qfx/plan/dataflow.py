"""The dataflow of parts that a graph and its plan become: what the event model runs and the RTL emitter writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qfx.errors import PlanError
from qfx.graph import Graph, Node, TensorType
from qfx.graph.ops import Affine, Clamp, Flatten, Input, Lookup, Requantize
from qfx.plan import parts as build
from qfx.plan.data import NodePlan
from qfx.plan.timing import Fifo, Fork, Gate, Timing, Width

PIPES = (Affine, Clamp, Lookup, Requantize)
GENEROUS = 256  # words of a FIFO that is not sized yet


@dataclass(frozen=True, slots=True)
class Stream:
    """A wire bundle that carries one tensor, ``lanes`` codes a word; a pipe has no ready."""

    name: str  # legal and unique: `<name>_valid`, `<name>_ready`, `<name>_data`
    node: str  # whose result flows here
    lane_width: int  # bits of a code
    lanes: int
    words: int  # a frame
    pipe: bool = False

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.lanes * self.lane_width


@dataclass(frozen=True)
class Part:
    """One instance of an RTL module."""

    name: str  # the instance is `u_<name>`
    module: str
    node: str  # the graph's node that it computes, stores or moves
    inputs: Mapping[str, Stream]  # by port name
    outputs: tuple[Stream, ...]  # several for a fork
    parameters: Mapping[str, int | str]
    timing: Timing
    memories: Mapping[str, str] = field(default_factory=dict)  # parameter -> name of the .mem file
    closes: str = ""  # for the FIFO at the end of a segment: the part that gets its credits back
    computes: bool = False  # its output is the node's result


@dataclass(frozen=True)
class Network:
    """All parts of a design in the order of the data, its ports and its FIFOs."""

    parts: tuple[Part, ...]
    input: Stream
    outputs: tuple[Stream, ...]  # in the order of the graph's outputs
    fifos: Mapping[str, str]  # key in Plan.depths -> name of the part; "" where there is none (depth 0)

    def by_name(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def results(self) -> dict[str, Stream]:
        """For each node that a part computes, the stream that carries its result first."""
        return {part.node: part.outputs[0] for part in self.parts if part.computes}


class Labels:
    """Gives every name of the graph its own legal identifier."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def new(self, kind: str, name: str) -> str:
        """Return ``kind_name`` with every other character replaced, and a number where that is taken."""
        base = label = f"{kind}_" + re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        number = 2
        while label in self._used:
            label, number = f"{base}_{number}", number + 1
        self._used.add(label)
        return label


def stream_words(kind: TensorType, lanes: int) -> int:
    """Words of a frame with ``lanes`` channels each."""
    return kind.size // kind.channels * -(-kind.channels // lanes)


def owner(graph: Graph, name: str) -> str:
    """The node whose stream carries the tensor ``name``: a Flatten only renames what it reads."""
    node = graph.by_name[name]
    return owner(graph, node.inputs[0]) if isinstance(node.op, Flatten) else name


def readers(graph: Graph) -> dict[str, list[tuple[str, int]]]:
    """For each node that is no Flatten, who reads its stream: (node, operand), or ("", index) for an output."""
    found: dict[str, list[tuple[str, int]]] = {n.name: [] for n in graph.nodes if not isinstance(n.op, Flatten)}
    for node in graph.nodes:
        if not isinstance(node.op, Flatten):
            for position, name in enumerate(node.inputs):
                if name in graph.by_name:
                    found[owner(graph, name)].append((node.name, position))
    for index, name in enumerate(graph.outputs):
        found[owner(graph, name)].append(("", index))
    return found


def ends_segment(graph: Graph, readers_of: list[tuple[str, int]]) -> bool:
    """Whether a stream with these readers leaves its segment: unless its only reader is a part of a pipe."""
    if len(readers_of) != 1 or not readers_of[0][0]:
        return True
    return not isinstance(graph.by_name[readers_of[0][0]].op, PIPES)


def network(graph: Graph, nodes: Mapping[str, NodePlan], depths: Mapping[str, int]) -> Network:
    """Build the dataflow of ``graph`` with the unrolls and arithmetic of ``nodes``.

    ``depths`` gives the words of each FIFO; a missing one that closes a segment is GENEROUS, a missing one on a branch
    of a fork is left out.
    """
    return _Builder(graph, nodes, depths).run()


class _Builder:
    """Walks the graph once and collects parts."""

    def __init__(self, graph: Graph, nodes: Mapping[str, NodePlan], depths: Mapping[str, int]) -> None:
        self.graph, self.nodes, self.depths = graph, nodes, depths
        self.readers, self.least = readers(graph), least_depths(graph)
        self.labels = Labels()
        self.parts: list[Part] = []
        self.fifos: dict[str, str] = {}
        self.branches: dict[tuple[str, int], Stream] = {}  # the stream that waits for a reader
        self.open: dict[str, tuple[Stream, int]] = {}  # node -> pipe that goes on, index of its segment's source

    def run(self) -> Network:
        _check(self.graph, self.readers)
        entry = self._input()
        for node in self.graph.nodes:
            if not isinstance(node.op, Input | Flatten):
                self._node(node)
        outputs = tuple(self.branches[("", index)] for index in range(len(self.graph.outputs)))
        return Network(tuple(self.parts), entry, outputs, self.fifos)

    def _input(self) -> Stream:
        node = self.graph.input
        lanes = self.nodes[node.name].out_lanes
        entry = Stream("in", node.name, node.type.fixed.width, lanes, stream_words(node.type, lanes))
        if self.readers[node.name] == [("", 0)]:  # no path may cross the design
            self._distribute(
                node,
                self._fifo(
                    node.name, f"{node.name}->output", entry, max(self.depths.get(f"{node.name}->output", 2), 2), {}
                ),
            )
        else:
            self._distribute(node, entry)
        return entry

    def _node(self, node: Node) -> None:
        if isinstance(node.op, PIPES):
            pipe, source = self._pipe_input(node)
        else:
            pipe, source = None, len(self.parts)
        pipe, source = self._compute(node, pipe, source)
        if ends_segment(self.graph, self.readers[node.name]):
            self._close(node, pipe, source)
        else:
            self.open[node.name] = (pipe, source)

    def _pipe_input(self, node: Node) -> tuple[Stream, int]:
        """The pipe that ``node`` goes on with: an open one, or a new segment's behind a gate."""
        producer = owner(self.graph, node.inputs[0])
        if producer in self.open:
            pipe, source = self.open.pop(producer)
            if pipe.lanes != self.nodes[node.name].in_lanes:
                raise PlanError(
                    f"node {node.name!r} must have the {pipe.lanes} lanes of {producer!r}, whose pipe it goes on, "
                    f"not {self.nodes[node.name].in_lanes}"
                )
            return pipe, source
        stream = self._operand(node, 0)
        label = self.labels.new("gate", node.name)
        pipe = replace(stream, name=label, pipe=True)
        self.parts.append(
            Part(label, "qfx_gate", stream.node, {"in": stream}, (pipe,), {"Width": stream.width}, Gate())
        )
        return pipe, len(self.parts) - 1

    def _compute(self, node: Node, pipe: Stream | None, source: int) -> tuple[Stream, int]:
        """Append the parts of a node's own arithmetic and return its pipe and its segment's source."""
        made = build.make(self.graph, node, self.nodes[node.name])
        lanes = self.nodes[node.name].out_lanes
        if pipe is None:
            operands = [i for i, name in enumerate(node.inputs) if name in self.graph.by_name]
            streams = {port: self._operand(node, i) for port, i in zip(made[0].ports, operands, strict=True)}
            source = len(self.parts)  # behind the adapters of its operands
        else:
            streams = {"in": pipe}
        out = pipe
        for number, block in enumerate(made):
            label = self.labels.new(block.module.removeprefix("qfx_"), node.name)
            words = stream_words(node.type, lanes)
            last = number == len(made) - 1
            out = Stream(label, node.name, block.out_width // lanes, lanes, words, pipe=True)
            memories = {key: f"{label}_{key.removesuffix('File').lower()}.mem" for key in block.memories}
            parameters = {**block.parameters, **memories}
            self.parts.append(
                Part(label, block.module, node.name, streams, (out,), parameters, block.timing, memories, computes=last)
            )
            streams = {"in": out}
        assert out is not None
        return out, source

    def _operand(self, node: Node, position: int) -> Stream:
        """The stream of an operand, in the lanes that the node wants."""
        stream = self.branches.pop((node.name, position))
        wanted = 1 if build.is_offset(node, position) else self.nodes[node.name].in_lanes
        if stream.lanes == wanted:
            return stream
        view = self.graph.by_name[node.inputs[position]].type
        if max(stream.lanes, wanted) % min(stream.lanes, wanted):
            raise PlanError(
                f"one of the lanes of {stream.node!r} ({stream.lanes}) and of its reader {node.name!r} ({wanted}) must "
                f"divide the other"
            )
        label = self.labels.new("width", f"{stream.node}_to_{node.name}")
        out = replace(stream, name=label, lanes=wanted, words=stream_words(view, wanted))
        parameters = {
            "LaneWidth": stream.lane_width,
            "InLanes": stream.lanes,
            "OutLanes": wanted,
            "Channels": view.channels,
        }
        slim, ratio = min(stream.lanes, wanted), max(stream.lanes, wanted) // min(stream.lanes, wanted)
        timing = Width(-(-view.channels // slim), ratio, wanted > stream.lanes)
        self.parts.append(Part(label, "qfx_width", stream.node, {"in": stream}, (out,), parameters, timing))
        return out

    def _close(self, node: Node, pipe: Stream, source: int) -> None:
        """End the segment of ``pipe`` with a FIFO whose depth is the credits of its source."""
        start = self.parts[source]
        depth = max(self.depths.get(node.name, GENEROUS), self.least[node.name])
        self.parts[source] = replace(start, parameters={**start.parameters, "Credits": depth})
        stream = self._fifo(node.name, node.name, replace(pipe, pipe=False), depth, {"closes": start.name})
        self._distribute(node, stream)

    def _fifo(self, node: str, key: str, stream: Stream, depth: int, extra: Mapping[str, str]) -> Stream:
        label = self.labels.new("fifo", key.replace("->", "_to_"))
        out = replace(stream, name=label, pipe=False)
        parameters = {"Width": stream.width, "Depth": depth}
        source = replace(stream, pipe="closes" in extra)
        self.parts.append(Part(label, "qfx_fifo", node, {"in": source}, (out,), parameters, Fifo(depth), **extra))  # type: ignore[arg-type]
        self.fifos[key] = label
        return out

    def _distribute(self, node: Node, stream: Stream) -> None:
        """Give each reader of ``node`` a stream of its own."""
        to = self.readers[node.name]
        if len(to) == 1:
            self.branches[to[0]] = stream
            return
        label = self.labels.new("fork", node.name)
        branches = tuple(replace(stream, name=f"{label}_{i}") for i in range(len(to)))
        parameters = {"Width": stream.width, "Outputs": len(to)}
        self.parts.append(Part(label, "qfx_fork", node.name, {"in": stream}, branches, parameters, Fork()))
        for reader, branch in zip(to, branches, strict=True):
            key = branch_key(node.name, *reader)
            depth = max(self.depths.get(key, 0), self.least[key])
            self.fifos[key] = ""
            self.branches[reader] = self._fifo(node.name, key, branch, depth, {}) if depth else branch


def least_depths(graph: Graph) -> dict[str, int]:
    """For each FIFO that a design may have, by key, the least depth that it must have whatever the rate."""
    found = {}
    for name, to in readers(graph).items():
        if not isinstance(graph.by_name[name].op, Input) and ends_segment(graph, to):
            found[name] = max(build.least_branch(graph, to[0]), 1) if len(to) == 1 else 1
        for reader in to:
            found[branch_key(name, *reader)] = build.least_branch(graph, reader) if len(to) > 1 else 0
        if isinstance(graph.by_name[name].op, Input):
            found[f"{name}->output"] = 2
    return found


def branch_key(producer: str, reader: str, operand: int) -> str:
    """The name in Plan.depths of the FIFO between a fork and a reader."""
    return f"{producer}->{reader}.{operand}" if reader else f"{producer}->output.{operand}"


def _check(graph: Graph, readers_of: Mapping[str, list[tuple[str, int]]]) -> None:
    for node in graph.nodes:
        if node.type.fixed.width < 1:
            raise PlanError(f"node {node.name!r} must be at least one bit wide: run the pass remove_zero_width first")
    dead = [name for name, found in readers_of.items() if not found]
    if dead:
        raise PlanError(
            f"node {dead[0]!r} must be read by another node or be an output: run the pass remove_dead first"
        )
