"""The network of this design and its data: replace both by your own."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from qfx.train import Data


class Net(nn.Module):
    """Two convolutions and a classifier for 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.flatten(self.features(x), 1))


def data() -> Data:
    """Return scikit-learn's handwritten digits; every fifth image is for testing."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    test = torch.arange(len(labels)) % 5 == 0
    return Data(images[~test], labels[~test], images[test], labels[test])
