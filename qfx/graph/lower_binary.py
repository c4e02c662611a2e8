"""Lowering of binarised layers: what odd levels, thermometer digits and gated convolutions become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qfx.errors import LowerError
from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.lower_arithmetic import nothing, scale_and_shift
from qfx.graph.ops import Add, Conv2d, Lookup, Multiply, Requantize, Select

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering


def binary(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a BinaryActivation: codes, whose levels a table holds."""
    constants = layer.constants()
    codes = _level_codes(low, name, inputs[0], layer.width, constants["half"])
    return low.add(name, Lookup(), codes, low.constant(f"{name}.table", constants["table"]))


def thermometer(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Thermometer: each channel once for each threshold, and the sign of what it exceeds it by."""
    kind = low.builder.type(inputs[0])
    constants = layer.constants(kind.fixed.fracs(kind.channels))
    digits = len(layer.thresholds)
    repeated = low.add(
        f"{name}.repeated", Select(tuple(c for c in range(kind.channels) for _ in range(digits))), inputs[0]
    )
    above = scale_and_shift(low, f"{name}.above", repeated, constants["scale"], constants["shift"])
    codes = low.add(f"{name}.codes", _down(1, signed=True), above)
    return low.add(name, Lookup(), codes, low.constant(f"{name}.table", constants["table"]))


def gated(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a GatedConv2d: both parts are convolved, and a bit, the gate, multiplies what the lower one gives."""
    constants, op = layer.constants(), Conv2d(layer.stride, layer.padding)
    codes = _level_codes(low, name, inputs[0], layer.width, constants["half"])
    weight = low.constant(f"{name}.weight", constants["weight"])
    parts = {}
    for part in ("upper", "lower"):
        digits = low.add(f"{name}.{part}", Lookup(), codes, low.constant(f"{name}.{part}.table", constants[part]))
        parts[part] = low.add(f"{name}.{part}.conv", op, digits, weight)
    beyond = scale_and_shift(low, f"{name}.beyond", parts["upper"], constants["scale"], constants["shift"])
    gate = low.add(f"{name}.gate", _down(1, signed=False), beyond)
    return low.add(name, Add(), parts["upper"], low.add(f"{name}.gated", Multiply(), gate, parts["lower"]))


def _level_codes(low: _Lowering, name: str, x: str, width: int, half: Any) -> str:
    """Add what rounds x times ``half`` of the largest level down to a code of ``width`` bits; of one, to the sign."""
    if x in low.unflattened or low.is_permuted(x):
        raise LowerError(f"'{name}' must not read a flattened image: put it before the Flatten")
    x = x if width == 1 else scale_and_shift(low, f"{name}.scaled", x, half, nothing(half))
    return low.add(f"{name}.codes", _down(width, signed=True), x)


def _down(width: int, signed: bool) -> Requantize:
    return Requantize(Fixed(width, 0, signed), Rounding.TRN, Overflow.SAT)
