"""What torch.compile is to compute once and keep, instead of once for each value that needs it.

Inductor fuses small computations into the loops that read them. For a power of two, or a constant of a channel, that
means to compute it anew for every pixel. What is looked at as memory it writes there first, in a loop of its own. On a
GPU an operator keeps the two apart: Triton 3.6 cannot translate a sum over pixels with casts of the sum behind it.
"""

import torch
from torch import Tensor, library


def powers_of_two(exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``2**exponent`` and ``2**-exponent`` exactly, in float32, for integers in -126..126.

    The exponent is written into the float's bits.
    """
    power = exponent.detach().to(torch.int32).add(127) << 23
    return keep(power.view(torch.float32)), keep(((254 << 23) - power).view(torch.float32))


def keep(x: Tensor) -> Tensor:
    """Return ``x``, which a compiler is not to compute inside of a loop over other values."""
    if not torch.compiler.is_compiling():
        return x
    return _Keep.apply(x) if x.is_cpu else _apart(x)  # type: ignore[no-any-return]


class _Keep(torch.autograd.Function):
    """The identity, as a view by strides: inductor gives it memory to look at."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return x.reshape(-1).as_strided((x.numel(),), (1,)).reshape(x.shape)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return grad


@library.custom_op("qfx::apart", mutates_args=())
def _apart(x: Tensor) -> Tensor:
    return x.clone()


@_apart.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


_apart.register_autograd(lambda ctx, grad: grad)
