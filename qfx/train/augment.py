"""Augmentation: other images that show the same, for training."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
