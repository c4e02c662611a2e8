"""Width 0: tensors and constants that learning removed become ordinary formats of one bit that hold only zero."""

from dataclasses import replace

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import Clamp, Requantize
from qfx.graph.passes.rebuild import retype
from qfx.graph.tensor import Constant, TensorType


def remove_zero_width(graph: Graph) -> Graph:
    """Return the graph in which every width is at least 1 and every value is what it was.

    A Requantize to width 0 becomes a Clamp to 0..0 and a Requantize of that zero to one bit.
    """
    constants = {name: _one_bit(constant) for name, constant in graph.constants.items()}
    widths = [constant.fixed.width for constant in graph.constants.values()]
    if all((*widths, *(node.type.fixed.width for node in graph.nodes))):
        return graph
    names = {*graph.constants, *graph.by_name}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _zeroed(node, names) if isinstance(node.op, Requantize) and node.op.to.width == 0 else [node]
    return retype(graph, tuple(nodes), constants)


def _one_bit(constant: Constant) -> Constant:
    if constant.fixed.width:
        return constant
    return Constant(np.zeros_like(constant.codes), replace(constant.fixed, width=1), None)


def _zeroed(node: Node, names: set[str]) -> list[Node]:
    assert isinstance(node.op, Requantize)
    clamp = f"{node.name}.zero"
    while clamp in names:
        clamp += "_"
    zero = TensorType(node.type.shape, Fixed(1, node.op.to.frac, signed=False))
    return [
        Node(clamp, Clamp(0, 0), node.inputs, zero),
        Node(node.name, Requantize(zero.fixed, Rounding.TRN, Overflow.SAT), (clamp,), zero),
    ]
