"""Casts whose width is learned as well as their binary point, and what the learned formats cost in bits."""

import torch
from torch import Tensor, nn

from qfx.fixed import Overflow, Rounding
from qfx.nn.functional import LN2, channel_shape, power_of_two, round_frac, round_real, sum_to

WIDEST_LEARNED = 16  # where a learned width is held, from 0; codes of 16 bits are exact in float32


def round_width(width: Tensor) -> Tensor:
    """The integer width that a real ``width`` stands for, held within 0..WIDEST_LEARNED."""
    return torch.round(width.detach()).clamp(0, WIDEST_LEARNED)


class _CastWidth(torch.autograd.Function):
    """``y = saturate(round(x * 2**frac)) * 2**-frac`` in a learned number of bits; 0 bits hold only zero.

    Gradients of x and frac as in `functional._Cast`; of the width, as the bound moves: clipped high
    ``ln2 * 2**(width - signed) * 2**-frac``, clipped low the negative of it if signed, else 0; in range 0, so that only
    a cost shrinks it. Those of frac and width are multiplied by LSQ's ``1 / sqrt(values per frac * largest code)``.
    """

    @staticmethod
    def forward(ctx, x, frac, width, axis, signed, rounding, symmetric):  # type: ignore[no-untyped-def]
        shape = channel_shape(x, frac, axis)
        scale = power_of_two(round_frac(frac).reshape(shape), x.dtype)
        bits = round_width(width).reshape(shape)
        span = power_of_two(bits - int(signed), x.dtype)  # codes from 0 to the bound, at 0 bits a fraction
        high = (span - 1).clamp(min=0)
        low = -high if symmetric else -span
        low = torch.where(bits == 1, -1.0, low) * (bits > 0) * int(signed)  # one bit has no symmetric range
        rounded = round_real(x * scale, rounding)
        y = torch.minimum(torch.maximum(rounded, low), high) / scale
        above, below = rounded > high, rounded < low
        inside = ~(above | below)
        side = above.to(x.dtype) - below.to(x.dtype) if signed else above.to(x.dtype)
        ctx.save_for_backward(inside, torch.where(inside, x, 0.0) - y, side * (span / scale), high.max().clamp(min=1))
        ctx.shape, ctx.axis = frac.shape, axis
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inside, to_frac, to_width, largest = ctx.saved_tensors
        gain = LN2 * (grad.numel() / max(ctx.shape.numel(), 1) * largest) ** -0.5
        frac, width = (
            (sum_to(grad * slope, ctx.shape, ctx.axis) * gain).to(torch.float32) for slope in (to_frac, to_width)
        )
        return grad * inside, frac, width, None, None, None, None


def cast_learned_width(
    x: Tensor, frac: Tensor, width: Tensor, signed: bool, rounding: Rounding, overflow: Overflow, axis: int = 0
) -> Tensor:
    """Return the fixed-point value of each element in a format whose width and binary point are learned.

    Args:
        x: real values; computed in float64 if they are float64, else in float32.
        frac, width: real numbers, scalars or one per entry of ``axis``; rounded, and held within their ranges.
        overflow: SAT or SAT_SYM.
    """
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    return _CastWidth.apply(x, frac, width, axis, signed, rounding, overflow is Overflow.SAT_SYM)


class _Straight(torch.autograd.Function):
    """The width in use, with the gradient of the real one."""

    @staticmethod
    def forward(ctx, width):  # type: ignore[no-untyped-def]
        return round_width(width)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad


def width_in_use(width: Tensor) -> Tensor:
    """Return the rounded width, differentiable as if it were not rounded."""
    return _Straight.apply(width)


def constant_bits(model: nn.Module) -> Tensor:
    """Return the bits that all weights of a model take, differentiable with respect to learned widths.

    Add it to the loss, times the loss that a bit is worth, and widths that are not needed shrink.
    """
    total = torch.zeros(())
    for module in model.modules():
        quantizer, weight = getattr(module, "weight_quant", None), getattr(module, "weight", None)
        if quantizer is not None and weight is not None:
            total = total + quantizer.bits_in_use.mean() * weight.numel()
    return total
