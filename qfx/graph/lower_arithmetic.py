"""Lowering of arithmetic: what several tensors, or a tensor and constants, become."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.errors import LowerError
from qfx.fixed import Fixed, fixed_for_range, simplest_frac
from qfx.graph.ops import Add, Affine, ChannelMax, ChannelSum, Clamp, Lookup, Multiply, Select, Upsample

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering
    from qfx.nn.constants import Codes


def add(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an Add."""
    return _of_two(low, name, layer, inputs, Add())


def multiply(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Multiply."""
    return _of_two(low, name, layer, inputs, Multiply())


def scale(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Scale: on an image, whether it is flattened or not, since all channels have one constant."""
    x = low.unflattened.get(inputs[0], inputs[0])
    factor = layer.constants()["scale"]
    result = scale_and_shift(low, name, x, factor, nothing(factor))
    return low.flatten(f"{name}.flatten", result) if inputs[0] in low.unflattened else result


def rescale(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Rescale."""
    constants = layer.constants()
    x = low.unflattened.get(inputs[0], inputs[0])
    result = scale_and_shift(low, name, x, constants["scale"], constants["shift"])
    result = low.quantize(f"{name}.out", layer.output_quant, result)
    return low.flatten(f"{name}.flatten", result) if inputs[0] in low.unflattened else result


def softmax(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Softmax: how far each channel lies below the largest, and two tables."""
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    shape = low.builder.type(x).shape
    largest = broadcast(low, name, low.add(f"{name}.max", ChannelMax(), x), shape)
    minus = _constant_like(layer.exp.constants()["table"], -1)
    below = low.add(f"{name}.below", Add(), scale_and_shift(low, f"{name}.negative", x, minus, nothing(minus)), largest)
    e = _looked_up(low, f"{name}.exp", layer.exp, below)
    r = _looked_up(low, f"{name}.reciprocal", layer.reciprocal, low.add(f"{name}.sum", ChannelSum(), e))
    product = low.add(name, Multiply(), e, broadcast(low, f"{name}.reciprocal", r, shape))
    return low.quantize(f"{name}.out", layer.output_quant, product)


def scale_and_shift(low: _Lowering, name: str, x: str, scale: Codes, shift: Codes) -> str:
    """Add an Affine by constants of all channels or of each.

    Where the shift's grid is finer than the product's, the scale gets the missing bits, exactly.
    """
    channels = low.builder.type(x).channels
    if low.is_permuted(x) and max(len(scale.codes), len(shift.codes)) > 1:
        raise LowerError(f"'{name}' must not follow a Flatten of an image; use a BatchNorm2d before the Flatten")
    scale, shift = _for_each(scale, channels), _for_each(shift, channels)
    of_x, of_scale, of_shift = (form.fracs(channels) for form in (low.builder.type(x).fixed, scale.fixed, shift.fixed))
    finer = np.where(shift.codes == 0, 0, np.maximum(of_shift - of_x - of_scale, 0))
    widened = Fixed(scale.fixed.width + int(finer.max()), simplest_frac(of_scale + finer))
    grid = of_x + of_scale + finer
    codes = shift.codes << np.where(shift.codes == 0, 0, grid - of_shift)
    fixed = fixed_for_range(min(int(codes.min()), -1), max(int(codes.max()), 0), grid)
    scale_name = low.constant(f"{name}.scale", replace(scale, codes=scale.codes << finer, fixed=widened))
    return low.add(name, Affine(), x, scale_name, low.builder.constant(f"{name}.shift", codes, fixed))


def broadcast(low: _Lowering, name: str, x: str, shape: tuple[int, ...]) -> str:
    """Repeat a tensor along its axes of length 1 until it has ``shape``."""
    own = low.builder.type(x).shape
    if own[:-1] != shape[:-1]:
        x = low.add(f"{name}.everywhere", Upsample((shape[0] // own[0], shape[1] // own[1])), x)
    if own[-1] != shape[-1]:
        x = low.add(f"{name}.channels", Select((0,) * shape[-1]), x)
    return x


def extreme(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Maximum, ``a + max(b - a, 0)``, or a Minimum, ``a + min(b - a, 0)``: exact."""
    a, b = _both(low, name, layer, inputs)
    minus = layer.constants()["minus"]
    negative = scale_and_shift(low, f"{name}.negative", a, minus, nothing(minus))
    rest = low.add(f"{name}.difference", Add(), b, negative)
    fixed = low.builder.type(rest).fixed
    bounds = (0, fixed.max_code) if layer.largest else (fixed.min_code, 0)
    result = low.add(name, Add(), a, low.add(f"{name}.beyond", Clamp(*bounds), rest))
    return low.quantize(f"{name}.out", layer.output_quant, result)


def _of_two(low: _Lowering, name: str, layer: Any, inputs: list[str], op: Add | Multiply) -> str:
    return low.quantize(f"{name}.out", layer.output_quant, low.add(name, op, *_both(low, name, layer, inputs)))


def _both(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> tuple[str, str]:
    """The operands of a layer in their formats, in one shape."""
    a = low.quantize(f"{name}.a", layer.a_quant, inputs[0])
    b = low.quantize(f"{name}.b", layer.b_quant, inputs[1])
    if (low.is_permuted(a) or low.is_permuted(b)) and low.flattened.get(a) != low.flattened.get(b):
        raise LowerError(
            f"the operands of '{name}' must be flattened from images of one shape: put it before the Flatten"
        )
    shape = tuple(map(max, low.builder.type(a).shape, low.builder.type(b).shape))
    return broadcast(low, f"{name}.a", a, shape), broadcast(low, f"{name}.b", b, shape)


def _looked_up(low: _Lowering, name: str, table: Any, x: str) -> str:
    x = low.quantize(f"{name}.in", table.input_quant, x)
    return low.add(name, Lookup(), x, low.constant(f"{name}.table", table.constants()["table"]))


def _for_each(constant: Codes, channels: int) -> Codes:
    return constant if len(constant.codes) == channels else replace(constant, codes=np.repeat(constant.codes, channels))


def nothing(like: Codes) -> Codes:
    """Return a shift by 0 beside a scale."""
    return replace(like, codes=np.zeros(1, dtype=np.int64), fixed=Fixed(1, 0))


def _constant_like(like: Codes, code: int) -> Codes:
    return replace(like, codes=np.array([code]), fixed=Fixed(2, 0), max_digits=1)
