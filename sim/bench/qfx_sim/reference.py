"""Direct integer loops over images, channels last: what the benches of the window parts compare with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]  # top, bottom, left, right


def convolve(
    image: Codes, weight: Codes, bias: Codes, *, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Codes:
    """Convolution of (H, W, CI) with (KH, KW, CI/groups, CO): exact integers."""
    ci, co = weight.shape[2], weight.shape[3] // groups

    def pixel(patch: Codes) -> Codes:
        parts = [
            np.tensordot(patch[..., g * ci : (g + 1) * ci], weight[..., g * co : (g + 1) * co], axes=3)
            for g in range(groups)
        ]
        return np.concatenate(parts) + bias

    return _walk(image, weight.shape[:2], pixel, stride=stride, padding=padding, dilation=dilation, fill=0)


def depthwise(image: Codes, weight: Codes, bias: Codes, *, stride: Pair, padding: Padding, dilation: Pair) -> Codes:
    """Channel by channel convolution of (H, W, C) with (KH, KW, C)."""

    def pixel(patch: Codes) -> Codes:
        return (patch * weight).sum(axis=(0, 1)) + bias

    return _walk(image, weight.shape[:2], pixel, stride=stride, padding=padding, dilation=dilation, fill=0)


def deform(image: Codes, offset: Codes, weight: Codes, bias: Codes) -> Codes:
    """Square deformable 3x3: the tap (ky, kx) of a pixel lies at centre + (ky-1, kx-1) * offset; 0 outside."""
    height, width, channels = image.shape
    result = np.empty((height, width, channels), dtype=np.int64)
    for y, x in np.ndindex(height, width):
        d = int(offset[y, x])
        total = bias.astype(np.int64).copy()
        for ky, kx in np.ndindex(3, 3):
            row, col = y + (ky - 1) * d, x + (kx - 1) * d
            if 0 <= row < height and 0 <= col < width:
                total += image[row, col] * weight[ky, kx]
        result[y, x] = total
    return result


def pool(
    image: Codes, reduce: Callable[..., Codes], *, kernel: Pair, stride: Pair, padding: Padding, fill: int
) -> Codes:
    """Reduce each window with ``np.max`` or ``np.sum``; ``fill`` stands outside the image."""

    def pixel(patch: Codes) -> Codes:
        return reduce(patch, axis=(0, 1))

    return _walk(image, kernel, pixel, stride=stride, padding=padding, dilation=(1, 1), fill=fill)


def _walk(
    image: Codes,
    kernel: Pair,
    pixel: Callable[[Codes], Codes],
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    fill: int,
) -> Codes:
    """Apply ``pixel`` to each window of the padded image."""
    top, bottom, left, right = padding
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
    rows = range(0, padded.shape[0] - reach[0], stride[0])
    cols = range(0, padded.shape[1] - reach[1], stride[1])
    result = [
        [pixel(padded[y : y + reach[0] + 1 : dilation[0], x : x + reach[1] + 1 : dilation[1]]) for x in cols]
        for y in rows
    ]
    return np.array(result, dtype=np.int64)
