"""Square deformable depthwise convolution: one integer dilation per pixel (CoDeNet, Huang et al., 2021, section 3)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import Fixed, Rounding
from qfx.nn.arithmetic import convolution
from qfx.nn.compute import Conv2d, layer_constants, quantized
from qfx.nn.constants import Codes
from qfx.nn.functional import round_real
from qfx.nn.integer import exact_product
from qfx.nn.quantizer import ACTIVATION, WEIGHT, Quantizer, Spec
from qfx.nn.sharing import share


class SquareDeformConv2d(nn.Module):
    """Depthwise 3x3 convolution in float whose taps stand ``d`` pixels from the centre: ``x[p + anchor * d(p)]``.

    ``d`` is one integer for each pixel, the rounded result of a 3x3 convolution of the same input, held in
    0..max_dilation; taps outside the image are 0. Its gradient is that of linear interpolation between neighbouring
    dilations. ``qfx.convert`` makes it a DeformConv2d with the same parameters.
    """

    def __init__(self, channels: int, max_dilation: int, bias: bool = False) -> None:
        super().__init__()
        _check_dilation(max_dilation)
        self.channels, self.max_dilation = channels, max_dilation
        like = nn.Conv2d(channels, channels, 3, groups=channels, bias=bias)
        self.weight, self.bias = like.weight, like.bias
        self.offset = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.constant_(self.offset.bias, max_dilation / 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return sample(x, dilations(self.offset(x), self.max_dilation), self.weight, self.bias, self.max_dilation)


class DeformConv2d(nn.Module):
    """SquareDeformConv2d in fixed point: quantized input, weight and offset convolution; the result is exact.

    The dilation is the offset convolution's exact result, requantized to ``offset_format`` (RND, SAT), then clamped to
    0..max_dilation. That convolution shares this layer's input quantizer: both read the same tensor.
    """

    axes = (2, 3, 1, 0)

    def __init__(
        self,
        channels: int,
        max_dilation: int,
        bias: bool = False,
        *,
        weight_spec: Spec = WEIGHT,
        input_spec: Spec = ACTIVATION,
        offset_weight_spec: Spec = WEIGHT,
    ) -> None:
        super().__init__()
        _check_dilation(max_dilation)
        self.channels, self.max_dilation = channels, max_dilation
        like = nn.Conv2d(channels, channels, 3, groups=channels, bias=bias)
        self.weight, self.bias = like.weight, like.bias
        self.input_quant = Quantizer(input_spec, axis=1)
        self.weight_quant = Quantizer(weight_spec, channels)
        self.offset = Conv2d(channels, 1, 3, padding=1, weight_spec=offset_weight_spec, input_spec=input_spec)
        share(self.offset, "input_quant", self.input_quant)
        self.exact = False

    @classmethod
    def from_float(cls, layer: SquareDeformConv2d, weight: Spec, activation: Spec, offset_weight: Spec) -> Self:
        """Return the fixed-point layer that shares ``layer``'s parameters."""
        new = cls(
            layer.channels,
            layer.max_dilation,
            layer.bias is not None,
            weight_spec=weight,
            input_spec=activation,
            offset_weight_spec=offset_weight,
        )
        new.weight, new.bias = layer.weight, layer.bias
        new.offset.weight, new.offset.bias = layer.offset.weight, layer.offset.bias
        return new

    @property
    def offset_format(self) -> Fixed:
        """The format of the dilations before they are clamped: unsigned, frac 0, just wide enough."""
        return Fixed(max(self.max_dilation.bit_length(), 1), 0, signed=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quant(x)
        planes = dilations(self.offset(x), self.max_dilation)
        weight, bias = quantized(self, self.weight, self.bias, x.dtype)

        def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            conv2d = convolution(x.device.type) if self.exact else F.conv2d
            return sample(x, planes, weight, bias, self.max_dilation, conv2d)

        if self.exact:
            return exact_product(product, x, weight, bias, self.input_quant, self.weight_quant)
        return product(x, weight, bias)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Return the real weight and bias."""
        return self.weight, self.bias

    def constants(self) -> dict[str, Codes]:
        """Return ``weight`` (3, 3, channels) and, if there is one, ``bias``; ``offset`` has constants of its own."""
        found = layer_constants(self, self.axes)
        weight = found["weight"]
        found["weight"] = replace(weight, codes=weight.codes[:, :, 0])
        return found


def dilations(real: Tensor, max_dilation: int) -> Tensor:
    """Return (N, D+1, H, W): 1 in the plane of each pixel's dilation, which is ``real`` rounded (RND) and clamped.

    The gradient is that of the weights of linear interpolation, ``max(0, 1 - |d - plane|)``.
    """
    real = real if real.dtype == torch.float64 else real.float()
    steps = torch.arange(max_dilation + 1, dtype=real.dtype, device=real.device).reshape(1, -1, 1, 1)
    chosen = round_real(real.detach(), Rounding.RND).clamp(0, max_dilation) == steps
    hats = F.relu(1 - (real.clamp(0, max_dilation) - steps).abs())
    return chosen + (hats - hats.detach())


def sample(
    x: Tensor,
    planes: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    max_dilation: int,
    conv2d: Callable[..., Tensor] = F.conv2d,
) -> Tensor:
    """Return the depthwise convolution with, at each pixel, the dilation that ``planes`` selects."""
    total = x * weight.sum((2, 3)).reshape(1, -1, 1, 1) * planes[:, :1]
    for d in range(1, max_dilation + 1):
        total = total + conv2d(x, weight, None, 1, d, d, len(weight)) * planes[:, d : d + 1]
    return total if bias is None else total + bias.reshape(1, -1, 1, 1)


def _check_dilation(max_dilation: int) -> None:
    if not 0 <= max_dilation <= 31:
        raise LowerError(f"max_dilation must lie in 0..31, not {max_dilation}")
