"""ResNet-18 for ImageNet (He et al., 2015, table 1; "v1"), with the keys of torchvision's checkpoints, and its data."""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import Normalize
from qfx.train import Data, image_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 224
CROP = 224 / 256  # of the shorter side, as is usual when ImageNet is evaluated
LEAST_AREA = 0.35  # of an image that training sees at once


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
            if stride > 1 or channels != filters
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """(N, 3, H, W) bytes to scores: four stages of two blocks, of 64, 128, 256 and 512 channels; 18 layers."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.norm = Normalize([255 * m for m in MEAN], [255 * s for s in STD])
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.norm(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18() -> nn.Module:
    """Return the network of this design."""
    return ResNet()


def data() -> Data:
    """Return ImageNet from the folder that QFX_IMAGENET names: train/CLASS/*.JPEG and val/CLASS/*.JPEG."""
    place = os.environ.get("QFX_IMAGENET")
    if not place:
        raise TrainError(
            "the environment variable QFX_IMAGENET must name the folder of ImageNet, with train/CLASS/*.JPEG and "
            "val/CLASS/*.JPEG, but is not set (nothing is downloaded)"
        )
    return image_folder(Path(place), (SIDE, SIDE), crop=CROP)


def crop_and_mirror(images: Tensor) -> Tensor:
    """Take a part of each image, mirror half of them, and scale to the same size; pixels stay whole numbers.

    The part has LEAST_AREA to all of the area and proportions of 3/4 to 4/3 (Szegedy et al., 2015, section 6, who take
    8 % and more, of the whole image on disk; here it is of the middle that the test sees too).
    """
    count = len(images)
    area = LEAST_AREA + (1 - LEAST_AREA) * torch.rand(count)
    aspect = torch.exp((2 * torch.rand(count) - 1) * torch.log(torch.tensor(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = ((2 * torch.rand(count) - 1) * (1 - side) for side in (width, height))
    mirrored = torch.where(torch.rand(count) < 0.5, -width, width)
    none = torch.zeros(count)
    places = torch.stack([torch.stack([mirrored, none, x], 1), torch.stack([none, height, y], 1)], 1)
    grid = F.affine_grid(places, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).round().clamp(0, 255)


def _stage(channels: int, filters: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(channels, filters, stride), BasicBlock(filters, filters, 1))
