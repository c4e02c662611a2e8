"""ResNet-20 for CIFAR (He et al., 2015, section 4.2), with the keys of the public checkpoints, and its data."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn import Normalize, PadShortcut
from qfx.train import Data, cifar
from qfx.train import shift_and_mirror as shift_and_mirror

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        more = (filters - channels) // 2
        self.shortcut = PadShortcut(stride, more, more) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores: three stages of ``blocks`` blocks, 6 * blocks + 2 layers with weights."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.norm = Normalize([255 * m for m in MEAN], [255 * s for s in STD])
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(self.norm(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet20() -> nn.Module:
    """Return the network of this design."""
    return ResNet(3)


def resnet56() -> nn.Module:
    """Return the larger network of the same kind, a teacher."""
    return ResNet(9)


def data() -> Data:
    """Return CIFAR-10 from the folder that QFX_CIFAR10 names."""
    return cifar(10)


def held_out() -> Data:
    """Return CIFAR-10's training images alone, the last 5,000 of them for testing: to choose settings by."""
    return data().held_out(5000)


def _stage(channels: int, filters: int, stride: int, blocks: int) -> nn.Sequential:
    first = Block(channels, filters, stride)
    return nn.Sequential(first, *(Block(filters, filters, 1) for _ in range(blocks - 1)))
