"""What the passes share: the operands of a node, and graphs with some nodes left out."""

from collections.abc import Mapping
from dataclasses import replace

from qfx.graph.graph import Graph, Node
from qfx.graph.tensor import Constant, Operand, TensorType


def operands_of(node: Node, constants: Mapping[str, Constant], known: Mapping[str, TensorType]) -> list[Operand]:
    """The operands of a node whose tensors have the types ``known``."""
    return [constants[name] if name in constants else known[name] for name in node.inputs]


def bypass(graph: Graph, removed: Mapping[str, str]) -> Graph:
    """Return the graph without the nodes ``removed``; who read one reads the node it maps to instead.

    All others keep their types: the removal must change neither what they read nor the binary points that they infer.
    """
    kept = [node for node in graph.nodes if node.name not in removed]
    return graph.replace_nodes(
        tuple(replace(node, inputs=tuple(removed.get(name, name) for name in node.inputs)) for node in kept)
    )
