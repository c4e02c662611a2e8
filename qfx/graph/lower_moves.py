"""Lowering of layers that only move codes: channels chosen or joined, pixels cut, repeated or put in other places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qfx.errors import LowerError
from qfx.graph.moves import Steps
from qfx.graph.ops import Concat, DepthToSpace, Select, Slice, Upsample

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering


def concat(low: _Lowering, name: str, _: Any, inputs: list[str]) -> str:
    """Lower a Concat, two operands at a time."""
    if any(x in low.unflattened or low.is_permuted(x) for x in inputs):
        raise LowerError(f"the operands of '{name}' must not be flattened images: concatenate before the Flatten")
    result = inputs[0]
    for count, x in enumerate(inputs[1:], 2):
        result = low.add(name if count == len(inputs) else f"{name}.{count}", Concat(), result, x)
    return result


def select(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Select."""
    return low.add(name, Select(layer.channels), not_flattened(low, name, inputs[0]))


def chosen(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a layer that chooses channels by their number."""
    x = not_flattened(low, name, inputs[0])
    return reordered(low, name, layer.chosen(low.builder.type(x).channels), x)


def slices(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a Slice: fewer pixels first, so that fewer have their channels chosen."""
    x = not_flattened(low, name, inputs[0])
    shape = low.builder.type(x).shape
    if len(shape) == 3:
        signal = len(low.input_shape) == 3
        rows, columns = (slice(*steps).indices(size) for steps, size in zip(layer.places(signal), shape, strict=False))
        x = cut(low, f"{name}.places", rows, columns, x)
    return reordered(low, name, layer.chosen(shape[-1]), x)


def pixel_shuffle(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a PixelShuffle: channels in the graph's order, then to their places."""
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    ordered = reordered(low, f"{name}.order", layer.chosen(low.builder.type(x).channels), x)
    return low.add(name, DepthToSpace(layer.factor), ordered)


def upsample(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower an Upsample; of a signal, along its columns."""
    rows, columns = layer.factor
    return low.add(name, Upsample((rows if len(low.input_shape) == 4 else 1, columns)), inputs[0])


def pad_shortcut(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """Lower a PadShortcut: fewer pixels, then channels of zeros."""
    height, width, channels = low.builder.type(inputs[0]).shape
    fewer = cut(low, f"{name}.places", (0, height, layer.stride), (0, width, layer.stride), inputs[0])
    return reordered(low, name, layer.chosen(channels), fewer)


def reordered(low: _Lowering, name: str, channels: Sequence[int], x: str) -> str:
    """Choose channels, unless they are all, in order."""
    order = tuple(channels)
    return x if order == tuple(range(low.builder.type(x).channels)) else low.add(name, Select(order), x)


def cut(low: _Lowering, name: str, rows: Steps, columns: Steps, x: str) -> str:
    """Choose rows and columns, unless they are all."""
    height, width, _ = low.builder.type(x).shape
    return x if (rows, columns) == ((0, height, 1), (0, width, 1)) else low.add(name, Slice(rows, columns), x)


def not_flattened(low: _Lowering, name: str, x: str) -> str:
    """Return a tensor whose channels can be told apart; those of a flattened image cannot."""
    if x in low.unflattened or low.is_permuted(x):
        raise LowerError(f"'{name}' must not read a flattened image: choose channels before the Flatten")
    return x
