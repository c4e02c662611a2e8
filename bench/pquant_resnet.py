"""ResNet-20 of PQuantML's layers (its torch side, without pruning) with learned widths, which start at the recipe's.

The widths are those of its high granularity quantization, by its default one for each tensor; BatchNorm and the sum
are quantized too. It runs eagerly: torch.compile (2.13) had not finished its first step after 400 s on a busy core.
"""

import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

os.environ["KERAS_BACKEND"] = "torch"

import pquant
from pquant.layers import PQAvgPool2d, PQBatchNorm2d, PQConv2d, PQDense
from pquant.quantizer import Quantizer

CONFIG = pquant.pdp_config()
CONFIG.pruning_parameters.enable_pruning = False
CONFIG.quantization_parameters.use_high_granularity_quantization = True
Format = tuple[float, float, float]  # sign, integer and fraction bits


def _data(width: int, signed: bool) -> Format:
    return float(signed), 1.0 + signed, float(width - 1 - 2 * signed)


def _weight(width: int, inputs: int) -> Format:
    """Return a format whose range is that of initial weights, ``1 / sqrt(inputs)``."""
    integer = math.ceil(-math.log2(inputs) / 2)
    return 1.0, float(integer), float(width - 1 - integer)


def _conv(channels: int, filters: int, stride: int, entry: Format, width: int) -> nn.Module:
    formats = {"in_quant_bits": entry, "weight_quant_bits": _weight(width, 9 * channels)}
    conv = PQConv2d(CONFIG, channels, filters, 3, stride, 1, bias=False, **formats)
    byte = _data(8, True)
    formats = {"in_quant_bits": byte, "weight_quant_bits": byte, "bias_quant_bits": byte}
    return nn.Sequential(conv, PQBatchNorm2d(CONFIG, filters, **formats))


def _quantizer(signed: bool) -> Quantizer:
    k, i, f = _data(8, signed)
    return Quantizer(k, i, f, "SAT", "RND", is_heterogeneous=True, is_data=True, hgq_gamma=3e-4)


class _Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, filters, stride, _data(4, False), 4)
        self.conv2 = _conv(filters, filters, 1, _data(4, False), 4)
        self.a, self.b = _quantizer(True), _quantizer(False)
        self.stride, self.more = stride, (filters - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        step, more = self.stride, self.more
        x = F.pad(x[:, :, ::step, ::step], (0, 0, 0, 0, more, more)) if step > 1 else x
        return F.relu(self.a(y) + self.b(x))


class PquantResNet(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores; ``penalty`` is the cost of the widths, which PQuantML adds to the loss."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.conv1 = _conv(3, 16, 1, _data(8, True), 8)
        shapes = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
        self.blocks = nn.Sequential(*(_Block(*shape) for shape in shapes))
        self.pool = PQAvgPool2d(CONFIG, 8, in_quant_bits=_data(8, False))
        weight, entry = _weight(8, 64), _data(8, False)
        self.linear = PQDense(CONFIG, 64, 10, in_quant_bits=entry, weight_quant_bits=weight, bias_quant_bits=weight)
        self(images)  # the layers make their quantizers when they see their first input
        for layer in self.modules():
            if hasattr(layer, "post_pre_train_function"):
                layer.post_pre_train_function()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x / 255 - 0.5))
        return self.linear(torch.flatten(self.pool(self.blocks(x)), 1))

    def penalty(self) -> Tensor:
        return pquant.get_model_losses(self, torch.zeros(()))
