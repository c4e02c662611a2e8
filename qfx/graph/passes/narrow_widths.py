"""The width proof: each result gets the smallest format that its static bounds allow."""

from dataclasses import replace

from qfx.fixed import Fixed, fixed_for_range
from qfx.graph.bounds import Range, static_ranges
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import (
    Add,
    Affine,
    ChannelMax,
    ChannelSum,
    Clamp,
    Concat,
    Conv2d,
    DeformConv2d,
    Dense,
    DepthToSpace,
    Flatten,
    Lookup,
    MaxPool,
    Multiply,
    Select,
    Slice,
    SumPool,
    Upsample,
)
from qfx.graph.passes.rebuild import operands_of
from qfx.graph.tensor import TensorType

_INHERIT = (Clamp, ChannelMax, Concat, Select, MaxPool, Upsample, DepthToSpace, Slice, Flatten)
_EXACT = (Conv2d, DeformConv2d, Dense, Affine, Add, Multiply, SumPool, ChannelSum)


def narrow_widths(graph: Graph) -> Graph:
    """Return the graph whose arithmetic results are as narrow as their proved ranges.

    Only the results of exact arithmetic are narrowed, and what inherits its format from them. The formats that training
    chose (Input, Requantize, Lookup) stay, and so does what a Lookup reads, whose codes its table counts. The bounds of
    a Clamp shrink with the format that they are codes of.
    """
    ranges = static_ranges(graph)
    kept = _kept(graph, ranges)
    known: dict[str, TensorType] = {}
    nodes = []
    for node in graph.nodes:
        if node.name not in kept:
            node = _narrowed(_retyped(node, graph, known), ranges[node.name])
        known[node.name] = node.type
        nodes.append(node)
    return graph.replace_nodes(tuple(nodes))


def _kept(graph: Graph, ranges: dict[str, Range]) -> set[str]:
    """The nodes whose format must stay: a Lookup reads them, or a Clamp with a bound beyond what they reach."""
    kept: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node.op, Lookup):
            kept.add(node.inputs[0])
        if isinstance(node.op, Clamp):
            x = ranges[node.inputs[0]]
            if node.op.low > x.high.max() or node.op.high < x.low.min():
                kept.update((node.name, *node.inputs))
        if node.name in kept and isinstance(node.op, _INHERIT):
            kept.update(node.inputs)
    return kept


def _retyped(node: Node, graph: Graph, known: dict[str, TensorType]) -> Node:
    if isinstance(node.op, Clamp):
        fixed = known[node.inputs[0]].fixed
        low, high = (min(max(bound, fixed.min_code), fixed.max_code) for bound in (node.op.low, node.op.high))
        node = replace(node, op=Clamp(low, high))
    return replace(node, type=node.op.infer(operands_of(node, graph.constants, known)))


def _narrowed(node: Node, proved: Range) -> Node:
    if not isinstance(node.op, _EXACT):
        return node
    low, high = int(proved.low.min()), int(proved.high.max())
    fixed = fixed_for_range(min(low, -1) if node.type.fixed.signed else low, high, node.type.fixed.frac)
    fixed = fixed if fixed.width else Fixed(1, fixed.frac, signed=False)
    if fixed.width >= node.type.fixed.width:
        return node
    return replace(node, type=replace(node.type, fixed=fixed))
