"""Float arithmetic in which sums of products are exact: torch's own short cuts off, convolutions without transforms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qfx.nn.geometry import Pair

FLOAT32_BITS = 24
FLOAT64_BITS = 53
INT64_BITS = 62
UNFOLDED = 1 << 26  # elements of an unfolded image that are held at once

_SHORT_CUTS = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
)


@contextmanager
def plain_floats(device: str) -> Iterator[None]:
    """Multiply float32 as float32 in the block: no autocast, TF32, bfloat16 or Winograd, whatever is set outside."""
    before = [backend.fp32_precision for backend in _SHORT_CUTS]
    try:
        for backend in _SHORT_CUTS:
            backend.fp32_precision = "ieee"
        with torch.autocast(device, enabled=False), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        for backend, precision in zip(_SHORT_CUTS, before, strict=True):
            backend.fp32_precision = precision


def convolution(device: str) -> Callable[..., Tensor]:
    """Return the ``conv2d`` that only adds products on a type of device: torch's on a CPU, else one of matrices.

    cuDNN may choose Winograd's transforms, which divide: with them float32 is not exact, whatever the bound.
    """
    return F.conv2d if device == "cpu" else conv2d_of_matrices


def conv2d_of_matrices(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """Return ``F.conv2d`` of the same arguments: the windows side by side (unfold), times the weights as a matrix."""
    filters, _, *kernel = weight.shape
    matrix = weight.reshape(groups, filters // groups, -1)

    def product(images: Tensor) -> Tensor:
        windows = F.unfold(images, kernel, dilation, padding, stride)
        windows = windows.reshape(len(images), groups, -1, windows.shape[-1])
        return (matrix @ windows).flatten(1, 2)

    size = x[0].numel() * kernel[0] * kernel[1]
    rows = torch.cat([product(images) for images in x.split(max(1, UNFOLDED // size))])
    result = rows.unflatten(-1, _size(x, kernel, stride, padding, dilation))
    return result if bias is None else result + bias.reshape(1, -1, 1, 1)


def _size(x: Tensor, kernel: list[int], stride: Any, padding: Any, dilation: Any) -> Pair:
    """Height and width of a convolution's result."""
    pairs = [(value, value) if isinstance(value, int) else value for value in (stride, padding, dilation)]
    height, width = (
        (size + 2 * pad - apart * (taps - 1) - 1) // step + 1
        for size, taps, step, pad, apart in zip(x.shape[2:], kernel, *pairs, strict=True)
    )
    return height, width
