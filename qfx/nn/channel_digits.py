"""Casts to K-hot words with a K for each channel, stated or learned."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qfx.fixed.khot import nested_magnitudes
from qfx.nn.barrier import powers_of_two
from qfx.nn.functional import LN2, channel_shape, round_frac, sum_to

WIDEST_CHANNEL_DIGITS = 16  # bits of words whose K differs between channels; magnitudes and edges are exact in float32


def round_k(k: Tensor, most: int) -> Tensor:
    """The integer K that a real ``k`` stands for, held within 0..most; 0 prunes the channel."""
    return torch.round(k.detach()).clamp(0, most)


@dataclass(frozen=True, slots=True)
class Words:
    """The K-hot words of a width for every K: see ``qfx.fixed.khot.nested_magnitudes``."""

    edges: Tensor  # (n,)
    levels: Tensor  # (K, n + 1)

    @property
    def most(self) -> int:
        """The largest number of digits that a word can have."""
        return len(self.levels) - 1

    def place(self, size: Tensor) -> Tensor:
        """Return the column of each size."""
        return torch.bucketize(size, self.edges.to(size.dtype))

    def at(self, place: Tensor, k: Tensor) -> Tensor:
        """Return the magnitude with at most ``k`` digits (integers, broadcast over ``place``) of each column."""
        return self.levels.reshape(-1)[k.long() * self.levels.shape[1] + place]


def words(width: int, signed_digits: bool) -> Words:
    """Return the words of a width as float32 tensors."""
    edges, levels, _ = nested_magnitudes(width, signed_digits)
    return Words(torch.tensor(edges, dtype=torch.float32), torch.tensor(levels, dtype=torch.float32))


def neighbours(k: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the two integer K that a real ``k`` lies between, within 0..most; at an integer the upper one is next."""
    lower = k.detach().floor().clamp(0, max(most - 1, 0))
    return lower, (lower + 1).clamp(max=most)


class _CastDigits(torch.autograd.Function):
    """``y`` = the word nearest to ``x * 2**frac`` that has at most K = round(k) digits, ``* 2**-frac``.

    Gradients of x and frac as in `functional._Cast`. That of k is the loss which the error between the nearest words
    with the two integer K around it could cost, to first order and whatever its sign,

        dL/dk = -sum |dL/dy| (|x - y(K)| - |x - y(K + 1)|),

    since the plain ``sum dL/dy (y(K + 1) - y(K))`` is about zero, and noise, where training has reached a minimum. It
    never asks for fewer digits: only a price does, and at rest each channel's last digit is worth that price.
    """

    @staticmethod
    def forward(ctx, x, frac, k, axis, edges, levels, largest):  # type: ignore[no-untyped-def]
        table = Words(edges, levels.to(x.dtype))
        scale, inverse = (
            power.reshape(channel_shape(x, frac, axis)).to(x.dtype) for power in powers_of_two(round_frac(frac))
        )
        own = channel_shape(x, k, axis)
        scaled = x * scale
        size = scaled.abs()
        place, rounded = table.place(size), round_k(k, table.most)
        y = torch.copysign(table.at(place, rounded.reshape(own)), scaled) * inverse
        inside = size < table.at(torch.full_like(rounded, len(edges)).long(), rounded).reshape(own) + 0.5
        to_k = None
        if ctx.needs_input_grad[2]:
            lower, upper = (table.at(place, each.reshape(own)) for each in neighbours(k, table.most))
            to_k = ((size - upper).abs() - (size - lower).abs()) * inverse
        ctx.save_for_backward(inside, torch.where(inside, x, 0.0) - y, to_k)
        ctx.shapes, ctx.axis, ctx.largest = (frac.shape, k.shape), axis, largest
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        inside, to_frac, to_k = ctx.saved_tensors
        of_frac, of_k = ctx.shapes
        gain = LN2 * (grad.numel() / max(of_frac.numel(), 1) * ctx.largest) ** -0.5
        frac = (sum_to(grad * to_frac, of_frac, ctx.axis) * gain).to(torch.float32)
        k = None if to_k is None else sum_to(grad.abs() * to_k, of_k, ctx.axis).to(torch.float32)
        return grad * inside, frac, k, None, None, None, None


def cast_channel_digits(x: Tensor, frac: Tensor, k: Tensor, table: Words, largest: int, axis: int = 0) -> Tensor:
    """Return the nearest K-hot value of each element, K learnable for each entry of ``axis``.

    Args:
        x: real values; computed in float64 if they are float64, else in float32.
        frac: real binary point, a scalar or one per entry of ``axis``; rounded, and held within its range.
        k: real numbers, one per entry of ``axis``.
        largest: the largest code of the word, for LSQ's factor on the gradient of frac.
    """
    x = x if x.dtype == torch.float64 else x.to(torch.float32)
    return _CastDigits.apply(x, frac, k, axis, table.edges, table.levels, largest)
