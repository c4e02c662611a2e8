"""What the layers before it tell of a tensor in a network that is being converted."""

from typing import Any

from torch import fx

from qfx.nn.binary import BinaryActivation, Thermometer
from qfx.nn.elementwise import Flatten, Hardtanh, ReLU
from qfx.nn.quantizer import Spec
from qfx.nn.tracer import NEUTRAL
from qfx.nn.upsample import Upsample


def never_negative(module: fx.GraphModule, node: Any) -> bool:
    """Return whether a tensor has only values from 0 on."""
    layer = module.get_submodule(node.target) if node.op == "call_module" else None
    return isinstance(layer, ReLU) or (isinstance(layer, Hardtanh) and layer.low >= 0)


def odd_levels_of(module: fx.GraphModule, node: Any) -> Spec | None:
    """Return the format of the odd integers that a tensor holds, the result of a binary activation; else None."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, BinaryActivation | Thermometer):
            width = layer.width if isinstance(layer, BinaryActivation) else 1
            return Spec(width + 1, frac=0, signed=True)
        if not isinstance(layer, (Flatten, Upsample, *NEUTRAL)):
            return None
        node = node.args[0]
    return None
