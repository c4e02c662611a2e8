"""Pooling and what else averages in fixed point, of signals (N, C, L) too."""

import math
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import Fixed, encode, nearest_khot
from qfx.nn.constants import Codes
from qfx.nn.geometry import Pair, Quad, as_image, padded, pair, quad, shaped_like
from qfx.nn.integer import exact_affine
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Digits, Quantizer, Spec


class MaxPool2d(nn.Module):
    """The largest value of each window of ``input_quant(x)``; padding never wins."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Quad = 0,
        *,
        input_spec: Spec = ELEMENTWISE,
    ) -> None:
        super().__init__()
        self.kernel = pair(kernel_size)
        self.stride = pair(stride or kernel_size)
        self.padding = quad(padding)
        self.input_quant = Quantizer(input_spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel[0] // 2, self.kernel[1] // 2
        image, padding = padded(as_image(self.input_quant(x)), self.padding, half, -torch.inf)
        return shaped_like(F.max_pool2d(image, self.kernel, self.stride, padding), x)


class Average(nn.Module):
    """What sums ``input_quant(x)`` exactly and multiplies by a constant: ``y = output_quant(sum * code(1 / divisor))``.

    The reciprocal has as many fraction bits as its width allows.

    Args:
        divisor: what a sum is divided by; by default the count of what it sums.
    """

    def __init__(
        self,
        divisor: int | None = None,
        *,
        constant_spec: Spec = CONSTANT,
        input_spec: Spec = ELEMENTWISE,
        output_spec: Spec = ELEMENTWISE,
    ) -> None:
        super().__init__()
        self.divisor = divisor
        self.constant_spec = of_one(constant_spec)
        self._constant = astuple(self.constant_spec)  # a compiler takes tuples for constants, not dataclasses
        self.input_quant = Quantizer(input_spec, axis=1)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    def average(self, total: Tensor, count: int) -> Tensor:
        """Return ``total``, sums of ``count`` terms, times the code of the reciprocal, in the output's format."""
        scale = _reciprocal_value(self.divisor or count, self._constant)
        if self.exact:
            scales = torch.full((total.shape[1],), scale, dtype=torch.float64, device=total.device)
            return exact_affine(total, scales, torch.zeros_like(scales), self.output_quant)
        return self.output_quant(total * scale)

    def scale(self, count: int) -> dict[str, Codes]:
        """Return ``scale`` for sums of ``count`` terms: the reciprocal, shape (1,)."""
        return {"scale": reciprocal(self.divisor or count, self.constant_spec)}


class AvgPool2d(Average):
    """The Average of each window; padding counts as zeros (``count_include_pad``)."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair | Quad = 0,
        divisor: int | None = None,
        **specs: Spec,
    ) -> None:
        super().__init__(divisor, **specs)
        self.kernel = pair(kernel_size)
        self.stride = pair(stride or kernel_size)
        self.padding = quad(padding)

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel[0] // 2, self.kernel[1] // 2
        image, padding = padded(as_image(self.input_quant(x)), self.padding, half)
        total = F.avg_pool2d(image, self.kernel, self.stride, padding, divisor_override=1)
        return self.average(shaped_like(total, x), math.prod(self.kernel))

    def constants(self) -> dict[str, Codes]:
        """Return ``scale``: the reciprocal, shape (1,)."""
        return self.scale(math.prod(self.kernel))


class AdaptiveAvgPool2d(Average):
    """The Average of each of ``output_size`` windows of one size; None keeps an axis."""

    def __init__(
        self, output_size: int | tuple[int | None, int | None], divisor: int | None = None, **specs: Spec
    ) -> None:
        super().__init__(divisor, **specs)
        self.output_size = _sizes(output_size)

    def kernel_for(self, height: int, width: int) -> Pair:
        """Return the window (also the stride) on an input of that size; refuse one that would be uneven."""
        return even_window(height, width, self.output_size, self.output_quant.owner)

    def forward(self, x: Tensor) -> Tensor:
        image = as_image(self.input_quant(x))
        kernel = self.kernel_for(image.shape[2], image.shape[3])
        total = F.avg_pool2d(image, kernel, kernel, divisor_override=1)
        return self.average(shaped_like(total, x), math.prod(kernel))

    def constants(self, height: int, width: int) -> dict[str, Codes]:
        """Return ``scale`` for an input of that size: the reciprocal, shape (1,)."""
        return self.scale(math.prod(self.kernel_for(height, width)))


class AdaptiveMaxPool2d(nn.Module):
    """The largest value of each of ``output_size`` windows of one size of ``input_quant(x)``; None keeps an axis."""

    def __init__(self, output_size: int | tuple[int | None, int | None], *, input_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.output_size = _sizes(output_size)
        self.input_quant = Quantizer(input_spec, axis=1)

    def kernel_for(self, height: int, width: int) -> Pair:
        """Return the window (also the stride) on an input of that size; refuse one that would be uneven."""
        return even_window(height, width, self.output_size, self.input_quant.owner)

    def forward(self, x: Tensor) -> Tensor:
        image = as_image(self.input_quant(x))
        kernel = self.kernel_for(image.shape[2], image.shape[3])
        return shaped_like(F.max_pool2d(image, kernel, kernel), x)


def _sizes(output_size: int | tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    size = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    return size[0], size[1]


def even_window(height: int, width: int, windows: tuple[int | None, int | None], where: str) -> Pair:
    """Return the size of each window where so many cover an image evenly; refuse an image where they do not."""
    kernel = []
    for size, wanted in zip((height, width), windows, strict=True):
        if wanted is not None and size % wanted:
            raise LowerError(
                f"the input at '{where}' must divide evenly into {wanted} windows, not be {size} wide: "
                "use AvgPool2d or MaxPool2d with a window of its own"
            )
        kernel.append(1 if wanted is None else size // wanted)
    return kernel[0], kernel[1]


def of_one(spec: Spec) -> Spec:
    """Return the format of the one constant of a pool; a K that others learn stays as it is stated."""
    return replace(spec, digits=replace(spec.digits, k=spec.digits.each(1)[0], learn=False)) if spec.digits else spec


def reciprocal(divisor: int, spec: Spec) -> Codes:
    """Return the code of ``1 / divisor``, with the most fraction bits that its word allows; a power of two is exact."""
    if divisor & (divisor - 1) == 0:
        return Codes(np.ones(1, dtype=np.int64), Fixed(2, divisor.bit_length() - 1), 1)
    frac = max(spec.width - 2 + divisor.bit_length(), 0) if spec.frac is None else spec.frac
    while 2**frac / divisor > 2 ** (spec.width - 1) - 1 and spec.frac is None:
        frac -= 1
    form = Fixed(spec.width, frac)
    if spec.digits:
        codes = nearest_khot(np.array([2.0**frac / divisor]), spec.width, spec.digits.most, spec.digits.signed)
        return Codes(codes, form, spec.digits.most, spec.digits.signed)
    return Codes(encode(np.array([1 / divisor]), form, spec.rounding, spec.overflow), form)


@torch.compiler.assume_constant_result
def _reciprocal_value(divisor: int, spec: tuple[Any, ...]) -> float:
    width, frac, signed, rounding, overflow, per_channel, digits, _ = spec
    form = Spec(width, frac, signed, rounding, overflow, per_channel, Digits(*digits) if digits else None)
    constant = reciprocal(divisor, form)
    return float(constant.codes[0]) * 2.0**-constant.fixed.scalar_frac
