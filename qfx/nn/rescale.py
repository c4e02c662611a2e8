"""Multiplication and addition of constants that a network's code names: numbers, parameters and buffers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor, nn

from qfx.fixed import FRAC_RANGE, Fixed, simplest_frac
from qfx.nn.affine import apply_affine
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer, Spec


@dataclass(frozen=True)
class Held:
    """A parameter or buffer that a module of the network holds, or what ``function`` makes of it: one axis."""

    owner: nn.Module
    name: str
    function: Callable[[Tensor], Tensor] | None = None

    def __call__(self) -> Tensor:
        value = getattr(self.owner, self.name).flatten()
        return value if self.function is None else self.function(value)


Known: TypeAlias = Tensor | Held  # of one axis: an element, or one for each channel


class Scale(nn.Module):
    """``y = x * 2**exponent``, or the negative of that: exact, on the codes as they are; the binary point moves."""

    def __init__(self, exponent: int = 0, negative: bool = False) -> None:
        super().__init__()
        self.exponent, self.negative = exponent, negative

    def forward(self, x: Tensor) -> Tensor:
        return x * (-(2.0**self.exponent) if self.negative else 2.0**self.exponent)

    def constants(self) -> dict[str, Codes]:
        """Return ``scale``, shape (1,)."""
        return {"scale": Codes(np.array([-1 if self.negative else 1]), Fixed(2, -self.exponent), 1)}


class Rescale(nn.Module):
    """``y = output_quant(x * scale + shift)`` by constants: for all channels, or one for each.

    Zeros and powers of two stay as they are. All others, and what a module holds, which may be trained, have a
    quantizer.
    """

    def __init__(
        self, scale: Known, shift: Known, *, constant_spec: Spec = CONSTANT, output_spec: Spec = ELEMENTWISE
    ) -> None:
        super().__init__()
        self.scale_held, self.scale_quant = self._taken("scale", scale, constant_spec)
        self.shift_held, self.shift_quant = self._taken("shift", shift, constant_spec)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    def _taken(self, name: str, value: Known, spec: Spec) -> tuple[Held | None, Quantizer | None]:
        if isinstance(value, Held):
            return value, Quantizer(spec, value().numel(), constant=True)
        self.register_buffer(name, value, persistent=False)
        return None, None if exponents(value) is not None else Quantizer(spec, value.numel(), constant=True)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self._real()
        scale = scale if self.scale_quant is None else self.scale_quant(scale)
        shift = shift if self.shift_quant is None else self.shift_quant(shift)
        return apply_affine(self, x, _for_each(scale, x.shape[1]), _for_each(shift, x.shape[1]))

    def constants(self) -> dict[str, Codes]:
        """Return ``scale`` and ``shift``, each (1,) or (channels,), on grids of their own."""
        scale, shift = self._real()
        return {"scale": _codes(scale, self.scale_quant), "shift": _codes(shift, self.shift_quant)}

    def _real(self) -> tuple[Tensor, Tensor]:
        return (
            self.scale if self.scale_held is None else self.scale_held(),
            self.shift if self.shift_held is None else self.shift_held(),
        )


def _for_each(values: Tensor, channels: int) -> Tensor:
    return values if len(values) == channels else values.expand(channels).contiguous()


def exponents(values: Tensor) -> list[int] | None:
    """Return the power of two that each value is, or its negative, 0 for a zero; None where one is neither."""
    found = []
    for value in values.double().flatten().tolist():
        mantissa, exponent = math.frexp(abs(value))
        if mantissa not in (0.0, 0.5) or not FRAC_RANGE[0] <= exponent - 1 <= FRAC_RANGE[1]:
            return None
        found.append(exponent - 1 if mantissa else 0)
    return found


def _codes(values: Tensor, quantizer: Quantizer | None) -> Codes:
    if quantizer is not None:
        made = quantized_codes(quantizer, values, (0,))
        fixed = Fixed(made.fixed.width, simplest_frac(made.fixed.fracs(len(made.codes))), made.fixed.signed)
        return Codes(made.codes, fixed, made.max_digits, made.signed_digits)
    powers = exponents(values)
    assert powers is not None
    codes = np.sign(values.cpu().numpy()).astype(np.int64)
    return Codes(codes, Fixed(2, simplest_frac(-power for power in powers)), 1)
