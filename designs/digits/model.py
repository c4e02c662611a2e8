"""Handwritten digits, 8x8: the data, and a small residual network with a deformable block."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from qfx.nn import SquareDeformConv2d
from qfx.train import Data


class Net(nn.Module):
    """A residual block, a deformable block, pooling, and a second stage: (N, 1, 8, 8) to ten scores."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels)
        self.deform = SquareDeformConv2d(channels, max_dilation=3)
        self.deform_norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(2)
        self.wide = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(2 * channels)
        self.average = nn.AdaptiveAvgPool2d(2)
        self.classify = nn.Linear(8 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.relu(self.depthwise_norm(self.depthwise(x)))
        x = F.relu(x + self.pointwise_norm(self.pointwise(y)))
        x = self.pool(F.relu(self.deform_norm(self.deform(x))))
        x = F.relu(self.wide_norm(self.wide(x)))
        return self.classify(torch.flatten(self.average(x), 1))


def digits() -> Data:
    """Return scikit-learn's 1,797 digits (Alpaydin and Kaynak, 1998), pixels 0..16; each fifth image is for testing."""
    source = load_digits()
    images = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(source.target)
    test = torch.arange(len(images)) % 5 == 0
    return Data(images[~test], labels[~test], images[test], labels[test])


def jitter(images: Tensor) -> Tensor:
    """Turn, scale and move each image a little; the pixels stay whole numbers from 0 to 16."""
    count = len(images)
    angle, stretch = (torch.rand(count) - 0.5) * 0.2, 1 + (torch.rand(count) - 0.5) * 0.1
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    first = torch.stack([angle.cos() / stretch, -angle.sin(), shift[:, 0]], 1)
    second = torch.stack([angle.sin(), angle.cos() / stretch, shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).round().clamp(0, 16)
