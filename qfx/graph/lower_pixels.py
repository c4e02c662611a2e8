"""Features that become the channels of a pixel: the layers that make them are lowered as layers of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qfx.errors import LowerError

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering

Shape = tuple[int, ...]


def unflattened(low: _Lowering, name: str, x: str, for_linears: bool) -> str:
    """Return the image that a Flatten leaves as it is; of more than one pixel only Linears may be made."""
    height, width, _ = (1, 1, *low.builder.type(x).shape)[-3:]
    if height * width > 1 and not for_linears:
        raise LowerError(
            f"features of '{name}' must be read by a Linear, with nothing but activations between, since an image is "
            "made of what comes of them"
        )
    return x


def unflatten(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an Unflatten: what it reads is an image of one pixel already."""
    if image_of(low, name, inputs[0])[:2] != (1, 1):
        raise LowerError(f"'{name}' must not read a flattened image: put a Linear between")
    return inputs[0]


def image_of(low: _Lowering, name: str, x: str) -> Shape:
    """Return the shape of the image that features are kept as; the network's input may not be features then."""
    shape = low.builder.type(x).shape
    if len(shape) == 1:
        raise LowerError(f"'{name}' must read features that come from an image, by a Flatten, not the network's input")
    return shape


def window_of(weight: Any, image: Shape) -> Any:
    """Return the weight (inputs, outputs) of a Linear as that of a convolution with one window, the image."""
    return replace(weight, codes=weight.codes.reshape(*image, -1))
