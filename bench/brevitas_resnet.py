"""ResNet-20 of Brevitas' layers with fixed-point quantizers: 4-bit weights and activations, the rest 8 bits."""

import brevitas.nn as bnn
import torch
import torch.nn.functional as F
from brevitas.quant import Int8ActPerTensorFixedPoint, Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from torch import Tensor, nn


def _conv(channels: int, filters: int, stride: int, width: int = 4) -> nn.Module:
    return bnn.QuantConv2d(
        channels,
        filters,
        3,
        stride,
        1,
        bias=False,
        weight_quant=Int8WeightPerTensorFixedPoint,
        weight_bit_width=width,
        weight_scaling_per_output_channel=True,
    )


def _identity() -> nn.Module:
    return bnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint)


def _relu(width: int) -> nn.Module:
    return bnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=width)


class _Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.enter = bnn.QuantIdentity(act_quant=Uint8ActPerTensorFixedPoint, bit_width=4)
        self.conv1, self.norm1 = _conv(channels, filters, stride), nn.BatchNorm2d(filters)
        self.middle = _relu(4)
        self.conv2, self.norm2 = _conv(filters, filters, 1), nn.BatchNorm2d(filters)
        self.a, self.b, self.out = _identity(), _identity(), _relu(8)
        self.stride, self.more = stride, (filters - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.middle(self.norm1(self.conv1(self.enter(x))))))
        step, more = self.stride, self.more
        x = F.pad(x[:, :, ::step, ::step], (0, 0, 0, 0, more, more)) if step > 1 else x
        return self.out(self.a(y) + self.b(x))


class BrevitasResNet(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores; BatchNorm stays in float."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = _identity()
        self.conv1, self.norm1, self.relu = _conv(3, 16, 1, 8), nn.BatchNorm2d(16), _relu(8)
        shapes = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
        self.blocks = nn.Sequential(*(_Block(*shape) for shape in shapes))
        self.pooled = _identity()
        self.linear = bnn.QuantLinear(
            64, 10, True, weight_quant=Int8WeightPerTensorFixedPoint, weight_scaling_per_output_channel=True
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(self.enter(x / 255 - 0.5))))
        return self.linear(self.pooled(torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1)))
