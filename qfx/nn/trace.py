"""Tracing a model into calls of whole layers, for convert and for lowering."""

import traceback
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from qfx.arguments import LEGAL_NAME, NAME, shown
from qfx.errors import LowerError
from qfx.nn.affine import Affine, BatchNorm2d, Normalize
from qfx.nn.binary import BinaryActivation, Thermometer
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.deform import DeformConv2d, SquareDeformConv2d
from qfx.nn.elementwise import Add, Concat, Flatten, Hardtanh, ReLU
from qfx.nn.extremes import Maximum, Minimum
from qfx.nn.gated import GatedConv2d, PrecisionGatedConv2d
from qfx.nn.moves import (
    ChannelChunk,
    ChannelShuffle,
    Detach,
    PadChannels,
    PixelShuffle,
    Select,
    Slice,
    Unflatten,
    ZeroPad,
)
from qfx.nn.multiply import Multiply
from qfx.nn.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from qfx.nn.prelu import PReLU
from qfx.nn.quantizer import Quantizer
from qfx.nn.reduce import ChannelMax, ChannelMean
from qfx.nn.rescale import Rescale, Scale
from qfx.nn.shortcut import PadShortcut
from qfx.nn.softmax import Softmax
from qfx.nn.table import Table
from qfx.nn.tracer import NEUTRAL, Tracer, UntraceableError
from qfx.nn.transposed import ConvTranspose2d
from qfx.nn.upsample import Upsample

FIXED_LAYERS = (
    Quantizer,
    Conv2d,
    ConvTranspose2d,
    Linear,
    DeformConv2d,
    BatchNorm2d,
    Affine,
    ReLU,
    Hardtanh,
    Table,
    PReLU,
    Add,
    Multiply,
    Maximum,
    Minimum,
    Scale,
    Rescale,
    Softmax,
    Concat,
    MaxPool2d,
    AvgPool2d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    ChannelMean,
    ChannelMax,
    Flatten,
    Unflatten,
    Select,
    ChannelShuffle,
    ChannelChunk,
    PadChannels,
    Slice,
    PixelShuffle,
    ZeroPad,
    Detach,
    Upsample,
    PadShortcut,
    BinaryActivation,
    Thermometer,
    GatedConv2d,
)
_LEAVES = (*FIXED_LAYERS, SquareDeformConv2d, Normalize, PrecisionGatedConv2d)
_NOT_THE_USERS = (Path(torch.__file__).parent, Path(__file__).parents[1])  # code that traces; a forward is elsewhere


def trace(model: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """Return ``model`` as a GraphModule whose ``call_module`` nodes are torch's and qfx.nn's layers.

    The layers are the model's own, not copies; a node's ``meta['nn_module_stack']`` names where it was called.

    Args:
        example: an input that tells sizes; that of its batch stays open.

    Raises:
        LowerError: the forward depends on data, or cannot be traced for another reason; or there is no network, but
            a layer alone.
    """
    state = is_leaf(model) and next(model.parameters(), None) is not None and not isinstance(model, nn.PReLU)
    if state or isinstance(model, FIXED_LAYERS):
        raise LowerError(
            f"model must be a network of layers, not a {type(model).__name__} alone: convert nn.Sequential(layer)"
        )
    graph = traced_graph(model, example)
    refuse_taken_names(graph)
    return fx.GraphModule(model, graph, type(model).__name__)


def traced_graph(model: nn.Module, example: Tensor | None = None) -> fx.Graph:
    """Return the graph of ``trace`` alone."""
    tracer = Tracer(_LEAVES, example)
    try:
        return tracer.trace(model)
    except Exception as error:  # whatever the user's forward raises on symbols
        part = f"'{tracer.failed}'" if tracer.failed else type(model).__name__
        raise LowerError(f"the forward of {part} {_untraceable(error)}{_place(error)}") from error


def _untraceable(error: Exception) -> str:
    match error:
        case UntraceableError():
            return str(error)
        case TraceError():
            return (
                "must be traceable by torch.fx, without branches or loops that depend on data: take the decision out "
                "of the network, or compute both sides"
            )
    return (
        "must be traceable by torch.fx, which calls it with symbols instead of tensors, but ends in "
        f"{type(error).__name__}: {error}: leave that call out, or compute it before or after the network"
    )


def _place(error: Exception) -> str:
    """Return the line of a forward in which tracing ended."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(each) for each in _NOT_THE_USERS)]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno}: {shorten(own[-1].line or '', 80)})" if own else ""


def refuse_taken_names(graph: fx.Graph) -> None:
    """Raise LowerError where the network has a layer or parameter whose name a GraphModule uses itself, as ``code``."""
    own = fx.GraphModule({}, fx.Graph())
    used = [str(node.target).partition(".")[0] for node in graph.nodes if node.op in ("call_module", "get_attr")]
    taken = [repr(name) for name in dict.fromkeys(used) if hasattr(own, name)]
    if taken:
        raise LowerError(
            f"the model must not have layers or parameters of the names {', '.join(taken)}, which torch.fx uses for "
            "its own: rename them, in checkpoints too"
        )


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module is traced as one call, whatever it consists of."""
    return Tracer(_LEAVES).is_leaf_module(module, "")


def is_layer(module: nn.Module) -> bool:
    """Return whether lowering knows this module: a fixed-point layer, or one that does nothing in evaluation."""
    return isinstance(module, (*FIXED_LAYERS, *NEUTRAL))


def scope(node: fx.Node) -> str:
    """Return the path of the module in whose forward a functional call stands, with a dot behind, or ''."""
    stack = list(node.meta.get("nn_module_stack", {}))
    return f"{stack[-1]}." if stack and stack[-1] else ""


def call_name(node: fx.Node) -> str:
    """Return the plain name of the function or method that a node calls."""
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return name.removesuffix("_") if not name.startswith("_") else name


def node_path(node: fx.Node) -> str:
    """Return the module path under which a node is spoken of in messages and recipes."""
    return str(node.target) if node.op in ("call_module", "get_attr") else scope(node) + call_name(node)


def misnamed(node: fx.Node) -> str | None:
    """Return why no node of a graph can be named after a traced one, or None."""
    path = node_path(node)
    return None if NAME.fullmatch(path) else f"its path must be {LEGAL_NAME}: rename the module"


def misreturned(node: fx.Node) -> str | None:
    """Return why a graph cannot give what the model of an ``output`` node returns, or None."""
    return unlike_results(node.args[0], fx.Node)


def unlike_results(given: Any, kind: type) -> str | None:
    """Return why what a network returns is neither one result of a ``kind`` nor several of it, or None."""
    several = isinstance(given, tuple | list) and len(given) > 1 and all(isinstance(one, kind) for one in given)
    if several or isinstance(given, kind):
        return None
    if isinstance(given, tuple | list) and len(given) > 1:
        what = f"{_kind(given)} with {next(_kind(one) for one in given if not isinstance(one, kind))} in it"
    elif isinstance(given, dict | tuple | list):
        what = f"{_kind(given)} of {len(given)}"
    else:
        what = shown(given)
    return f"it must be a tensor, or a tuple of two or more tensors, not {what}: return the tensors alone"


def _kind(given: object) -> str:
    kinds = {dict: "a dict", list: "a list", tuple: "a tuple"}
    return next((name for kind, name in kinds.items() if isinstance(given, kind)), shown(given))
