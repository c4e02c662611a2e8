"""What the passes share: graphs with some nodes replaced, all later types inferred anew."""

from collections.abc import Mapping
from dataclasses import replace

from qfx.graph.graph import Graph, Node
from qfx.graph.tensor import Constant, Operand, TensorType


def operands_of(node: Node, constants: Mapping[str, Constant], known: Mapping[str, TensorType]) -> list[Operand]:
    """The operands of a node whose tensors have the types ``known``."""
    return [constants[name] if name in constants else known[name] for name in node.inputs]


def retype(graph: Graph, nodes: tuple[Node, ...], constants: Mapping[str, Constant] | None = None) -> Graph:
    """Return the graph with ``nodes``, each typed by ``infer`` from those before it."""
    known: dict[str, TensorType] = {}
    constants = graph.constants if constants is None else constants
    typed = []
    for node in nodes:
        typed.append(replace(node, type=node.op.infer(operands_of(node, constants, known))))
        known[node.name] = typed[-1].type
    return graph.replace_nodes(tuple(typed), constants)


def bypass(graph: Graph, removed: Mapping[str, str]) -> Graph:
    """Return the graph without the nodes ``removed``; who read one reads the node it maps to instead."""
    kept = [node for node in graph.nodes if node.name not in removed]
    nodes = tuple(replace(node, inputs=tuple(removed.get(name, name) for name in node.inputs)) for node in kept)
    return retype(graph, nodes)
