"""What the layers of a torch model computed, as the codes of the graph's nodes: by name, channels last."""

from collections.abc import Mapping

import numpy as np

from qfx.fixed import Fixed
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import Add, Affine, Clamp, Flatten, Lookup, Multiply, Requantize

ROLES = {"input_quant": "in", "a_quant": "a", "b_quant": "b", "output_quant": "out"}
"""A layer's quantizer and the end of the name of the Requantize that lowering makes of it."""


def node_codes(graph: Graph, values: Mapping[tuple[str, int], np.ndarray]) -> dict[str, np.ndarray]:
    """Return the codes of those nodes of ``graph`` that stand for a result, a layer or a quantizer of the model.

    A value between two codes stays visible, as a code that no engine gives.

    Args:
        values: from ``qfx.nn.exact_values``: (N, C, H, W), (N, C, L) or (N, features) by module path and number of
            the call.
    """
    found = {}
    for (path, call), value in values.items():
        node = graph.by_name.get(_node_name(graph, path, call))
        if node is not None:
            ordered = _channels_last(value, node, _flattened_from(graph, node))
            found[node.name] = _codes_of(ordered, node.type.fixed)
    return found


def _node_name(graph: Graph, path: str, call: int) -> str:
    if not path:
        return graph.outputs[call - 1]
    layer, _, role = path.rpartition(".")
    again = f".call{call}" if call > 1 else ""
    if role not in ROLES:
        return f"{path}{again}"
    name = f"{layer}{again}.{ROLES[role]}"
    return f"{layer}{again}" if role == "output_quant" and name not in graph.by_name else name


def _channels_last(value: np.ndarray, node: Node, image: tuple[int, ...]) -> np.ndarray:
    if value.ndim == 2 and len(image) == 3:  # torch flattened it channels first
        height, width, channels = image
        value = value.reshape(-1, channels, height, width)
    return (np.moveaxis(value, 1, -1) if value.ndim > 2 else value).reshape(-1, *node.type.shape)


def _flattened_from(graph: Graph, node: Node) -> tuple[int, ...]:
    """The shape (H, W, C) of the image that a node's elements come from, one by one; else its own shape."""
    while (
        isinstance(node.op, Flatten | Requantize | Clamp | Lookup | Add | Multiply | Affine)
        and len(node.type.shape) == 1
    ):
        node = graph.by_name[node.inputs[0]]
    return node.type.shape


def _codes_of(values: np.ndarray, fixed: Fixed) -> np.ndarray:
    scaled = np.ldexp(values, fixed.fracs(values.shape[-1]))
    codes = scaled.astype(np.int64)
    return np.where(codes == scaled, codes, np.iinfo(np.int64).min)
