"""Layers that only move values, exact on the codes as they are: to other channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qfx.errors import LowerError


class Select(nn.Module):
    """``y[:, i] = x[:, channels[i]]``, and 0 where ``channels[i]`` is -1; a channel may be taken often, or never."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(int(channel) for channel in channels)
        if max(self.channels, default=-1) < 0 or min(self.channels) < -1:
            raise LowerError(f"channels must be numbers from 0 on, or -1 for zeros, not {self.channels}")

    def forward(self, x: Tensor) -> Tensor:
        index = torch.tensor(self.channels, device=x.device)
        zeros = (index < 0).reshape(-1, *[1] * (x.dim() - 2))
        return x.index_select(1, index.clamp(0)).masked_fill(zeros, 0.0)

    def extra_repr(self) -> str:
        return f"channels={self.channels}"
