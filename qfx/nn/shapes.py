"""The shapes that an example gives the tensors of a traced network, and what they tell before anything is trained."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from qfx.errors import LowerError
from qfx.nn.binary import BinaryActivation
from qfx.nn.elementwise import Flatten, Hardtanh, Joint, ReLU, broadcast
from qfx.nn.moves import Detach
from qfx.nn.quantizer import Quantizer
from qfx.nn.rescale import Rescale, Scale
from qfx.nn.softmax import Softmax
from qfx.nn.table import Table
from qfx.nn.tracer import NEUTRAL

Shape = tuple[int, ...]  # of one input, without the batch axis; an image is (C, H, W)

_KEEP_ORDER = (
    ReLU,
    Hardtanh,
    Table,
    BinaryActivation,
    Joint,
    Scale,
    Rescale,
    Softmax,
    Quantizer,
    Detach,
    *NEUTRAL,
)
_READS: dict[type[nn.Module], str] = {
    nn.Conv1d: "(N, C, L)",
    nn.MaxPool1d: "(N, C, L)",
    nn.AvgPool1d: "(N, C, L)",
    nn.AdaptiveAvgPool1d: "(N, C, L)",
    nn.AdaptiveMaxPool1d: "(N, C, L)",
    nn.ConvTranspose1d: "(N, C, L)",
    nn.Conv2d: "(N, C, H, W)",
    nn.ConvTranspose2d: "(N, C, H, W)",
    nn.PixelShuffle: "(N, C, H, W)",
    nn.MaxPool2d: "(N, C, H, W)",
    nn.AvgPool2d: "(N, C, H, W)",
    nn.AdaptiveAvgPool2d: "(N, C, H, W)",
    nn.AdaptiveMaxPool2d: "(N, C, H, W)",
    nn.Linear: "(N, features)",
}


class Recorder(fx.Interpreter):
    """Runs a traced network and leaves in its nodes' ``meta`` the ``shape`` of each tensor, without the batch axis."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.dim():
            n.meta["shape"] = tuple(result.shape[1:])
        return result


def shape_of(node: Any) -> Shape | None:
    """Return the shape of a node's tensor, where an example has told it."""
    return node.meta.get("shape") if isinstance(node, fx.Node) else None


def sizes(shape: Shape) -> str:
    """Return a shape in print."""
    return "x".join(map(str, shape))


def misread(layer: nn.Module, shape: Shape | None) -> str | None:
    """Return why a torch layer must not read a tensor of that shape, or None."""
    reads = _READS.get(type(layer))
    if shape is None or reads is None or reads.count(",") == len(shape):
        return None
    remedy = ": put a Flatten before it, or use a Conv2d of 1x1" if isinstance(layer, nn.Linear) else ""
    return f"it must read a tensor of axes {reads}, not one of {len(shape) + 1} axes{remedy}"


def require_batch(traced: fx.GraphModule, example: Tensor) -> None:
    """Raise LowerError where the layer that reads the network's input finds one axis too few in ``example``."""
    for node in traced.graph.nodes:
        if node.op != "call_module" or not any(source.op == "placeholder" for source in node.all_input_nodes):
            continue
        reads = _READS.get(type(traced.get_submodule(str(node.target))), "")
        if reads.count(",") == example.dim():
            raise LowerError(
                f"example must have the axes {reads}, the batch first, not {example.dim()} axes: give example[None] "
                "if it is one input alone"
            )


def uneven(size: tuple[int | None, int | None], shape: Shape | None) -> str | None:
    """Return why an adaptive pool must not make ``size`` windows of a tensor of that shape, or None."""
    for wanted, given in zip(size[::-1], (shape or ())[:0:-1], strict=False):
        if wanted is not None and given % wanted:
            return f"its input must divide evenly into {wanted} windows, not be {given} wide: use AvgPool2d instead"
    return None


def unlike(module: fx.GraphModule, a: fx.Node, b: fx.Node) -> str | None:
    """Return why two tensors must not be added or multiplied, or None."""
    if (one := shape_of(a)) is not None and (other := shape_of(b)) is not None and not broadcast(one, other):
        return f"its operands must have one shape, or axes of length 1, not {sizes(one)} and {sizes(other)}"
    if flattened_from(module, a) != flattened_from(module, b):
        return "its operands must be flattened from images of one shape: put it before the Flatten"
    return None


def unjoinable(module: fx.GraphModule, operands: Sequence[fx.Node]) -> str | None:
    """Return why the channels of tensors must not be concatenated, or None."""
    if any(flattened_from(module, operand) for operand in operands):
        return "it must not join flattened images: concatenate the images before the Flatten"
    return None


def flattened_from(module: fx.GraphModule, node: Any) -> Shape | None:
    """Return the image, of more than one pixel, whose elements a node's tensor holds in one axis; else None."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        layer, source = module.get_submodule(str(node.target)), node.args[0]
        if isinstance(layer, Flatten):
            shape = shape_of(source) or ()
            if len(shape) > 1:
                return shape if math.prod(shape[1:]) > 1 else None
        elif not isinstance(layer, _KEEP_ORDER):
            return None
        node = source
    return None
