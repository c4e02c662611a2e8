"""ResNet-20 of Brevitas' layers with fixed-point quantizers: row A of designs/resnet20, BatchNorm left in float."""

from dataclasses import dataclass

import brevitas.nn as bnn
import torch
import torch.nn.functional as F
from brevitas import quant
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Kind:
    """Width of weights and activations, and how scales are found: from statistics, or by least squared error."""

    width: int = 4
    least_error: bool = False

    def conv(self, channels: int, filters: int, stride: int, width: int | None = None) -> nn.Module:
        return bnn.QuantConv2d(
            channels,
            filters,
            3,
            stride,
            1,
            bias=False,
            weight_quant=self._of("Int8WeightPerChannelFixedPoint"),
            weight_bit_width=width or self.width,
        )

    def linear(self) -> nn.Module:
        return bnn.QuantLinear(64, 10, True, weight_quant=self._of("Int8WeightPerChannelFixedPoint"))

    def signed(self) -> nn.Module:
        return bnn.QuantIdentity(act_quant=self._of("Int8ActPerTensorFixedPoint"))

    def unsigned(self) -> nn.Module:
        return bnn.QuantIdentity(act_quant=self._of("Uint8ActPerTensorFixedPoint"), bit_width=self.width)

    def relu(self, width: int | None = None) -> nn.Module:
        return bnn.QuantReLU(act_quant=self._of("Uint8ActPerTensorFixedPoint"), bit_width=width or self.width)

    def _of(self, name: str) -> type:
        return getattr(quant.fixed_point, f"{name}MSE" if self.least_error else name)


class _Block(nn.Module):
    def __init__(self, kind: Kind, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.enter = kind.unsigned()
        self.conv1, self.bn1 = kind.conv(channels, filters, stride), nn.BatchNorm2d(filters)
        self.middle = kind.relu()
        self.conv2, self.bn2 = kind.conv(filters, filters, 1), nn.BatchNorm2d(filters)
        self.a, self.b, self.out = kind.signed(), kind.signed(), kind.relu(8)
        self.stride, self.more = stride, (filters - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.middle(self.bn1(self.conv1(self.enter(x))))))
        step, more = self.stride, self.more
        x = F.pad(x[:, :, ::step, ::step], (0, 0, 0, 0, more, more)) if step > 1 else x
        return self.out(self.a(y) + self.b(x))


class BrevitasResNet(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores, with the keys of the public checkpoint."""

    def __init__(self, kind: Kind = Kind()) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).reshape(-1, 1, 1), persistent=False)
        self.enter = kind.signed()
        self.conv1, self.bn1, self.relu = kind.conv(3, 16, 1, 8), nn.BatchNorm2d(16), kind.relu(8)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                _Block(kind, *first), _Block(kind, first[1], first[1], 1), _Block(kind, first[1], first[1], 1)
            )
            for first in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.pooled, self.linear = kind.signed(), kind.linear()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.enter((x - self.mean) / self.std))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pooled(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))
