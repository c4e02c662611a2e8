"""What the processes of one training (torch.distributed) agree on; alone, each function is the identity."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_Value = TypeVar("_Value")
_alone = False


def ranks() -> int:
    """The number of processes that train together."""
    together = dist.is_available() and dist.is_initialized() and not _alone
    return dist.get_world_size() if together else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


@contextmanager
def alone() -> Iterator[None]:
    """Let this rank compute without the others meanwhile."""
    global _alone
    _alone, before = True, _alone
    try:
        yield
    finally:
        _alone = before


def gather(value: _Value) -> list[_Value]:
    """Return what each rank gives, in the order of ranks."""
    if ranks() == 1:
        return [value]
    found: list[_Value | None] = [None] * ranks()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]  # every place is filled


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of what all ranks' losses ask for."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad


def moments(mean: Tensor, var: Tensor, count: int) -> tuple[Tensor, Tensor, int]:
    """Return mean, variance (uncorrected) and count of the values of all ranks from those of each."""
    if ranks() == 1:
        return mean, var, count
    here = torch.full_like(mean[:1], count)
    everywhere = _Sum.apply(here)
    share = here / everywhere
    common = _Sum.apply(mean * share)
    return common, _Sum.apply((var + (mean - common) ** 2) * share), int(everywhere.item())
