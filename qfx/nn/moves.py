"""Layers that only move values, exact on the codes as they are: to other channels, to other places of the image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.nn.geometry import Pair, Quad, pair
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec

Steps = tuple[int | None, int | None, int | None]  # start, stop and step of a slice
ALL: Steps = (None, None, None)


class Select(nn.Module):
    """``y[:, i] = x[:, channels[i]]``, and 0 where ``channels[i]`` is -1; a channel may be taken often, or never."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(int(channel) for channel in channels)
        if max(self.channels, default=-1) < 0 or min(self.channels) < -1:
            raise LowerError(f"channels must be numbers from 0 on, or -1 for zeros, not {self.channels}")

    def forward(self, x: Tensor) -> Tensor:
        return selected(x, self.channels)

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def selected(x: Tensor, channels: Sequence[int]) -> Tensor:
    """Return the chosen channels of ``x``, zeros for -1."""
    index = torch.tensor(channels).to(x.device)
    zeros = (index < 0).reshape(-1, *[1] * (x.dim() - 2))
    return x.index_select(1, index.clamp(0)).masked_fill(zeros, 0.0)


class ChannelShuffle(nn.Module):
    """The channels of ``groups`` groups in turn: one of each, then the next of each."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return which of ``channels`` stands in each place."""
        size = channels // self.groups
        return tuple(group * size + place for place in range(size) for group in range(self.groups))

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ChannelChunk(nn.Module):
    """Part ``index`` of ``chunks`` parts of the channels, of equal size but for the last: torch.chunk."""

    def __init__(self, chunks: int, index: int) -> None:
        super().__init__()
        self.chunks, self.index = chunks, index

    def forward(self, x: Tensor) -> Tensor:
        return x[:, slice(*self._ends(x.shape[1]))]

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return which of ``channels`` stands in each place."""
        return tuple(range(*self._ends(channels)))

    def _ends(self, channels: int) -> tuple[int, int]:
        size = -(-channels // self.chunks)
        index = self.index % -(-channels // size)
        return index * size, min((index + 1) * size, channels)

    def extra_repr(self) -> str:
        return f"chunks={self.chunks}, index={self.index}"


class PadChannels(nn.Module):
    """``before`` channels of zeros, those of x, ``after`` channels of zeros."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return selected(x, self.chosen(x.shape[1]))

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return which of ``channels`` stands in each place, -1 for zeros."""
        return (-1,) * self.before + tuple(range(channels)) + (-1,) * self.after

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}"


class Slice(nn.Module):
    """``y = x[:, channels, rows, columns]``, each a (start, stop, step); of a signal the columns are its length."""

    def __init__(self, channels: Steps = ALL, rows: Steps = ALL, columns: Steps = ALL) -> None:
        super().__init__()
        self.channels, self.rows, self.columns = channels, rows, columns

    def forward(self, x: Tensor) -> Tensor:
        places = (self.rows, self.columns)[4 - x.dim() :] if x.dim() > 2 else ()
        return x[(slice(None), slice(*self.channels), *(slice(*steps) for steps in places))]

    def places(self, signal: bool) -> tuple[Steps, Steps]:
        """Return the slices of rows and columns, of a signal all of its one row."""
        return (ALL if signal else self.rows), self.columns

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return which of ``channels`` stands in each place."""
        return tuple(range(*slice(*self.channels).indices(channels)))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, rows={self.rows}, columns={self.columns}"


class ZeroPad(nn.Module):
    """Zeros around ``input_quant(x)``, for what does not take them as padding of its own."""

    def __init__(self, padding: Quad, *, input_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.padding = padding
        self.input_quant = Quantizer(input_spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom, left, right = self.padding
        return F.pad(self.input_quant(x), (left, right, top, bottom)[: 2 * (x.dim() - 2)])

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class Detach(nn.Module):
    """``y = x``, and in training no gradient passes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class Unflatten(nn.Module):
    """``y = x[:, :, None, None]``: features as the channels of an image of one pixel, or of a signal of length 1."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape, *[1] * self.axes)

    def extra_repr(self) -> str:
        return f"axes={self.axes}"


class PixelShuffle(nn.Module):
    """``y[c, h*r + i, w*r + j] = input_quant(x)[(c*r + i)*r + j, h, w]``: channels become a block of pixels."""

    def __init__(self, factor: int | Pair, *, input_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.factor = pair(factor)
        self.input_quant = Quantizer(input_spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.input_quant(x), self.factor)

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return the channels pixel by pixel of a block: the order in which a graph has them."""
        pixels = self.factor[0] * self.factor[1]
        return tuple(channel * pixels + pixel for pixel in range(pixels) for channel in range(channels // pixels))

    def extra_repr(self) -> str:
        return f"factor={self.factor}"


def pixel_shuffle(x: Tensor, factor: Pair) -> Tensor:
    """Return torch's pixel_shuffle, by a factor of its own along rows and columns."""
    parts = x.unflatten(1, (-1, *factor))  # N, C, rows, columns, H, W
    return parts.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
