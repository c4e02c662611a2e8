"""Learned shifts of channels, and the activation that they make of a PReLU (ReActNet, Liu et al., 2020, section 4.2)."""

import numpy as np
import torch
from torch import Tensor, nn

from qfx.fixed import Fixed
from qfx.nn.barrier import keep
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.geometry import over_channels
from qfx.nn.integer import exact_affine
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer, Spec


class LearnedShift(nn.Module):
    """``y = x + bias[c]`` in float, learned. ``qfx.convert`` makes it a Shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + over_channels(self.bias, x)


class Shift(nn.Module):
    """``y = output_quant(x + shift_quant(bias[c]))``: a LearnedShift in fixed point, with its bias."""

    def __init__(self, layer: LearnedShift, *, constant_spec: Spec = CONSTANT, output_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.bias = layer.bias
        self.shift_quant = Quantizer(constant_spec, len(layer.bias), constant=True)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift_quant(self.bias)
        if self.exact:
            return exact_affine(x, torch.ones_like(shift), shift, self.output_quant)
        return self.output_quant(x + over_channels(keep(shift.to(x.dtype)), x))

    def constants(self) -> dict[str, Codes]:
        """Return ``scale``, which is 1, and ``shift``, each (channels,)."""
        ones = np.ones(len(self.bias), dtype=np.int64)
        return {"scale": Codes(ones, Fixed(2, 0), 1), "shift": quantized_codes(self.shift_quant, self.bias, (0,))}


class RPReLU(nn.Module):
    """``y = prelu(x + shift_x[c]) + shift_y[c]`` with a slope for each channel, of layers that convert knows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_x, self.shift_y = LearnedShift(channels), LearnedShift(channels)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.shift_y(self.prelu(self.shift_x(x)))
