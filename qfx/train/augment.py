"""Augmentation: other images that show the same, for training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.errors import TrainError, line_in, said

Augment = Callable[..., Any]


def shift_and_mirror(images: Tensor, pixels: int = 4) -> Tensor:
    """Move each image (N, C, H, W) by up to ``pixels``, zeros behind it, and mirror half of them.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4)
    top, left = torch.randint(2 * pixels + 1, (2, count, 1))
    columns = torch.arange(width).expand(count, width)
    columns = left + torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    rows = top + torch.arange(height)
    return padded.permute(0, 2, 3, 1)[
        torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)


def augmented(augment: Augment, x: Tensor, y: Tensor, with_targets: bool) -> tuple[Tensor, Tensor]:
    """Return inputs as a user's function changes them, and targets, where it is to change them too.

    Raises:
        TrainError: it raises something, or returns no batch of as many; the function is named.
    """
    name = getattr(augment, "__name__", type(augment).__name__)
    file = Path(augment.__code__.co_filename) if hasattr(augment, "__code__") else None
    asked = "return inputs and targets like those" if with_targets else "return inputs like those"
    asked = f"augment {name} must {asked} that it is given, {_kind(x)}{f' and {_kind(y)}' if with_targets else ''}"
    try:
        found = augment(x, y) if with_targets else (augment(x), y)
    except Exception as error:
        place = f"{file}{line_in(error, file)}: " if file else ""
        raise TrainError(f"{place}{asked}, but {said(error)}") from error
    place = f"{file}: " if file else ""
    if not isinstance(found, tuple) or len(found) != 2:
        raise TrainError(f"{place}{asked}, not {_kind(found)}")
    for before, after in zip((x, y), found, strict=True):
        if not isinstance(after, Tensor) or _batch(after) != _batch(before):
            raise TrainError(f"{place}{asked}, not {_kind(after)}")
    return found


def _batch(x: Tensor) -> tuple[Any, ...]:
    """What augmentation must leave as it is: a batch may become larger or smaller images, or have more boxes."""
    return x.shape[:1], x.dim(), x.dtype


def _kind(x: object) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" if isinstance(x, Tensor) else type(x).__name__
