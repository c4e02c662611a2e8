"""Requantize fusion: conversions that change no value, and clamps that the next saturation repeats, are removed."""

import numpy as np

from qfx.fixed import Fixed, Overflow, overflow_codes
from qfx.graph.bounds import Range, static_ranges
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import Clamp, Requantize
from qfx.graph.passes.rebuild import bypass


def fuse_requantize(graph: Graph) -> Graph:
    """Return the graph without these nodes, none of which changes any integer of the others:

    - a Requantize to the format that its input has already, if no code is one that SAT_SYM would move;
    - a Requantize that keeps every value (no fraction bit dropped, range proved to fit) and is read only by Requantize;
    - a Clamp at 0 and the top of its format, read only by Requantize that saturate (SAT) to unsigned formats: the fused
      ReLU. WRAP and SAT_ZERO do not allow that, because they would treat a negative value otherwise.
    """
    ranges = static_ranges(graph)  # no removal changes the codes, and so the range, of another node
    while True:
        removed = next((node for node in graph.nodes if _changes_nothing(graph, node, ranges)), None)
        if removed is None:
            return graph
        graph = bypass(graph, {removed.name: removed.inputs[0]})


def _changes_nothing(graph: Graph, node: Node, ranges: dict[str, Range]) -> bool:
    if node.name in graph.outputs:
        return False
    readers = graph.consumers[node.name]
    if isinstance(node.op, Requantize):
        source = graph.by_name[node.inputs[0]].type.fixed
        if not _keeps_values(source, node.op, ranges[node.inputs[0]]):
            return False
        only_requantized = bool(readers) and all(isinstance(reader.op, Requantize) for reader in readers)
        return source == node.op.to or only_requantized
    if isinstance(node.op, Clamp):
        source = graph.by_name[node.inputs[0]].type.fixed
        is_relu = node.op.low == 0 and node.op.high == source.max_code
        return is_relu and bool(readers) and all(_saturates_to_unsigned(reader) for reader in readers)
    return False


def _keeps_values(source: Fixed, op: Requantize, codes: Range) -> bool:
    shifts = op.to.scalar_frac - source.fracs(len(codes.low))
    if (shifts < 0).any():
        return False
    scale = [1 << int(shift) for shift in shifts]
    low, high = int((codes.low * scale).min()), int((codes.high * scale).max())
    inside = op.to.min_code <= low and high <= op.to.max_code
    return inside and int(overflow_codes(np.array(low), op.to, op.overflow)) == low  # SAT_SYM moves the lowest code


def _saturates_to_unsigned(node: Node) -> bool:
    return isinstance(node.op, Requantize) and not node.op.to.signed and node.op.overflow is Overflow.SAT
