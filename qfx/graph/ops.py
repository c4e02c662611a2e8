"""The operations of a graph: what each one's result is, as a format (infer) and as integers (evaluate).

Every class stands for one section of SPEC.md, which is the definition; this is its implementation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qfx.errors import GraphError
from qfx.fixed import TABLE_WIDTH, Fixed, Overflow, Rounding, requantize, simplest_frac
from qfx.graph.arithmetic import ChannelMax as ChannelMax
from qfx.graph.arithmetic import ChannelSum as ChannelSum
from qfx.graph.arithmetic import Multiply as Multiply
from qfx.graph.moves import Concat as Concat
from qfx.graph.moves import DepthToSpace as DepthToSpace
from qfx.graph.moves import Flatten as Flatten
from qfx.graph.moves import Select as Select
from qfx.graph.moves import Slice as Slice
from qfx.graph.moves import Upsample as Upsample
from qfx.graph.op import Op as Op
from qfx.graph.op import at_least_one_bit, require_image, require_scalar
from qfx.graph.tensor import Constant, Operand, TensorType, accumulator, largest_magnitude, operand_type
from qfx.graph.window import Pair, Quad, check_window, output_size, taps


@dataclass(frozen=True)
class Input(Op):
    """The codes that the host sends."""

    shape: tuple[int, ...]
    fixed: Fixed

    arity: ClassVar[tuple[int, ...]] = (0,)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        if self.fixed.width < 1:
            raise GraphError(f"an input must be at least one bit wide, not {self.fixed}")
        if self.fixed.per_channel:
            raise GraphError(f"an input must have one binary point, not {self.fixed}")
        if not self.shape or any(size < 1 for size in self.shape):
            raise GraphError(f"an input must have axes of at least one element, not shape {self.shape}")
        return TensorType(self.shape, self.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        raise GraphError("an input must be given by the caller, not evaluated")


@dataclass(frozen=True)
class Conv2d(Op):
    """``out[y,x,o] = bias[o] + sum(w[i,j,c,o] * x[y*s+i*d-top, x*s+j*d-left, c])`` within each group of channels."""

    stride: Pair = (1, 1)
    padding: Quad = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    arity: ClassVar[tuple[int, ...]] = (2, 3)
    constants: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x, weight = operand_type(operands[0]), _constant(operands[1], "weight", 4)
        require_image(x)
        require_scalar(x, "the input of Conv2d")
        kernel_h, kernel_w, per_group, filters = weight.codes.shape
        if self.groups < 1 or x.channels != per_group * self.groups or filters % self.groups:
            raise GraphError(
                f"Conv2d weight must be (kh, kw, {x.channels}/groups, a multiple of groups), "
                f"not {weight.codes.shape} with {self.groups} groups"
            )
        height, width = output_size(_size(x), (kernel_h, kernel_w), self.stride, self.padding, self.dilation)
        return TensorType((height, width, filters), _product_sum(x, weight, operands[2:], filters, (0, 1, 2)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        x, weight = codes[0], codes[1]
        dtype = _exact_dtype(self.infer(operands).fixed, operand_type(operands[0]).fixed)
        x, weight = x.astype(dtype), weight.astype(dtype)
        total: np.ndarray | int = 0
        for ky, kx, pixels in taps(x, weight.shape[:2], self.stride, self.padding, self.dilation):
            total = total + _grouped_product(pixels, weight[ky, kx], self.groups)
        return _with_bias(np.asarray(total).astype(np.int64), codes[2:])


@dataclass(frozen=True)
class DeformConv2d(Op):
    """Depthwise 3x3 convolution whose taps stand ``d`` pixels from the centre, ``d`` given for each pixel.

    ``out[y,x,c] = bias[c] + sum(w[i,j,c] * x[y+(i-1)*d, x+(j-1)*d, c])``, ``d = offset[y,x]``; a tap outside the image
    is 0. Stride 1. It is CoDeNet's square, bounded, depthwise operator (Huang et al., 2021, section 3).
    """

    max_dilation: int

    arity: ClassVar[tuple[int, ...]] = (3, 4)
    constants: ClassVar[tuple[int, ...]] = (2, 3)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x, offset, weight = operand_type(operands[0]), operand_type(operands[1]), _constant(operands[2], "weight", 3)
        require_image(x)
        require_scalar(x, "the input of DeformConv2d")
        if self.max_dilation < 0:
            raise GraphError(f"max_dilation must not be negative, but is {self.max_dilation}")
        if offset.shape != (*x.shape[:2], 1) or offset.fixed.frac != 0:
            raise GraphError(f"the offset must be {x.shape[0]}x{x.shape[1]}x1 with frac 0, not {offset}")
        if offset.fixed.min_code < 0 or offset.fixed.max_code > _next_power(self.max_dilation):
            raise GraphError(f"the offset must be unsigned and clamped to 0..{self.max_dilation}, not {offset.fixed}")
        if weight.codes.shape != (3, 3, x.channels):
            raise GraphError(f"DeformConv2d weight must be (3, 3, {x.channels}), not {weight.codes.shape}")
        return TensorType(x.shape, _product_sum(x, weight, operands[3:], x.channels, (0, 1)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        dtype = _exact_dtype(self.infer(operands).fixed, operand_type(operands[0]).fixed)
        dilation, weight = codes[1][..., 0], codes[2].astype(dtype)
        count, height, width, channels = codes[0].shape
        reach = self.max_dilation  # so wide a border of zeros that no tap leaves the array
        bordered = np.pad(codes[0].astype(dtype), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        image, row, column = np.ogrid[:count, reach : reach + height, reach : reach + width]
        pitch = width + 2 * reach
        centre = (image * (height + 2 * reach) + row) * pitch + column
        pixels = bordered.reshape(-1, channels)
        total = np.zeros((count, height, width, channels), dtype)
        for ky in range(3):
            for kx in range(3):
                tap = centre + ((ky - 1) * pitch + (kx - 1)) * dilation
                total += pixels[tap] * weight[ky, kx]
        return _with_bias(total.astype(np.int64), codes[3:])


@dataclass(frozen=True)
class Dense(Op):
    """``out[o] = bias[o] + sum(w[i,o] * x[i])``."""

    arity: ClassVar[tuple[int, ...]] = (2, 3)
    constants: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x, weight = operand_type(operands[0]), _constant(operands[1], "weight", 2)
        require_scalar(x, "the input of Dense")
        if len(x.shape) != 1 or weight.codes.shape[0] != x.channels:
            raise GraphError(
                f"Dense weight must be (inputs, outputs) for an input of shape (inputs,), "
                f"not {weight.codes.shape} for {x.shape}"
            )
        filters = weight.codes.shape[1]
        return TensorType((filters,), _product_sum(x, weight, operands[2:], filters, (0,)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        dtype = _exact_dtype(self.infer(operands).fixed, operand_type(operands[0]).fixed)
        return _with_bias((codes[0].astype(dtype) @ codes[1].astype(dtype)).astype(np.int64), codes[2:])


@dataclass(frozen=True)
class Affine(Op):
    """``out[..., c] = x[..., c] * scale[c] + shift[c]``: ``shift`` is on the product's grid. A BatchNorm."""

    arity: ClassVar[tuple[int, ...]] = (3,)
    constants: ClassVar[tuple[int, ...]] = (1, 2)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x, scale, shift = (
            operand_type(operands[0]),
            _constant(operands[1], "scale", 1),
            _constant(operands[2], "shift", 1),
        )
        for name, constant in (("scale", scale), ("shift", shift)):
            if constant.codes.shape != (x.channels,):
                raise GraphError(f"Affine {name} must have {x.channels} channels, not shape {constant.codes.shape}")
        fracs = x.fixed.fracs(x.channels) + scale.fixed.fracs(x.channels)
        _require_grid(shift, fracs, "shift")
        bound = (np.abs(scale.codes).astype(object) * largest_magnitude(x.fixed) + np.abs(shift.codes)).max()
        return TensorType(x.shape, accumulator(int(bound), simplest_frac(fracs)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0] * codes[1] + codes[2]


@dataclass(frozen=True)
class Add(Op):
    """``out = a + b``, both aligned to the larger number of fraction bits."""

    arity: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        a, b = map(operand_type, operands)
        require_scalar(a, "the first operand of Add")
        require_scalar(b, "the second operand of Add")
        if a.shape != b.shape:
            raise GraphError(f"the operands of Add must have one shape, not {a.shape} and {b.shape}")
        frac = max(a.fixed.scalar_frac, b.fixed.scalar_frac)
        shift_a, shift_b = frac - a.fixed.scalar_frac, frac - b.fixed.scalar_frac
        low = (a.fixed.min_code << shift_a) + (b.fixed.min_code << shift_b)
        high = (a.fixed.max_code << shift_a) + (b.fixed.max_code << shift_b)
        return TensorType(a.shape, at_least_one_bit(low, high, frac))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        a, b = (operand_type(operand).fixed.scalar_frac for operand in operands)
        frac = max(a, b)
        return (codes[0] << (frac - a)) + (codes[1] << (frac - b))


@dataclass(frozen=True)
class MaxPool(Op):
    """The largest code of each window; padding is the format's smallest code."""

    kernel: Pair
    stride: Pair
    padding: Quad = (0, 0, 0, 0)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        return TensorType(_pooled(x, self.kernel, self.stride, self.padding, "MaxPool"), x.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        lowest = operand_type(operands[0]).fixed.min_code
        windows = taps(codes[0], self.kernel, self.stride, self.padding, fill=lowest)
        return np.maximum.reduce([pixels for _, _, pixels in windows])


@dataclass(frozen=True)
class SumPool(Op):
    """The sum of each window's codes; padding is 0."""

    kernel: Pair
    stride: Pair
    padding: Quad = (0, 0, 0, 0)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        shape = _pooled(x, self.kernel, self.stride, self.padding, "SumPool")
        count = self.kernel[0] * self.kernel[1]
        return TensorType(
            shape, at_least_one_bit(x.fixed.min_code * count, x.fixed.max_code * count, x.fixed.scalar_frac)
        )

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return np.add.reduce([pixels for _, _, pixels in taps(codes[0], self.kernel, self.stride, self.padding)])


@dataclass(frozen=True)
class Requantize(Op):
    """``out[..., c] = overflow(round(x[..., c] * 2**(to.frac - frac[c])))``: what loses information, as Lookup does."""

    to: Fixed
    rounding: Rounding = Rounding.RND
    overflow: Overflow = Overflow.SAT

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        if self.to.per_channel:
            raise GraphError(f"Requantize must go to one binary point, not {self.to}")
        return TensorType(operand_type(operands[0]).shape, self.to)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return requantize(codes[0], operand_type(operands[0]).fixed, self.to, self.rounding, self.overflow)


@dataclass(frozen=True)
class Clamp(Op):
    """``out = min(max(x, low), high)`` on the codes; the binary point stays. ReLU has ``low = 0``."""

    low: int
    high: int

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        if not x.fixed.min_code <= self.low <= self.high <= x.fixed.max_code:
            raise GraphError(f"Clamp bounds must be codes of {x.fixed} in order, not {self.low}..{self.high}")
        return TensorType(x.shape, at_least_one_bit(self.low, self.high, x.fixed.frac))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return np.clip(codes[0], self.low, self.high)


@dataclass(frozen=True)
class Lookup(Op):
    """``out = table[x - lowest]``, ``lowest`` the lowest code of x's format: any function of a single element."""

    arity: ClassVar[tuple[int, ...]] = (2,)
    constants: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x, table = operand_type(operands[0]), _constant(operands[1], "table", 1)
        require_scalar(x, "the input of Lookup")
        if x.fixed.width > TABLE_WIDTH:
            raise GraphError(f"the input of Lookup must be at most {TABLE_WIDTH} bits wide, not {x.fixed}")
        if table.codes.size != 1 << x.fixed.width:
            raise GraphError(
                f"the table must have an entry for each of the {1 << x.fixed.width} codes of {x.fixed}, "
                f"not {table.codes.size}"
            )
        if table.fixed.per_channel:
            raise GraphError(f"the table must have one binary point, not {table.fixed}")
        return TensorType(x.shape, table.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[1][codes[0] - operand_type(operands[0]).fixed.min_code]


OPS: dict[str, type[Op]] = {
    op.__name__: op
    for op in (
        *(Input, Conv2d, DeformConv2d, Dense, Affine, Add, Multiply, Concat, MaxPool, SumPool, ChannelMax, ChannelSum),
        *(Select, Upsample, DepthToSpace, Slice, Requantize, Clamp, Lookup, Flatten),
    )
}


def _constant(operand: Operand, role: str, axes: int) -> Constant:
    if not isinstance(operand, Constant):
        raise GraphError(f"the {role} must be a constant, not a tensor")
    if operand.codes.ndim != axes:
        raise GraphError(f"the {role} must have {axes} axes, not shape {operand.codes.shape}")
    if not operand.codes.size:
        raise GraphError(f"the {role} must have at least one element along each axis, not shape {operand.codes.shape}")
    return operand


def _require_grid(constant: Constant, fracs: np.ndarray, role: str) -> None:
    if (constant.fixed.fracs(len(fracs)) != fracs).any():
        raise GraphError(
            f"the {role} must sit on the grid of the products, frac {simplest_frac(fracs)}, not {constant.fixed.frac}"
        )


def _size(x: TensorType) -> Pair:
    return x.shape[0], x.shape[1]


def _product_sum(
    x: TensorType, weight: Constant, bias: Sequence[Operand], filters: int, summed: tuple[int, ...]
) -> Fixed:
    """The accumulator's format: bound = sum(|w|) * max|x| + |b| of the worst output channel."""
    fracs = x.fixed.scalar_frac + weight.fixed.fracs(filters)
    bound = _exact_sum(np.abs(weight.codes), summed) * largest_magnitude(x.fixed)
    if bias:
        constant = _constant(bias[0], "bias", 1)
        if constant.codes.shape != (filters,):
            raise GraphError(f"the bias must have {filters} channels, not shape {constant.codes.shape}")
        _require_grid(constant, fracs, "bias")
        bound = bound + np.abs(constant.codes)
    return accumulator(int(bound.max()), simplest_frac(fracs))


def _exact_sum(magnitudes: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The sums as Python integers; they leave int64 only where the codes are absurdly wide."""
    if int(magnitudes.max()) * magnitudes.size >= 1 << 63:
        magnitudes = magnitudes.astype(object)
    return magnitudes.sum(axis=axes).astype(object)


def _next_power(value: int) -> int:
    return (1 << value.bit_length()) - 1 if value else 1


def _pooled(x: TensorType, kernel: Pair, stride: Pair, padding: Quad, what: str) -> tuple[int, int, int]:
    require_image(x)
    require_scalar(x, f"the input of {what}")
    check_window(kernel, stride, padding, (1, 1))
    if max(padding[:2]) >= kernel[0] or max(padding[2:]) >= kernel[1]:
        raise GraphError(f"{what} padding must be smaller than the kernel {kernel}, not {padding}")
    return (*output_size(_size(x), kernel, stride, padding), x.channels)


def _exact_dtype(result: Fixed, x: Fixed) -> "np.dtype[Any]":
    """The fastest arithmetic in which sums up to the result's bound are exact (DESIGN.md 3)."""
    width = max(result.width, x.width)
    return np.dtype(np.float32 if width <= 24 else np.float64 if width <= 53 else np.int64)


def _grouped_product(pixels: np.ndarray, weight: np.ndarray, groups: int) -> np.ndarray:
    """``pixels`` (N,H,W,C) times one tap's ``weight`` (C/groups, filters), group by group."""
    if groups == 1:
        return pixels @ weight
    shape = pixels.shape[:3]
    per_group, filters = weight.shape
    grouped = pixels.reshape(*shape, groups, per_group)
    kernel = weight.reshape(per_group, groups, filters // groups)
    if per_group == 1:
        return (grouped * kernel[0]).reshape(*shape, filters)
    return np.einsum("nhwgc,cgf->nhwgf", grouped, kernel).reshape(*shape, filters)


def _with_bias(total: np.ndarray, bias: Sequence[np.ndarray]) -> np.ndarray:
    return total + bias[0] if bias else total
