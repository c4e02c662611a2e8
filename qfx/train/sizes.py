"""What training learns of formats beside binary points: widths in bits, and K, the digits of K-hot constants."""

import torch
from torch import Tensor, nn

from qfx.nn.calibrate import quantizers
from qfx.nn.digits import hold_digits, khot_constants
from qfx.nn.learned_width import round_width
from qfx.nn.quantizer import Quantizer

State = tuple[Tensor, Tensor]  # of a quantizer: its width or K, and its binary point

_LEAST_WIDTH, _LEAST_K = 2, 1


def learned_sizes(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers whose width, or whose K, is learned, by their paths; none learns both."""
    return {name: q for name, q in quantizers(model).items() if q.bits is not None or q.learns_digits}


def size_now(quantizer: Quantizer) -> int:
    """Return the width or K that hardware gives a quantizer: that of its widest channel."""
    return quantizer.width if quantizer.bits is not None else quantizer.max_digits or _LEAST_K


def size_of(quantizer: Quantizer) -> Tensor:
    """Return `size_now` as a scalar, differentiable as if it were not rounded."""
    if quantizer.bits is not None:
        return quantizer.bits_in_use.amax().double()
    assert quantizer.k is not None  # that learns its K
    return (quantizer.k + (quantizer.k_now - quantizer.k).detach()).amax().double()


def sizes_in_use(model: nn.Module) -> dict[str, float]:
    """Return the size of each quantizer that learns it, by its path."""
    return {name: float(size_now(quantizer)) for name, quantizer in learned_sizes(model).items()}


def least(quantizer: Quantizer) -> int:
    """Return the smallest size that a budget leaves a quantizer."""
    return _LEAST_WIDTH if quantizer.bits is not None else _LEAST_K


@torch.no_grad()
def hold(model: nn.Module, name: str, size: int) -> None:
    """Hold the width, or the K, of all channels of a quantizer at ``size`` or less; the range of its codes stays."""
    quantizer = quantizers(model)[name]
    if quantizer.bits is not None:
        narrow(quantizer, size)
    else:
        hold_digits(*khot_constants(model)[name], size)


@torch.no_grad()
def narrow(quantizer: Quantizer, width: int) -> None:
    """Hold all learned widths of a quantizer at ``width`` or less; the range that its codes span stays."""
    assert quantizer.bits is not None
    now = round_width(quantizer.bits)
    new = now.clamp(max=width)
    if quantizer.learned:
        quantizer.frac.add_(new - now)
    quantizer.bits.copy_(torch.where(new < now, new, quantizer.bits))


def state(quantizer: Quantizer) -> State:
    """Return what `restore` takes."""
    return _size(quantizer).clone(), quantizer.frac.clone()


@torch.no_grad()
def restore(quantizer: Quantizer, state: State) -> None:
    """Give a quantizer the size and the binary point of before."""
    _size(quantizer).copy_(state[0])
    quantizer.frac.copy_(state[1])


def _size(quantizer: Quantizer) -> nn.Parameter:
    size = quantizer.k if quantizer.bits is None else quantizer.bits
    assert size is not None  # of one that learns it
    return size
