"""What torch.compile is to compute once and keep, instead of once for each value that needs it.

Inductor fuses small computations into the loops that read them. For a power of two, or a constant of a channel, that
means to compute it anew for every pixel; as operators of our own they stay whole.
"""

import torch
from torch import Tensor, library


@library.custom_op("qfx::powers_of_two", mutates_args=())
def powers_of_two(exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``2**exponent`` and ``2**-exponent`` exactly, in float32, for integers in -126..126.

    The exponent is written into the float's bits.
    """
    power = exponent.to(torch.int32).add(127) << 23
    return power.view(torch.float32), ((254 << 23) - power).view(torch.float32)


@powers_of_two.register_fake
def _(exponent: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(exponent, dtype=torch.float32), torch.empty_like(exponent, dtype=torch.float32)


@library.custom_op("qfx::keep", mutates_args=())
def _keep(x: Tensor) -> Tensor:
    return x.clone()


@_keep.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


_keep.register_autograd(lambda ctx, grad: grad)


def keep(x: Tensor) -> Tensor:
    """Return ``x``, which a compiler is not to compute inside of a loop over other values."""
    return _keep(x) if torch.compiler.is_compiling() else x
