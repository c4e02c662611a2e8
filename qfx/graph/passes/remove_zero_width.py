"""Width 0: tensors and constants that learning removed become ordinary formats of one bit that hold only zero."""

from dataclasses import replace

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import Clamp, Lookup, Requantize
from qfx.graph.tensor import Constant


def remove_zero_width(graph: Graph) -> Graph:
    """Return the graph in which every width is at least 1 and every value is what it was.

    A Requantize to width 0 becomes a Clamp to 0..0 and a Requantize of that zero to one bit. A table of one entry gets
    another that is never read.
    """
    widths = [constant.fixed.width for constant in graph.constants.values()]
    if all((*widths, *(node.type.fixed.width for node in graph.nodes))):
        return graph
    constants = {name: _of_one_bit(constant) for name, constant in graph.constants.items()}
    for table in {node.inputs[1] for node in graph.nodes if isinstance(node.op, Lookup)}:
        constants[table] = _two_entries(constants[table])
    names = {*graph.constants, *graph.by_name}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, type=replace(node.type, fixed=_one_bit(node.type.fixed)))
        nodes += _zeroed(graph, node, names) if isinstance(node.op, Requantize) and node.op.to.width == 0 else [node]
    return graph.replace_nodes(tuple(nodes), constants)


def _one_bit(fixed: Fixed) -> Fixed:
    return fixed if fixed.width else replace(fixed, width=1, signed=False)


def _of_one_bit(constant: Constant) -> Constant:
    if constant.fixed.width:
        return constant
    return Constant(np.zeros_like(constant.codes), _one_bit(constant.fixed))


def _two_entries(table: Constant) -> Constant:
    return replace(table, codes=np.repeat(table.codes, 2)) if table.codes.size == 1 else table


def _zeroed(graph: Graph, node: Node, names: set[str]) -> list[Node]:
    source = graph.by_name[node.inputs[0]].type.fixed
    clamp = f"{node.name}.zero"
    while clamp in names:
        clamp += "_"
    clamped = replace(node.type, fixed=Fixed(1, source.frac, signed=False))
    return [
        Node(clamp, Clamp(0, 0), node.inputs, clamped),
        Node(node.name, Requantize(node.type.fixed, Rounding.TRN, Overflow.SAT), (clamp,), node.type),
    ]
