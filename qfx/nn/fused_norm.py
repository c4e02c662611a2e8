"""BatchNorm in fixed point in one pass over memory for each of its parts: kernels in C++ for training on a CPU."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, library
from torch.autograd.function import once_differentiable

from qfx.nn import fused
from qfx.nn.barrier import keep, powers_of_two
from qfx.nn.functional import LN2, code_range, equal, over_channels, round_frac, rounded_codes
from qfx.nn.quantizer import Quantizer

_SOURCE = Path(__file__).with_name("fused_norm.cpp")
_OPERATORS = library.Library("qfx", "FRAGMENT")
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def serves(x: Tensor) -> bool:
    """Return whether the kernels can take ``x`` (N, C, ...), as `fused.takes` says, in a compiler too."""
    return x.dim() >= 2 and x.numel() > 0 and fused.takes(x) and fused.available(_SOURCE)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``x``, and mean and uncorrected variance of each channel (axis 1), of values that the kernels serve.

    What reads the ``x`` returned gives its gradient to the pass over memory that mean and variance need for theirs.
    """
    return _Moments.apply(x)  # type: ignore[no-any-return]


def affine_cast(x: Tensor, scale: Tensor, shift: Tensor, quantizer: Quantizer) -> Tensor:
    """Return ``quantizer(x * scale[c] + shift[c])`` for a plain quantizer and values that the kernels serve."""
    low, high = code_range(quantizer.width, quantizer.signed, quantizer.spec.overflow)
    return _AffineCast.apply(x, scale, shift, quantizer.frac, low, high)  # type: ignore[no-any-return]


class _Moments(torch.autograd.Function):
    """``x`` itself, mean and uncorrected variance of each channel (axis 1).

    ``dx = grad + dmean / n + dvar * 2 (x - mean) / n``, n the number of values of a channel.
    """

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        mean, var = _moments(x)
        ctx.save_for_backward(x, mean)
        return x.view_as(x), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, to_mean, to_var):  # type: ignore[no-untyped-def]
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = to_var * (2 / count)
        return _lines(grad, x, slope, to_mean / count - slope * mean)


class _AffineCast(torch.autograd.Function):
    """``y = cast(x * scale[c] + shift[c])``: RND, saturating to the codes ``low .. high``, one binary point.

    The gradients are those of the cast and of the affine map; that of ``frac`` has LSQ's factor.
    """

    @staticmethod
    def forward(ctx, x, scale, shift, frac, low, high):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, scale, shift, frac.detach().clone())
        ctx.low, ctx.high = low, high
        return _affine(x, scale, shift, frac, low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, scale, shift, frac = ctx.saved_tensors
        to_x, (to_scale, to_shift, to_frac) = _affine_backward(x, grad, scale, shift, frac, ctx.low, ctx.high)
        gain = LN2 * (x.numel() * max(ctx.high, 1)) ** -0.5
        return to_x, to_scale, to_shift, to_frac * gain, None, None


def _operator(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Return what calls ``function`` itself, or in a compiler an operator, which is kept whole.

    The operator has one kernel, for the CPU, and none of the wrappers of torch's custom_op, which cost 30 us a call.
    """
    name = function.__name__.strip("_")
    _OPERATORS.define(name + library.infer_schema(function, mutates_args=()))
    _OPERATORS.impl(name, function, "CPU")
    whole = getattr(torch.ops.qfx, name).default

    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        call = whole if torch.compiler.is_compiling() else function
        return call(*args, **kwargs)  # type: ignore[no-any-return]

    return run


@_operator
def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, var = x.new_empty(x.shape[1]), x.new_empty(x.shape[1])
    _call("qfx_moments", x, (x, mean, var))
    return mean, var


@library.register_fake("qfx::moments")
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _lines(base: Tensor, x: Tensor, slope: Tensor, constant: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return base + (x * over_channels(keep(slope), x) + over_channels(keep(constant), x))
    y = torch.empty_like(x)
    _call("qfx_lines", x, (_like(base, x), x, slope.contiguous(), constant.contiguous(), y))
    return y


def _affine(x: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int) -> Tensor:
    if torch.compiler.is_compiling() and high - low < 256:
        codes, valid = _affine_codes(x, scale, shift, frac, low, high)
        return codes.to(x.dtype) * (powers_of_two(round_frac(frac))[1] * valid)
    return _affine_values(x, scale, shift, frac, low, high)


@_operator
def _affine_codes(x: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The codes in a byte each, a quarter of what is to be kept for the backward pass; and 1, or NaN if one is NaN."""
    codes, valid = torch.empty_like(x, dtype=torch.int8 if low < 0 else torch.uint8), torch.empty_like(frac)
    _call("qfx_affine_codes", x, (x, scale.contiguous(), shift.contiguous(), frac, codes, valid), low, high)
    return codes, valid


@library.register_fake("qfx::affine_codes")
def _(x: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.int8 if low < 0 else torch.uint8), torch.empty_like(frac)


@_operator
def _affine_values(x: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int) -> Tensor:
    y = torch.empty_like(x)
    _call("qfx_affine", x, (x, scale.contiguous(), shift.contiguous(), frac, y), low, high)
    return y


@library.register_fake("qfx::affine_values")
def _(x: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


def _affine_backward(
    x: Tensor, grad: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The gradient of ``x``, and those of scale, shift and, without its factor, frac."""
    if torch.compiler.is_compiling():
        scales = over_channels(scale, x)
        rounded, codes, _ = rounded_codes(x * scales + over_channels(shift, x), frac, low, high)
        return grad * equal(codes, rounded) * scales, _affine_sums(x, grad, scale, shift, frac, low, high)
    to_x = torch.empty_like(x)
    return to_x, _sums(x, grad, scale, shift, frac, low, high, to_x)


@_operator
def _affine_sums(
    x: Tensor, grad: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _sums(x, grad, scale, shift, frac, low, high, x.new_empty(0))


@library.register_fake("qfx::affine_sums")
def _(
    x: Tensor, grad: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(scale), torch.empty_like(shift), torch.empty_like(frac)


def _sums(
    x: Tensor, grad: Tensor, scale: Tensor, shift: Tensor, frac: Tensor, low: int, high: int, to_x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of scale, shift and, without its factor, frac; that of ``x`` into ``to_x``, if that has room."""
    sums = torch.empty_like(scale), torch.empty_like(shift), torch.empty_like(frac)
    _call(
        "qfx_affine_backward",
        x,
        (x, _like(grad, x), scale.contiguous(), shift.contiguous(), frac, to_x, *sums),
        low,
        high,
    )
    return sums


def _like(values: Tensor, x: Tensor) -> Tensor:
    """``values`` in the order in memory of ``x``."""
    return values if values.stride() == x.stride() else torch.empty_like(x).copy_(values)


def _call(name: str, x: Tensor, tensors: tuple[Tensor, ...], *codes: int) -> None:
    kernels = fused.compiled(_SOURCE)
    assert kernels is not None  # serves() was asked
    places = fused.addresses(tensors)
    shape = (ctypes.c_int64(size) for size in _layout(x))
    getattr(kernels, name)(*places, *shape, *map(ctypes.c_float, codes), torch.get_num_threads())


def _layout(x: Tensor) -> tuple[int, int, int]:
    """Blocks, channels, and values of a channel that lie side by side."""
    count, channels = x.shape[:2]
    if x.is_contiguous():
        return count, channels, x[0, 0].numel()
    return x.numel() // channels, channels, 1
