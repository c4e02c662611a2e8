"""The transposed convolution in fixed point, and the convolution of stride 1 that computes the same integers."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.fixed import simplest_frac
from qfx.nn.arithmetic import conv2d_of_matrices
from qfx.nn.compute import Convolving, layer_constants
from qfx.nn.constants import Codes
from qfx.nn.geometry import Pair, as_image, pair
from qfx.nn.quantizer import ACTIVATION, WEIGHT, Spec


@dataclass(frozen=True)
class Phases:
    """One axis of a transposed convolution as a convolution of stride 1 that makes ``stride`` results a place.

    Result ``Y`` is result ``r`` of place ``q``, ``Y = q*stride + r - cut``. It is the sum, over all k with t whole, of
    ``w[k] * x[q + t]``, ``t = (r + padding - cut - k*dilation) / stride``. So one window from the least to the largest
    ``t`` serves all results, with zeros where a result has no tap, and none for the zeros between the pixels.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    out: int
    cut: int  # results before the first one, below stride: they shift the phases so that the window is small

    @property
    def places(self) -> int:
        """How many pixels the convolution makes."""
        return -(-(self.out + self.cut) // self.stride)

    @property
    def taps(self) -> dict[tuple[int, int], int]:
        """For each result of a place and each k that it needs: t."""
        shifts = {
            (r, k): r + self.padding - self.cut - k * self.dilation
            for r in range(self.stride)
            for k in range(self.kernel)
        }
        return {key: shift // self.stride for key, shift in shifts.items() if shift % self.stride == 0}

    @property
    def window(self) -> range:
        """All t."""
        return range(min(self.taps.values()), max(self.taps.values()) + 1)

    @property
    def zeros(self) -> Pair:
        """Padding before and behind."""
        first, last = self.window[0], self.places - 1 + self.window[-1]
        return max(-first, 0), max(last - self.size + 1, 0)

    @property
    def kept(self) -> tuple[int, int, int]:
        """The slice of the convolution's results that is the result."""
        start = max(self.window[0], 0) * self.stride + self.cut
        return start, start + self.out, 1


def phases(size: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> Phases:
    """Return the phases with the least work: window times places."""
    tried = [Phases(size, kernel, stride, padding, dilation, out, cut) for cut in range(stride)]
    return min(tried, key=lambda each: (len(each.window) * each.places, each.cut))


class ConvTranspose2d(Convolving):
    """``y = conv_transpose(input_quant(x), weight_quant(weight)) + bias``, exact; bias is on the grid f_x + f_w[c].

    The weight has torch's axes (in, out/groups, y, x), or of signals (in, out/groups, x), and a binary point for each
    output channel. With ``norm`` set, a BatchNorm is folded in as into a Conv2d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Pair = 1,
        *,
        weight_spec: Spec = WEIGHT,
        input_spec: Spec = ACTIVATION,
    ) -> None:
        like = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, 0, 0, groups, bias, dilation)
        super().__init__(like, weight_spec, input_spec)
        self.padding, self.output_padding = pair(padding, 0), pair(output_padding, 0)

    @classmethod
    def from_float(cls, layer: nn.ConvTranspose2d | nn.ConvTranspose1d, weight: Spec, activation: Spec) -> Self:
        """Return the fixed-point layer that shares ``layer``'s parameters."""
        assert isinstance(layer.padding, tuple)
        new = cls(
            layer.in_channels,
            layer.out_channels,
            pair(layer.kernel_size),
            pair(layer.stride),
            pair(layer.padding, 0),
            pair(layer.output_padding, 0),
            layer.groups,
            layer.bias is not None,
            pair(layer.dilation),
            weight_spec=weight,
            input_spec=activation,
        )
        new.weight, new.bias = layer.weight, layer.bias
        return new

    def _weight(self) -> Tensor:
        return turned(as_image(self.weight), self.groups)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.exact and x.device.type != "cpu":
            return self._of_zeros(x, weight, bias)
        weight = turned(weight, self.groups)
        return F.conv_transpose2d(
            x, weight, bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def _of_zeros(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same by products of matrices, as ``qfx.nn.arithmetic`` asks for: zeros between the pixels, convolved."""
        sides: list[int] = []
        for axis in (1, 0):
            reach = self.dilation[axis] * (weight.shape[2 + axis] - 1) - self.padding[axis]
            sides += [reach, reach + self.output_padding[axis]]
        height, width = ((size - 1) * step + 1 for size, step in zip(x.shape[2:], self.stride, strict=True))
        apart = x.new_zeros(*x.shape[:2], height, width)
        apart[:, :, :: self.stride[0], :: self.stride[1]] = x
        return conv2d_of_matrices(F.pad(apart, sides), weight.flip(2, 3), bias, 1, 0, self.dilation, self.groups)

    def phases(self, height: int, width: int) -> tuple[Phases, Phases]:
        """Return how rows and columns of an image of that size become those of the result."""
        kernel = as_image(self.weight).shape[2:]
        along = (self.padding, self.output_padding, self.dilation)
        found = []
        for axis, size in enumerate((height, width)):
            padding, more, dilation = (values[axis] for values in along)
            out = (size - 1) * self.stride[axis] - 2 * padding + dilation * (kernel[axis] - 1) + more + 1
            found.append(phases(size, kernel[axis], self.stride[axis], padding, dilation, out))
        return found[0], found[1]

    def constants(self, rows: Phases, columns: Phases) -> dict[str, Codes]:
        """Return ``weight`` (th, tw, in/groups, filters) and ``bias`` (filters,) of the convolution of stride 1.

        The filters are, for each group, each result of a place, row by row, with the group's channels.
        """
        plain = layer_constants(self, self.axes)
        codes = plain["weight"].codes
        per_group = codes.shape[2]
        grouped = codes.reshape(*codes.shape[:3], self.groups, -1)
        shape = (len(rows.window), len(columns.window), per_group, self.groups, rows.stride, columns.stride)
        phased = np.zeros((*shape, grouped.shape[-1]), dtype=np.int64)
        for (r, ky), ty in rows.taps.items():
            for (c, kx), tx in columns.taps.items():
                phased[ty - rows.window[0], tx - columns.window[0], :, :, r, c] = grouped[ky, kx]
        pixels = rows.stride * columns.stride
        found = {"weight": replace(plain["weight"], codes=phased.reshape(*shape[:3], -1))}
        if "bias" in plain:
            found["bias"] = replace(plain["bias"], codes=self._for_each(plain["bias"].codes, pixels))
        for role, constant in found.items():
            if constant.fixed.per_channel:
                fracs = self._for_each(np.array(plain[role].fixed.frac), pixels)
                found[role] = replace(constant, fixed=replace(constant.fixed, frac=simplest_frac(fracs)))
        return found

    def _for_each(self, values: np.ndarray, pixels: int) -> np.ndarray:
        """Values of the channels in the order of the filters."""
        return np.repeat(values.reshape(self.groups, 1, -1), pixels, axis=1).ravel()


def turned(weight: Tensor, groups: int) -> Tensor:
    """Exchange the first two axes of a weight within each group: torch's order to (out, in/groups, ...), or back."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).contiguous()
