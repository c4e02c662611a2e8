"""Networks that the tests of qfx.nn share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn import Normalize, SquareDeformConv2d


def settled(net: nn.Module) -> nn.Module:
    """The network itself, its BatchNorms with running statistics that are not the initial ones."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.fill_(2.0**-10)
    return net


class Block(nn.Module):
    """A residual block: an ordinary and a depthwise convolution, one ReLU module called twice, a plain +."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + x)


class Net(nn.Module):
    """Every layer and functional call that convert knows, on 1x8x8 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Normalize([4.0], [4.0])
        self.stem = nn.Conv2d(1, 8, 3, padding="same")
        self.block = Block(8)
        self.deform = SquareDeformConv2d(8, 3, bias=True)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.0)
        self.skip = nn.Identity()
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(self.norm(x)))
        x = F.max_pool2d(self.block(x), 3, 2, 1)
        x = torch.relu(self.bn(self.deform(x)))
        x = self.skip(F.adaptive_avg_pool2d(x, (2, 2)))
        return self.fc(self.drop(x.view(x.size(0), -1)))


RECIPE = {
    "default": {"input": "u5.0", "weight": 4, "activation": 4},
    "layers": {
        "block.conv2": {"weight": {"width": 8, "digits": {"k": 2}}},
        "block.bn1": {"constant": {"digits": {"k": 2, "signed": True}}},
    },
}


def digits_like(count: int, seed: int) -> Tensor:
    """Images of integers 0..16, (count, 1, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 17, (count, 1, 8, 8), generator=generator).float()
