"""The geometry that convolution and pooling share: which input pixels make which output pixel."""

from collections.abc import Iterator

import numpy as np

from qfx.errors import GraphError

Pair = tuple[int, int]  # vertical, horizontal
Quad = tuple[int, int, int, int]  # top, bottom, left, right


def check_window(kernel: Pair, stride: Pair, padding: Quad, dilation: Pair) -> None:
    """Refuse kernels, strides and dilations below 1 and negative padding."""
    for name, values, least in (
        ("kernel", kernel, 1),
        ("stride", stride, 1),
        ("dilation", dilation, 1),
        ("padding", padding, 0),
    ):
        if any(value < least for value in values):
            raise GraphError(f"{name} must be at least {least} in each direction, not {values}")


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Quad, dilation: Pair = (1, 1)) -> Pair:
    """Return height and width of the result: ``floor((size + padding - dilation*(kernel-1) - 1) / stride) + 1``."""
    check_window(kernel, stride, padding, dilation)
    result = []
    for axis in range(2):
        padded = size[axis] + padding[2 * axis] + padding[2 * axis + 1]
        room = padded - dilation[axis] * (kernel[axis] - 1) - 1
        if room < 0:
            raise GraphError(
                f"a window of {kernel} dilated by {dilation} must fit the padded image, not exceed {size} + {padding}"
            )
        result.append(room // stride[axis] + 1)
    return result[0], result[1]


def taps(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Quad, dilation: Pair = (1, 1), fill: int = 0
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(ky, kx, pixels)`` for each tap; ``pixels`` of shape (N, out height, out width, C) meets that tap.

    Args:
        x: codes of shape (N, H, W, C).
        fill: the code of the padding.
    """
    height, width = output_size(x.shape[1:3], kernel, stride, padding, dilation)
    top, bottom, left, right = padding
    if any(padding):
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    for ky in range(kernel[0]):
        rows = slice(ky * dilation[0], ky * dilation[0] + stride[0] * (height - 1) + 1, stride[0])
        for kx in range(kernel[1]):
            columns = slice(kx * dilation[1], kx * dilation[1] + stride[1] * (width - 1) + 1, stride[1])
            yield ky, kx, x[:, rows, columns, :]
