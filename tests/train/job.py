"""A small fixed-point training that uses everything of the loop; as a program it trains into a folder."""

import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qfx.nn as qnn
from qfx.train import Data, Schedule, Settings, fit

SETTINGS = Settings(
    epochs=6,
    lr=0.01,
    batch=16,
    seed=3,
    schedule=Schedule("step", 0.1, (3, 5), 0.3),
    accumulate=2,
    precision="bfloat16",
    clip=1.0,
    ema=0.9,
    checkpoint=2,
)


def data(images: int = 100) -> Data:
    """Random images; the label says whether the last row is brighter than the first."""
    x = torch.randint(0, 16, (images, 1, 6, 6), generator=torch.Generator().manual_seed(1)).float()
    y = (x[:, 0, -1].sum(1) > x[:, 0, 0].sum(1)).long()
    return Data(x, y, x, y)


def network(images: torch.Tensor | None = None) -> nn.Module:
    """A converted and calibrated network, the same one each time."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(64, 2)
    )
    images = data().train_x[:64] if images is None else images
    recipe = {"default": {"weight": 3, "activation": 3, "input": "u4.0"}}
    model = qnn.calibrate(qnn.convert(net, recipe, images[:2]).eval(), [images])
    for quantizer in qnn.quantizers(model).values():
        if quantizer.learned and quantizer.axis == 1:
            quantizer.start_at(
                quantizer.frac_now + 1.55, quantizer.signed
            )  # clips, and is near the next: training moves it
    return model


def noisy(x: torch.Tensor) -> torch.Tensor:
    """Shift and scale by random numbers of torch, numpy and Python."""
    x = x + torch.rand(len(x), 1, 1, 1)
    return x * (1 + 0.1 * random.random()) + 0.1 * float(np.random.rand())


def slow(x: torch.Tensor) -> torch.Tensor:
    """The same, with time for a signal."""
    time.sleep(0.02)
    return noisy(x)


def train(folder: Path | None, augment: object = noisy, **options: object) -> nn.Module:
    """Train from the same seeds each time."""
    torch.set_num_threads(1)
    random.seed(5)
    np.random.seed(5)
    return fit(network(), data(), SETTINGS, augment=augment, folder=folder, **options)  # type: ignore[arg-type]


if __name__ == "__main__":

    def tell(done: float, doing: str) -> None:
        sys.stdout.write(f"{doing}\n")
        sys.stdout.flush()

    train(Path(sys.argv[1]), slow, progress=tell)
