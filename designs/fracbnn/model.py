"""FracBNN for CIFAR-10 (Zhang et al., 2021): ResNet-20 of binary weights and 1.4-bit activations, and its data."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn import PrecisionGatedConv2d, Thermometer
from qfx.train import Data, cifar
from qfx.train import shift_and_mirror as shift_and_mirror

# round(x / 8) > j, ties to even, for j = 0..31: what the published network takes for the digits of a byte
THRESHOLDS = [8 * j + (4 if j % 2 else 5) for j in range(32)]


class Shift(nn.Module):
    """``y = x + bias[c]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(1, -1, 1, 1)


class RPReLU(nn.Module):
    """``y = prelu(x + shift_x[c]) + shift_y[c]`` with a slope for each channel (Liu et al., ReActNet, 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_x, self.prelu, self.shift_y = Shift(channels), nn.PReLU(channels), Shift(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.shift_y(self.prelu(self.shift_x(x)))


class Block(nn.Module):
    """Two gated convolutions, each with a shortcut around it; every sum has a BatchNorm of its own."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = PrecisionGatedConv2d(channels, filters, 3, stride, 1)
        self.bn1, self.rprelu1, self.bn3 = nn.BatchNorm2d(filters), RPReLU(filters), nn.BatchNorm2d(filters)
        self.conv2 = PrecisionGatedConv2d(filters, filters, 3, 1, 1)
        self.bn2, self.rprelu2, self.bn4 = nn.BatchNorm2d(filters), RPReLU(filters), nn.BatchNorm2d(filters)
        self.shrinks = stride > 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.rprelu1(self.bn1(self.conv1(x)))
        if self.shrinks:
            x = F.avg_pool2d(x, 2)
            x = torch.cat((x, x), 1)
        x = self.bn3(y + x)
        return self.bn4(self.rprelu2(self.bn2(self.conv2(x))) + x)


class FracBNN(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores: three stages of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Thermometer(THRESHOLDS)
        self.conv1 = nn.Conv2d(3 * len(THRESHOLDS), 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1)
        self.layer2 = _stage(16, 32, 2)
        self.layer3 = _stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(self.encoder(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.avg_pool2d(x, 8), 1))


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def fracbnn() -> nn.Module:
    """Return the network of this design."""
    return FracBNN()


@torch.no_grad()
def published(path: Path) -> nn.Module:
    """Return the network with the arrays of the published checkpoint, an npz file, in evaluation mode.

    There each BatchNorm is a factor and a summand, and the levels of a gated convolution are thirds; here they are
    integers, so that threshold and result are three times as large, and the factor behind it a third.
    """
    net = FracBNN().eval()
    with np.load(path, allow_pickle=False) as arrays:
        given = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    state = {key: value for key, value in net.state_dict().items() if key.rpartition(".")[2] not in _STATISTICS}
    if given.keys() != {key.replace(".", "_") for key in state}:
        raise ValueError(f"{path} must hold the {len(state)} arrays of the published FracBNN, and no others")
    for key, value in state.items():
        value.copy_(given[key.replace(".", "_")])
    for path_, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(1 - layer.eps)  # with a mean of 0: BatchNorm is its weight and bias
        elif isinstance(layer, nn.Conv2d | PrecisionGatedConv2d):
            layer.weight.copy_(torch.where(layer.weight > 0, 1.0, -1.0))
        if isinstance(layer, PrecisionGatedConv2d):
            layer.threshold.mul_(3)
            net.get_submodule(path_.replace("conv", "bn")).weight.div_(3)
    return net


def data() -> Data:
    """Return CIFAR-10 from the folder that QFX_CIFAR10 names."""
    return cifar(10)


def held_out() -> Data:
    """Return CIFAR-10's training images alone, the last 5,000 of them for testing: to choose settings by."""
    return data().held_out(5000)


def _stage(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(channels, filters, stride), Block(filters, filters, 1), Block(filters, filters, 1))
