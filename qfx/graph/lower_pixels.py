"""Features that become the channels of a pixel: the layers that make them are lowered as layers of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import fx, nn

import qfx.nn as qnn
from qfx.errors import LowerError

if TYPE_CHECKING:
    from qfx.graph.lower import _Lowering
    from qfx.nn.constants import Codes

Shape = tuple[int, ...]


def kept_images(graph: fx.Graph, modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    """Return the nodes of features, (N, C) in torch, that stay an image since an Unflatten makes one of them.

    They are what it reads, back to the Flatten before, which then does nothing: a Linear on the way is a convolution
    whose window is the image. What else reads them stays an image too, up to the next Linear, which flattens it.
    """
    found: set[fx.Node] = set()
    waiting = [source for node in graph.nodes if _is(node, qnn.Unflatten, modules) for source in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in found or node.op == "output":
            continue
        found.add(node)
        if not _is(node, qnn.Flatten | nn.Flatten, modules):
            waiting += node.all_input_nodes
        waiting += [user for user in node.users if not _is(user, qnn.Linear | qnn.Unflatten, modules)]
    return frozenset(found)


def unflattened(low: _Lowering, name: str, x: str) -> str:
    """Return the image that a Flatten among the kept ones leaves as it is."""
    assert low.current is not None
    height, width, _ = (1, 1, *low.builder.type(x).shape)[-3:]
    if height * width > 1 and not _reaches_linears(low.current, low.modules):
        raise LowerError(
            f"features of '{name}' must be read by a Linear, with nothing but activations between, since an image is "
            "made of what comes of them"
        )
    return x


def _reaches_linears(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether all that reads features is a Linear in the end, with functions of one element alone before it."""
    alike = nn.Dropout | nn.Identity | qnn.Quantizer | qnn.ReLU | qnn.Hardtanh | qnn.Table | qnn.Scale
    return all(
        _is(user, qnn.Linear, modules) or (_is(user, alike, modules) and _reaches_linears(user, modules))
        for user in node.users
    )


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


def window_of(weight: Codes, image: Shape) -> Codes:
    """Return the weight (inputs, outputs) of a Linear as that of a convolution with one window, the image."""
    return replace(weight, codes=weight.codes.reshape(*image, -1))


def _is(node: fx.Node, kinds: Any, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], kinds)
