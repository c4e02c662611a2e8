"""Fixed-point casts of real tensors, with the gradients that let binary points be learned."""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qfx.fixed import FRAC_RANGE, Overflow, Rounding
from qfx.nn import fused
from qfx.nn.barrier import powers_of_two

LN2 = math.log(2.0)
_SATURATING = (Overflow.SAT, Overflow.SAT_SYM)
WIDEST_IN_FLOAT32 = 24  # codes of wider formats are computed in float64


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``2**exponent`` exactly, for integers in -126..127."""
    return powers_of_two(exponent)[0].to(dtype)


def round_frac(frac: Tensor) -> Tensor:
    """The integer binary point that a real ``frac`` stands for, held within FRAC_RANGE."""
    return torch.round(frac.detach()).clamp(*FRAC_RANGE)


def round_real(values: Tensor, rounding: Rounding) -> Tensor:
    """Round to integers by an ``ap_fixed`` mode, exactly.

    RND is not ``floor(x + 0.5)``, which turns 0.49999997 into 1 and 8388609 into 8388610 in float32: here the distance
    to the floor decides, whose own rounding reaches one half only from the side that is decided alike.
    """
    match rounding:
        case Rounding.TRN:
            return values.floor()
        case Rounding.TRN_ZERO:
            return values.trunc()
        case Rounding.RND_CONV:
            return values.round()
        case Rounding.RND:
            floor = values.floor()
            return floor + (values - floor >= 0.5)
        case Rounding.RND_MIN_INF:
            ceiling = values.ceil()
            return ceiling - (ceiling - values >= 0.5).to(values.dtype)
        case _:
            size = values.abs()
            floor = size.floor()
            away = size - floor >= 0.5 if rounding is Rounding.RND_INF else size - floor > 0.5
            return torch.copysign(floor + away, values)


def code_range(width: int, signed: bool, overflow: Overflow) -> tuple[int, int]:
    """The codes that do not overflow; SAT_SYM has no symmetric range in one bit, as in ``ap_fixed``."""
    if width == 0:
        return 0, 0
    high = (1 << (width - signed)) - 1
    symmetric = overflow is Overflow.SAT_SYM and width > 1
    return (-high if symmetric else -(1 << (width - 1))) if signed else 0, high


def overflow_real(codes: Tensor, width: int, signed: bool, overflow: Overflow) -> Tensor:
    """Bring integer-valued ``codes`` into range by an overflow mode."""
    low, high = code_range(width, signed, overflow)
    match overflow:
        case Overflow.SAT | Overflow.SAT_SYM:
            return codes.clamp(low, high)
        case Overflow.SAT_ZERO:
            return torch.where((codes >= low) & (codes <= high), codes, 0.0)
        case Overflow.WRAP:
            span = float(1 << width)
            low_bits = codes - span * (codes / span).floor()  # exact: a multiple of the codes' own last bit
            return torch.where(low_bits > high, low_bits - span, low_bits)


def channel_shape(x: Tensor, frac: Tensor, axis: int) -> list[int]:
    """The shape in which a format's numbers, one or one per entry of ``axis``, meet the tensor ``x``."""
    shape = [1] * x.dim()
    if frac.dim():
        shape[axis] = -1
    return shape


def over_channels(values: Tensor, x: Tensor) -> Tensor:
    """``values``, one for each channel (axis 1), in the shape in which they meet ``x``."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def rounded_codes(x: Tensor, frac: Tensor, low: int, high: int) -> tuple[Tensor, Tensor, Tensor]:
    """``round(x * 2**frac)`` (RND), what is left of it in ``low .. high``, and ``2**-frac``; one binary point."""
    power, inverse = powers_of_two(round_frac(frac))
    rounded = round_real(x * power, Rounding.RND)
    return rounded, rounded.clamp(low, high), inverse


def sum_to(values: Tensor, shape: torch.Size, axis: int) -> Tensor:
    """Sum over all axes, or, where ``shape`` has an axis, over all but ``axis``."""
    others = [other for other in range(values.dim()) if not shape or other != axis % values.dim()]
    return values.sum(others) if others else values


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Whether integers are equal; to a compiler as 1.0 and 0.0, since the loops of inductor store booleans one by one.

    With binary points frozen, where only this is kept for the backward pass, a step took three times as long.
    """
    return 1 - (a - b).abs().clamp(max=1) if torch.compiler.is_compiling() else a == b


class _Cast(torch.autograd.Function):
    """``y = overflow(round(x * 2**frac)) * 2**-frac``.

    Gradients (LSQ in the log2 domain): in range ``dy/dx = 1``, ``dy/dfrac = ln2 * (x - y)``; clipped ``dy/dx = 0``,
    ``dy/dfrac = -ln2 * y`` with the saturated ``y``, whatever the overflow mode. The gradient of frac is multiplied by
    ``gain``, or by LSQ's ``1 / sqrt(values per frac * largest code)`` where gain is None.
    """

    @staticmethod
    def forward(ctx, x, frac, axis, width, signed, rounding, overflow, edges, levels, gain):  # type: ignore[no-untyped-def]
        shape = channel_shape(x, frac, axis)
        scale, inverse = (power.reshape(shape).to(x.dtype) for power in powers_of_two(round_frac(frac)))
        scaled = x * scale
        if levels is None:
            rounded = round_real(scaled, rounding)
            codes = overflow_real(rounded, width, signed, overflow)
            saturated = codes if overflow in _SATURATING else overflow_real(rounded, width, signed, Overflow.SAT)
            inside = equal(saturated, rounded)
        else:
            size = scaled.abs()
            found = levels.to(x.dtype)[torch.bucketize(size, edges.to(x.dtype))]
            codes = saturated = torch.copysign(found, scaled)
            inside = size < levels[-1] + 0.5
        y = codes * inverse  # exact: a power of two
        held = inside if inside.dtype == torch.bool else inside != 0
        # x - y, for which a compiler is to make y anew: what reads y keeps it, and reading costs more
        ctx.save_for_backward(inside, torch.where(held, x, 0.0) + saturated * -inverse)
        high = code_range(width, signed, overflow)[1]
        ctx.frac_shape, ctx.axis, ctx.gain, ctx.largest = frac.shape, axis, gain, max(high, 1)
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inside, slope = ctx.saved_tensors
        to_frac = sum_to(grad * slope, ctx.frac_shape, ctx.axis)
        gain = ctx.gain
        if gain is None:
            gain = (grad.numel() / max(ctx.frac_shape.numel(), 1) * ctx.largest) ** -0.5
        to_frac = (to_frac * (LN2 * gain)).to(torch.float32)
        return grad * inside, to_frac, None, None, None, None, None, None, None, None


class _FusedCast(torch.autograd.Function):
    """`_Cast` with rounding RND and a saturating overflow, in a kernel that gives the same bits but for ``dfrac``.

    It keeps ``x`` instead of a slope and a mask for each value.
    """

    @staticmethod
    def forward(ctx, x, frac, low, high, gain):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, frac.detach().clone())
        ctx.range = low, high
        ctx.gain = (x.numel() / frac.numel() * max(high, 1)) ** -0.5 if gain is None else gain
        return fused.cast(x, frac, low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, frac = ctx.saved_tensors
        to_x, to_frac = fused.cast_backward(x, frac, grad, *ctx.range)
        return to_x, to_frac * (LN2 * ctx.gain), None, None, None


def cast(
    x: Tensor,
    frac: Tensor,
    width: int,
    signed: bool = True,
    rounding: Rounding = Rounding.RND,
    overflow: Overflow = Overflow.SAT,
    *,
    axis: int = 0,
    khot: tuple[Tensor, Tensor] | None = None,
    gain: float | None = 1.0,
) -> Tensor:
    """Return the fixed-point value of each element, with learnable binary points.

    Args:
        x: real values; computed in float64 if they are float64 or the width asks for it, else in float32.
        frac: real binary point, a scalar or one per entry of ``axis``; rounded, and held within FRAC_RANGE.
        khot: (edges, levels) of a K-hot word: the magnitudes it holds and the midpoints between them.
        gain: factor on the gradient of ``frac``; None for LSQ's (Esser et al., 2020, section 2.2).

    Returns:
        values in float32 or float64.
    """
    wide = x.dtype == torch.float64 or width > WIDEST_IN_FLOAT32
    edges, levels = khot or (None, None)
    x = x.to(torch.float64 if wide else torch.float32)
    simple = rounding is Rounding.RND and overflow in _SATURATING and khot is None and width > 0
    if simple and (frac.dim() == 0 or axis == 0) and fused.serves(x):
        return _FusedCast.apply(x, frac, *code_range(width, signed, overflow), gain)
    return _Cast.apply(x, frac, axis, width, signed, rounding, overflow, edges, levels, gain)


def cast_to_grid(x: Tensor, frac: Tensor) -> Tensor:
    """Round to multiples of ``2**-frac`` (RND) without a range; the gradient passes straight through."""
    codes = round_real(x.detach() * power_of_two(frac, x.dtype), Rounding.RND)
    return codes * power_of_two(-frac, x.dtype) + (x - x.detach())
