"""Lowering of sums, averages and largest values: of windows of an image, and of the channels of a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qfx.graph.lower_arithmetic import nothing, scale_and_shift
from qfx.graph.ops import ChannelMax, ChannelSum, MaxPool, SumPool

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering


def max_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a MaxPool2d."""
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    return low.add(name, MaxPool(layer.kernel, layer.stride, layer.padding), x)


def adaptive_max_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an AdaptiveMaxPool2d: a pool whose window the image's size tells."""
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    kernel = layer.kernel_for(*low.builder.type(x).shape[:2])
    return low.add(name, MaxPool(kernel, kernel), x)


def avg_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an AvgPool2d."""
    pool = SumPool(layer.kernel, layer.stride, layer.padding)
    return _average(low, name, layer, inputs[0], pool, layer.constants())


def adaptive_avg_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an AdaptiveAvgPool2d: a pool whose window the image's size tells."""
    height, width, _ = low.builder.type(inputs[0]).shape
    kernel = layer.kernel_for(height, width)
    return _average(low, name, layer, inputs[0], SumPool(kernel, kernel), layer.constants(height, width))


def channel_mean(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a ChannelMean."""
    channels = low.builder.type(low.quantize(f"{name}.in", layer.input_quant, inputs[0])).channels
    return _average(low, name, layer, inputs[0], ChannelSum(), layer.constants(channels))


def channel_max(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a ChannelMax."""
    return low.add(name, ChannelMax(), low.quantize(f"{name}.in", layer.input_quant, inputs[0]))


def _average(low: _Lowering, name: str, layer: Any, x: str, op: SumPool | ChannelSum, constants: dict[str, Any]) -> str:
    total = low.add(f"{name}.sum", op, low.quantize(f"{name}.in", layer.input_quant, x))
    scale = constants["scale"]
    return low.quantize(f"{name}.out", layer.output_quant, scale_and_shift(low, name, total, scale, nothing(scale)))
