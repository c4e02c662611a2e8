"""Layers of torch that convert knows when they are written in other calls, exactly."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def glu(input: Any, dim: int = -1) -> Any:
    """``a * sigmoid(b)``, a and b the halves of the input."""
    a, b = torch.chunk(input, 2, dim)
    return a * torch.sigmoid(b)


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """``y[c*r*r + i*r + j, h, w] = x[c, h*r + i, w*r + j]``: slices side by side, and their channels in order."""
    factor, channels = downscale_factor, range(input.shape[1])
    places = [(i, j) for i in range(factor) for j in range(factor)]
    parts = torch.cat([input[:, :, i::factor, j::factor] for i, j in places], 1)
    return parts[:, [part * len(channels) + c for c in channels for part in range(factor**2)]]


MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.GLU: lambda layer, input: glu(input, layer.dim),
    nn.PixelUnshuffle: lambda layer, input: pixel_unshuffle(input, layer.downscale_factor),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {"glu": glu, "pixel_unshuffle": pixel_unshuffle}
