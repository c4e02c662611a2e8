"""Dead nodes: what no output depends on is removed."""

from qfx.graph.graph import Graph


def remove_dead(graph: Graph) -> Graph:
    """Return the graph without nodes and constants that no output needs; the Input always stays."""
    needed = {graph.input.name, *graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return graph.replace_nodes(tuple(node for node in graph.nodes if node.name in needed))
