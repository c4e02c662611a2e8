"""The training loop: one for the float network and for the fixed-point one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import freeze_bn, freeze_formats, param_groups
from qfx.train.data import Data
from qfx.train.watchdog import first_diverged

Augment = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """How one network is trained."""

    epochs: int
    lr: float  # the highest: it rises in the first 5 % of the steps and falls as a cosine to 0
    batch: int = 64
    seed: int = 0
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0  # Szegedy et al., 2016, section 7
    frozen: float = 0.2  # the last part of the steps, in which BatchNorm statistics and binary points stand still


def fit(
    model: nn.Module,
    data: Data,
    settings: Settings,
    progress: Callable[[float, str], None] = lambda done, doing: None,
    augment: Augment | None = None,
) -> nn.Module:
    """Train ``model`` as a classifier on the training set and return it in evaluation mode.

    Everything random depends on the seed alone. Fixed-point layers learn their binary points at their own rate.

    Raises:
        TrainError: the loss is no longer finite; the layer where that began is named.
    """
    torch.manual_seed(settings.seed)  # augmentation, dropout
    order = torch.Generator().manual_seed(settings.seed)
    per_epoch = max(len(data.train_x) // settings.batch, 1)
    steps = per_epoch * settings.epochs
    optimizer = torch.optim.AdamW(param_groups(model, settings.lr, settings.weight_decay))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps, pct_start=0.05
    )
    model.train()
    step = 0
    for epoch in range(settings.epochs):
        shuffled = torch.randperm(len(data.train_x), generator=order)
        total = 0.0
        for chosen in shuffled[: per_epoch * settings.batch].split(settings.batch):
            if step == int(steps * (1 - settings.frozen)):
                freeze_bn(model)
                freeze_formats(model)
            loss = _loss(model, data.train_x[chosen], data.train_y[chosen], settings.label_smoothing, augment)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            schedule.step()
            step += 1
        progress((epoch + 1) / settings.epochs, f"epoch {epoch + 1}/{settings.epochs}, loss {total / per_epoch:.3f}")
    return model.eval()


def _loss(model: nn.Module, x: Tensor, y: Tensor, smoothing: float, augment: Augment | None) -> Tensor:
    x = augment(x) if augment else x
    loss = F.cross_entropy(model(x), y, label_smoothing=smoothing)
    if not torch.isfinite(loss):
        raise TrainError(f"the loss must stay finite, not {loss.item()}; {first_diverged(model, x)}")
    return loss


@torch.no_grad()
def accuracy(evaluate: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> float:
    """Return how many inputs, in percent, get the highest score at their label; ties go to the first."""
    right = sum(int((evaluate(a).argmax(1) == b).sum()) for a, b in zip(x.split(512), y.split(512), strict=True))
    return 100.0 * right / len(x)
