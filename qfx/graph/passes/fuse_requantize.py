"""Requantize fusion: conversions that change no value, and clamps that the next saturation repeats, are removed."""

from qfx.fixed import Fixed, Overflow
from qfx.graph.bounds import Range, static_ranges
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import Clamp, Requantize
from qfx.graph.passes.rebuild import bypass


def fuse_requantize(graph: Graph) -> Graph:
    """Return the graph without these nodes, none of which changes any integer of the others:

    - a Requantize to the format that its input has already;
    - a Requantize that keeps every value (no fraction bit dropped, range proved to fit) and is read only by Requantize;
    - a Clamp at 0 and the top of its format, read only by Requantize that saturate (SAT) to unsigned formats: the fused
      ReLU. WRAP and SAT_ZERO do not allow that, because they would treat a negative value otherwise.
    """
    while True:
        ranges = static_ranges(graph)
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
        if source == node.op.to:
            return True
        only_requantized = bool(readers) and all(isinstance(reader.op, Requantize) for reader in readers)
        return only_requantized and _keeps_values(source, node.op.to, ranges[node.inputs[0]])
    if isinstance(node.op, Clamp):
        source = graph.by_name[node.inputs[0]].type.fixed
        is_relu = node.op.low == 0 and node.op.high == source.max_code
        return is_relu and bool(readers) and all(_saturates_to_unsigned(reader) for reader in readers)
    return False


def _keeps_values(source: Fixed, target: Fixed, codes: Range) -> bool:
    shifts = target.scalar_frac - source.fracs(len(codes.low))
    if (shifts < 0).any():
        return False
    scale = [1 << int(shift) for shift in shifts]
    low, high = (codes.low * scale).min(), (codes.high * scale).max()
    return bool(target.min_code <= low and high <= target.max_code)


def _saturates_to_unsigned(node: Node) -> bool:
    return isinstance(node.op, Requantize) and not node.op.to.signed and node.op.overflow is Overflow.SAT
