"""The learning rate of each step."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from qfx.train.settings import Schedule


def scheduler(optimizer: Optimizer, schedule: Schedule, epochs: int, per_epoch: int) -> Any:
    """Return torch's scheduler, to be stepped after each step of the optimizer, whose rates are the highest."""
    steps = epochs * per_epoch
    if schedule.kind == "cosine":
        rises = schedule.warmup * steps != 1  # torch divides by the steps of the rise less one
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=schedule.warmup if rises else 0.0,
        )
    rise = max(int(schedule.warmup * steps), 1)

    def part(step: int) -> float:
        passed = sum(step >= epoch * per_epoch for epoch in schedule.milestones)
        return float(min((step + 1) / rise, 1.0) * schedule.factor**passed)

    return LambdaLR(optimizer, part)
