"""What the layers before it tell of a tensor in a network that is being converted."""

from typing import Any

from torch import fx, nn

from qfx.nn.compute import Conv2d
from qfx.nn.deform import DeformConv2d
from qfx.nn.elementwise import Concat, Hardtanh, ReLU
from qfx.nn.moves import ChannelChunk, ChannelShuffle, PadChannels, Select, Slice
from qfx.nn.transposed import ConvTranspose2d
from qfx.nn.upsample import Upsample

_AS_THEY_ARE = (
    ReLU,
    Upsample,
    Select,
    ChannelShuffle,
    ChannelChunk,
    PadChannels,
    Slice,
    nn.Dropout,
)  # give what they read


def has_products(module: fx.GraphModule, node: Any) -> bool:
    """Return whether a tensor is the exact result of a convolution or a Concat, with a binary point a channel."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        if isinstance(layer, Conv2d | ConvTranspose2d | DeformConv2d):
            return layer.weight_quant.spec.per_channel
        if not isinstance(layer, _AS_THEY_ARE):
            return isinstance(layer, Concat)
        node = node.args[0]
    return False


def never_negative(module: fx.GraphModule, node: Any) -> bool:
    """Return whether a tensor has only values from 0 on."""
    layer = module.get_submodule(node.target) if node.op == "call_module" else None
    return isinstance(layer, ReLU) or (isinstance(layer, Hardtanh) and layer.low >= 0)
