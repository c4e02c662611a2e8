"""What the layers before it tell of a tensor in a network that is being converted."""

from typing import Any

from torch import fx

from qfx.nn.elementwise import Hardtanh, ReLU


def never_negative(module: fx.GraphModule, node: Any) -> bool:
    """Return whether a tensor has only values from 0 on."""
    layer = module.get_submodule(node.target) if node.op == "call_module" else None
    return isinstance(layer, ReLU) or (isinstance(layer, Hardtanh) and layer.low >= 0)
