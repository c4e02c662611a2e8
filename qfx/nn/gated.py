"""Convolutions of fractional activations: the low bits count only where the high ones promise a large result.

Sources: Zhang et al., Precision Gating, 2020, section 3; Zhang et al., FracBNN, 2021, section 3.2.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import Fixed, fixed_for_range
from qfx.nn.arithmetic import convolution
from qfx.nn.binary import check_levels, half_of_largest, levels, with_slope
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.geometry import Pair, padded, pair, quad
from qfx.nn.quantizer import WEIGHT, Quantizer, Spec

WIDEST_WEIGHT = 16  # so that every sum of products is exact in float64


class PrecisionGatedConv2d(nn.Module):
    """``y = h + (h > threshold[o]) * l`` in float: ``h`` and ``l`` convolve the two parts of a BinaryActivation.

    The input becomes the odd integers ``-n .. n``, ``n = 2**width - 1``. Their ``high`` upper bits stand for an odd
    multiple of ``2**(width - high)``, the lower ones for the rest, which is odd too. With width 2 and one high bit this
    is FracBNN's layer, whose activations are -1, -1/3, 1/3, 1, and its result times 3. ``qfx.convert`` makes it a
    GatedConv2d with the same parameters. The gradient of the gate is that of ``sigmoid(h - threshold)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        *,
        width: int = 2,
        high: int = 1,
    ) -> None:
        super().__init__()
        check_levels(width)
        if not 1 <= high < width:
            raise LowerError(f"the high bits of a gated convolution must be 1..{width - 1} of {width}, not {high}")
        self.weight = nn.Conv2d(in_channels, out_channels, kernel_size, bias=False).weight
        self.threshold = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.padding = pair(stride), quad(padding)
        self.width, self.high = width, high

    def forward(self, x: Tensor) -> Tensor:
        return _gated(self, x, self.weight)

    def extra_repr(self) -> str:
        return f"{_sizes(self.weight)}, {self.high} of {self.width} bits high"


class GatedConv2d(nn.Module):
    """A PrecisionGatedConv2d in fixed point: its parameters, the weights quantized; the result is exact.

    The weights have one binary point. The threshold needs no format: ``h`` exceeds it where the code of ``h`` exceeds
    ``floor(threshold * 2**frac)``.
    """

    def __init__(self, layer: PrecisionGatedConv2d, weight_spec: Spec = WEIGHT) -> None:
        super().__init__()
        if weight_spec.width > WIDEST_WEIGHT:
            raise LowerError(
                f"the weights of a gated convolution must be at most {WIDEST_WEIGHT} bits wide, not {weight_spec.width}"
            )
        self.weight, self.threshold = layer.weight, layer.threshold
        self.stride, self.padding, self.width, self.high = layer.stride, layer.padding, layer.width, layer.high
        self.weight_quant = Quantizer(replace(weight_spec, per_channel=False))
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        conv2d = convolution(x.device.type) if self.exact else F.conv2d
        return _gated(self, x, self.weight_quant(self.weight).to(x.dtype), conv2d)

    def effective(self) -> tuple[Tensor, None]:
        """Return the weight that is quantized, and no bias, as other layers with weights do."""
        return self.weight, None

    def constants(self) -> dict[str, Codes]:
        """Return ``weight`` (kh, kw, in, out), what makes the gate of ``h``, and the parts of each input code.

        The input's codes are those of a BinaryActivation, ``half`` for them as well. The gate is
        ``h * scale + shift >= 1``, both (out,). The tables ``upper`` and ``lower`` have an entry for each
        code of the input, lowest first.
        """
        below, half = self.width - self.high, 1 << (self.width - 1)
        weight = quantized_codes(self.weight_quant, self.weight, (2, 3, 1, 0))
        frac = weight.fixed.scalar_frac - below
        most = int(np.abs(weight.codes).sum((0, 1, 2)).max()) << self.high  # beyond every code of h
        real = np.ldexp(self.threshold.detach().double().cpu().numpy(), frac)
        shift = -np.clip(np.floor(real), -most, most).astype(np.int64)
        codes = np.arange(-half, half)
        upper = 2 * (codes >> below) + 1
        lower = 2 * codes + 1 - (upper << below)
        return {
            "half": half_of_largest(self.width),
            "weight": weight,
            "scale": Codes(np.ones_like(shift), Fixed(2, -frac), 1),
            "shift": Codes(shift, fixed_for_range(min(int(shift.min()), -1), max(int(shift.max()), 0), 0)),
            "upper": Codes(upper, Fixed(self.high + 1, -below)),
            "lower": Codes(lower, Fixed(below + 1, 0)),
        }

    def extra_repr(self) -> str:
        return f"{_sizes(self.weight)}, {self.high} of {self.width} bits high"


def _gated(
    layer: PrecisionGatedConv2d | GatedConv2d, x: Tensor, weight: Tensor, conv2d: Callable[..., Tensor] = F.conv2d
) -> Tensor:
    step = 1 << (layer.width - layer.high)
    codes = levels(x, layer.width)
    upper = (2 * torch.floor(codes / step) + 1) * step
    parts = torch.cat((with_slope(upper, x, layer.width), 2 * codes + 1 - upper))
    parts, padding = padded(parts, layer.padding)
    h, low = conv2d(parts, weight, None, layer.stride, padding, (1, 1), 1).chunk(2)
    distance = h - layer.threshold.to(h.dtype).reshape(-1, 1, 1)
    gate = torch.sigmoid(distance)
    return h + ((distance > 0) + (gate - gate.detach())) * low


def _sizes(weight: Tensor) -> str:
    filters, channels, height, width = weight.shape
    return f"{channels}, {filters}, kernel_size=({height}, {width})"
