"""Sizes along the two axes of an image, and signals (N, C, L) as images of height 1."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]  # vertical, horizontal
Quad = tuple[int, int, int, int]  # top, bottom, left, right
NO_PADDING: Quad = (0, 0, 0, 0)


def pair(value: int | tuple[int, ...], of_height: int = 1) -> Pair:
    """Return one number for each axis; a tuple of one is a signal's, to which the height adds ``of_height``."""
    if isinstance(value, int):
        return value, value
    return (of_height, value[0]) if len(value) == 1 else (value[0], value[1])


def quad(value: int | Pair | Quad) -> Quad:
    """Return padding for each side."""
    if isinstance(value, tuple) and len(value) == 4:
        return value
    vertical, horizontal = pair(value)
    return vertical, vertical, horizontal, horizontal


def added(a: Quad, b: Quad) -> Quad:
    """Return one padding around another."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def as_image(x: Tensor) -> Tensor:
    """Return a signal, or its weights, as an image of height 1; an image as it is."""
    return x.unsqueeze(2) if x.dim() == 3 else x


def shaped_like(image: Tensor, x: Tensor) -> Tensor:
    """Return what was computed from ``as_image(x)`` with the axes of ``x``."""
    return image.squeeze(2) if x.dim() == 3 else image


def padded(x: Tensor, padding: Quad, most: Pair | None = None, fill: float = 0.0) -> tuple[Tensor, Pair]:
    """Return ``x`` with the padding that torch's operators cannot do, and what is left for them to do.

    They pad both sides alike, and pooling no more than ``most``.
    """
    top, bottom, left, right = padding
    if (top, left) == (bottom, right) and (most is None or (top <= most[0] and left <= most[1])):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=fill), (0, 0)


def inside(kernel: Pair, padding: Quad) -> bool:
    """Return whether every window of a pool meets a pixel of its image."""
    return max(padding[:2]) < kernel[0] and max(padding[2:]) < kernel[1]


def beyond(size: tuple[int, ...], kernel: Pair, stride: Pair, padding: Quad) -> Quad:
    """Return the padding that lets the last windows of a pool with ceil_mode end where torch lets them end."""

    def along(axis: int) -> int:
        before, after = padding[2 * axis : 2 * axis + 2]
        length = size[axis] + before + after
        windows = -(-(length - kernel[axis]) // stride[axis]) + 1
        windows -= (windows - 1) * stride[axis] >= size[axis] + before  # none begins behind the image
        return max((windows - 1) * stride[axis] + kernel[axis] - length, 0)

    return 0, along(0), 0, along(1)


def pool_window(layer: Any, zeros: Quad) -> tuple[Pair, Pair, Quad]:
    """Return kernel, stride and padding of a pool of torch's, with ``zeros`` before it."""

    def along(value: Any, of_height: int) -> Pair:
        signal = isinstance(layer, nn.MaxPool1d | nn.AvgPool1d) and isinstance(value, int)
        return pair((value,) if signal else value, of_height)

    return along(layer.kernel_size, 1), along(layer.stride, 1), added(quad(along(layer.padding, 0)), zeros)
