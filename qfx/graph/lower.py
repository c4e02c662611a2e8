"""Lowering: a trained fixed-point torch model becomes the integer graph."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

import qfx.nn as qnn
from qfx.arguments import require_kind
from qfx.errors import LowerError, QfxError
from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.graph import Graph, GraphBuilder
from qfx.graph.lower_arithmetic import add, extreme, multiply, rescale, scale, scale_and_shift, softmax
from qfx.graph.lower_binary import binary, gated, thermometer
from qfx.graph.lower_moves import (
    chosen,
    concat,
    cut,
    not_flattened,
    pad_shortcut,
    pixel_shuffle,
    reordered,
    select,
    slices,
    upsample,
)
from qfx.graph.lower_pixels import image_of, unflatten, unflattened, window_of
from qfx.graph.lower_reduce import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    channel_max,
    channel_mean,
    max_pool,
)
from qfx.graph.ops import (
    Add,
    Affine,
    Clamp,
    Conv2d,
    DeformConv2d,
    Dense,
    DepthToSpace,
    Flatten,
    Input,
    Lookup,
    Multiply,
    Requantize,
)
from qfx.graph.passes import run_passes
from qfx.nn.calibrate import name_quantizers
from qfx.nn.constants import Codes
from qfx.nn.inputs import require_finite, require_input, require_model
from qfx.nn.pixels import kept_images, reaches_linears
from qfx.nn.quantizer import Quantizer
from qfx.nn.trace import call_name, misreturned, node_path, traced_graph
from qfx.nn.tracer import NEUTRAL

Shape = tuple[int, ...]


def lower(model: nn.Module, example: Tensor, name: str | None = None) -> Graph:
    """Return the integer graph of a calibrated fixed-point model.

    Args:
        model: layers of qfx.nn, from ``qfx.convert`` or written by hand.
        example: an input of the right shape, (N, C, H, W), (N, C, L) or (N, features); only its shape is used.
        name: the graph's name; by default the model's class.

    Raises:
        LowerError: all the places that no graph operation stands for, each with its module path and what to use; or a
            constant is not finite.
    """
    return lowered(model, example, name)[0]


def lowered(model: nn.Module, example: Tensor, name: str | None = None) -> tuple[Graph, dict[str, Quantizer]]:
    """Return what `lower` does, and for its nodes and constants the quantizers that state their formats, by name.

    A name in the second may be missing in the graph, whose passes remove what does nothing.
    """
    require_model(model, LowerError)
    require_input("example", example, LowerError)
    require_kind(LowerError, "name", name, (str, type(None)), "a text")
    require_finite(model, LowerError)
    name_quantizers(model)
    traced = traced_graph(model)
    lowering = _Lowering(GraphBuilder(name or type(model).__name__), dict(model.named_modules()), tuple(example.shape))
    lowering.images = kept_images(traced, lowering.modules)
    values: dict[fx.Node, str] = {}
    problems: list[str] = []
    for node in traced.nodes:
        if any(argument not in values for argument in node.all_input_nodes):
            continue  # what it reads is a problem already
        try:
            values[node] = lowering.node(node, [values[argument] for argument in _operands(node)])
        except QfxError as error:
            problems.append(str(error))
    if problems:
        raise LowerError("the model must be lowered whole, but:\n" + "\n".join(f"- {problem}" for problem in problems))
    results = [argument for node in traced.nodes if node.op == "output" for argument in node.all_input_nodes]
    names = [values[result] for result in results]
    outputs = [
        lowering.vector(f"{name}.flatten", name) if result in lowering.images else name
        for name, result in zip(names, results, strict=True)
    ]
    return run_passes(lowering.builder.build(*outputs)), lowering.stated


def _operands(node: fx.Node) -> list[fx.Node]:
    """What a traced node reads, in order, as often as it reads it."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


@dataclass
class _Lowering:
    builder: GraphBuilder
    modules: dict[str, nn.Module]
    input_shape: Shape  # torch's, with the batch axis
    flattened: dict[str, Shape] = field(default_factory=dict)  # node -> (H, W, C) that a Flatten before it had
    unflattened: dict[str, str] = field(default_factory=dict)  # a Flatten that waits for one binary point -> its image
    requantized: dict[tuple[str, int], str] = field(default_factory=dict)  # (node, quantizer) -> node
    stated: dict[str, Quantizer] = field(default_factory=dict)  # node or constant -> the quantizer of its format
    placeholder: str = ""
    input_quant: Quantizer | None = None  # the format of the Input, once it is known
    declared: bool = False  # the model begins with a Quantizer, which is what the other layers read
    images: frozenset[fx.Node] = frozenset()  # features that stay an image, since one is made of them
    current: fx.Node | None = None  # the node that is being lowered

    def node(self, node: fx.Node, inputs: list[str]) -> str:
        """Add what stands for one traced node; return the name of its result."""
        self.current = node
        match node.op:
            case "placeholder":
                if self.placeholder:
                    raise LowerError(
                        f"input {node.name!r} must be the only one; concatenate the inputs before the model"
                    )
                self.placeholder = node.name
                return node.name
            case "output":
                if reason := misreturned(node):
                    raise LowerError(f"the network's result: {reason}")
                self._check_output(inputs)
                return inputs[0]
            case "call_module":
                module = self.modules[str(node.target)]
                if type(module) not in _LAYERS:
                    raise LowerError(
                        f"module '{node.target}' ({type(module).__name__}) must be a layer of qfx.nn; "
                        "use qfx.convert(model), which replaces it or says what to use"
                    )
                return self._layer(str(node.target), module, inputs, node.all_input_nodes[0].op == "placeholder")
            case _:
                found = _FUNCTIONS.get(call_name(node))
                if found is None:
                    remedy = _REMEDIES.get(call_name(node), "a layer of qfx.nn, or qfx.convert(model)")
                    raise LowerError(f"'{node_path(node)}' must be a layer of qfx.nn, not a call; use {remedy}")
                return found(self, self._fresh(node.name), None, inputs)

    def _layer(self, path: str, module: nn.Module, inputs: list[str], raw: bool) -> str:
        if inputs[0] == self.placeholder and (raw or not self.declared):
            quantizer = module if isinstance(module, Quantizer) else getattr(module, "input_quant", None)
            if quantizer is None or self.input_quant not in (None, quantizer):
                raise LowerError(f"the input of '{path}' must have one format; use a Quantizer on the model's input")
            if self.input_quant is None:
                self._input(quantizer)
            if quantizer is module:
                self.declared = True
                return inputs[0]
        return _LAYERS[type(module)](self, self._fresh(path), module, inputs)

    def _input(self, quantizer: Quantizer) -> None:
        quantizer.require_calibrated()
        channels, *image = self.input_shape[1:]
        shape = (*([1] * (2 - len(image))), *image, channels) if image else (channels,)
        self.stated[self.builder.add(self.placeholder, Input(shape, quantizer.format()))] = quantizer
        self.input_quant = quantizer

    def _fresh(self, path: str) -> str:
        """The path as a node name; a module that is called again gets a number."""
        taken = {node.name for node in self.builder.nodes}
        name, count = path, 1
        while name in taken:
            count += 1
            name = f"{path}.call{count}"
        return name

    def add(self, name: str, op: Any, *inputs: str) -> str:
        """Add a node; elementwise ones pass on how their input was flattened."""
        result = self.builder.add(name, op, *inputs)
        if inputs[0] in self.flattened and isinstance(op, Requantize | Clamp | Lookup | Add | Multiply | Affine):
            self.flattened[result] = self.flattened[inputs[0]]
        return result

    def constant(self, name: str, constant: Codes) -> str:
        """Add a layer's constant."""
        path, _, role = name.rpartition(".")
        point = "output" if role == "table" else role
        quantizer = getattr(self.modules.get(path.partition(".call")[0]), f"{point}_quant", None)
        if quantizer is not None:
            self.stated[name] = quantizer
        return self.builder.constant(name, constant.codes, constant.fixed, constant.max_digits, constant.signed_digits)

    def quantize(self, name: str, quantizer: Quantizer, x: str) -> str:
        """Add the Requantize that a quantizer is; one quantizer on one tensor is one node."""
        if quantizer.spec.per_channel:
            raise LowerError(
                f"the activation at '{name}' must have one binary point, not one for each channel: give its quantizer "
                "the granularity 'tensor'"
            )
        key = (x, id(quantizer))
        if key not in self.requantized:
            quantizer.require_calibrated()
            spec = quantizer.spec
            op = Requantize(quantizer.format(), spec.rounding, spec.overflow)
            result = self.add(name, op, self.unflattened.get(x, x))
            self.stated[result] = quantizer
            self.requantized[key] = self.flatten(f"{name}.flatten", result) if x in self.unflattened else result
        return self.requantized[key]

    def flatten(self, name: str, x: str) -> str:
        """Add a Flatten; if the image has a binary point for each channel, it waits for the Requantize that follows."""
        kind = self.builder.type(x)
        if kind.fixed.per_channel:
            self.unflattened[name] = x
            return name
        self.flattened[self.add(name, Flatten(), x)] = kind.shape
        return name

    @property
    def reads_image(self) -> bool:
        """Whether the node being lowered reads features that have stayed an image."""
        return self.current is not None and not self.images.isdisjoint(self.current.all_input_nodes)

    def vector(self, name: str, x: str) -> str:
        """The features that an image stands for, where it is one."""
        return self.flatten(name, x) if len(self.builder.type(x).shape) > 1 else x

    def _check_output(self, inputs: list[str]) -> None:
        for name in inputs:
            if self.is_permuted(name):
                raise LowerError(
                    f"output {name!r} must not be a flattened image, whose order here (height, width, channel) is not "
                    "torch's; use the image itself as output, or a Linear after the Flatten"
                )

    def is_permuted(self, name: str) -> bool:
        """Whether a tensor is a flattened image of more than one pixel, so that its order is not torch's."""
        height, width, _ = self.flattened.get(name, (1, 1, 1))
        return height * width > 1


def _conv(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    op = Conv2d(layer.stride, layer.padding, layer.dilation, layer.groups)
    return low.add(name, op, x, *_weights(low, name, layer.constants()))


def _conv_transpose(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """A convolution of stride 1 makes all pixels of a block at once; then they go to their places."""
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    rows, columns = layer.phases(*low.builder.type(x).shape[:2])
    block = rows.stride, columns.stride
    op = Conv2d((1, 1), (*rows.zeros, *columns.zeros), (1, 1), layer.groups)
    weights = _weights(low, name, layer.constants(rows, columns))
    image = low.add(name if block == (1, 1) else f"{name}.products", op, x, *weights)
    if block != (1, 1):
        # The filters are ordered by group first, the channels of a block by pixel.
        order = np.arange(low.builder.type(image).channels).reshape(layer.groups, block[0] * block[1], -1)
        ordered = reordered(low, f"{name}.order", order.transpose(1, 0, 2).ravel().tolist(), image)
        image = low.add(name, DepthToSpace(block), ordered)
    return cut(low, f"{name}.cut", rows.kept, columns.kept, image)


def _linear(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    constants = layer.constants()
    if low.current in low.images:
        shape = image_of(low, name, x)
        constants["weight"] = window_of(_channels_last(name, constants["weight"], shape), shape)
        return low.add(name, Conv2d((1, 1)), x, *_weights(low, name, constants))
    if low.reads_image:
        x = low.vector(f"{name}.flatten", x)
    if x in low.flattened:
        constants["weight"] = _channels_last(name, constants["weight"], low.flattened[x])
    return low.add(name, Dense(), x, *_weights(low, name, constants))


def _deform(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    real = _conv(low, f"{name}.offset", layer.offset, [x])
    rounded = low.add(f"{name}.offset.round", Requantize(layer.offset_format, Rounding.RND, Overflow.SAT), real)
    offset = low.add(f"{name}.offset.clamp", Clamp(0, layer.max_dilation), rounded)
    return low.add(name, DeformConv2d(layer.max_dilation), x, offset, *_weights(low, name, layer.constants()))


def _affine(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    if getattr(layer, "folded", False):
        return inputs[0]
    constants = layer.constants()
    result = scale_and_shift(low, name, inputs[0], constants["scale"], constants["shift"])
    return low.quantize(f"{name}.out", layer.output_quant, result)


def _relu(low: _Lowering, name: str, _: Any, inputs: list[str]) -> str:
    x = low.unflattened.get(inputs[0], inputs[0])
    result = low.add(name, Clamp(0, low.builder.type(x).fixed.max_code), x)
    return low.flatten(f"{name}.flatten", result) if inputs[0] in low.unflattened else result


def _hardtanh(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    return low.add(name, Clamp(*layer.bounds()), low.quantize(f"{name}.in", layer.quant, inputs[0]))


def _table(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    return low.add(name, Lookup(), x, low.constant(f"{name}.table", layer.constants()["table"]))


def _prelu(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    fixed, slope = low.builder.type(x).fixed, layer.constants()["slope"]
    positive = low.add(f"{name}.positive", Clamp(0, fixed.max_code), x)
    negative = low.add(f"{name}.negative", Clamp(fixed.min_code, 0), x)
    nothing = Codes(np.zeros(len(slope.codes), dtype=np.int64), Fixed(1, 0))
    sloped = scale_and_shift(low, f"{name}.sloped", negative, slope, nothing)
    return low.quantize(f"{name}.out", layer.output_quant, low.add(name, Add(), positive, sloped))


def _zero_pad(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    """A convolution of one pixel and weight 1 for each channel, whose padding it is."""
    x = low.quantize(f"{name}.in", layer.input_quant, not_flattened(low, name, inputs[0]))
    channels = low.builder.type(x).channels
    ones = Codes(np.ones((1, 1, 1, channels), dtype=np.int64), Fixed(2, 0), 1)
    op = Conv2d((1, 1), layer.padding, (1, 1), channels)
    return low.add(name, op, x, low.constant(f"{name}.weight", ones))


def _flatten(low: _Lowering, name: str, _: Any, inputs: list[str]) -> str:
    if low.current in low.images:
        assert low.current is not None
        return unflattened(low, name, inputs[0], reaches_linears(low.current, low.modules))
    if inputs[0] in low.unflattened or len(low.builder.type(inputs[0]).shape) == 1:
        return inputs[0]
    return low.flatten(name, inputs[0])


def _quantizer(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    return low.quantize(name, layer, inputs[0])


def _weights(low: _Lowering, name: str, constants: dict[str, Codes]) -> list[str]:
    return [low.constant(f"{name}.{role}", constants[role]) for role in ("weight", "bias") if role in constants]


def _channels_last(name: str, weight: Codes, image: Shape) -> Codes:
    """The weight of a Linear after a Flatten, its inputs moved from torch's (C, H, W) to the graph's (H, W, C)."""
    height, width, channels = image
    if height * width * channels != len(weight.codes):
        raise LowerError(
            f"'{name}' must read {len(weight.codes)} features, not {channels}x{height}x{width}: give an example of the "
            "size that the model was converted for"
        )
    codes = weight.codes.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    return replace(weight, codes=codes.reshape(weight.codes.shape))


Handler = Callable[[_Lowering, str, Any, list[str]], str]
_LAYERS: dict[type[nn.Module], Handler] = {
    qnn.Conv2d: _conv,
    qnn.ConvTranspose2d: _conv_transpose,
    qnn.Linear: _linear,
    qnn.DeformConv2d: _deform,
    qnn.Affine: _affine,
    qnn.BatchNorm2d: _affine,
    qnn.ReLU: _relu,
    nn.ReLU: _relu,
    qnn.Hardtanh: _hardtanh,
    qnn.Table: _table,
    qnn.PReLU: _prelu,
    qnn.Add: add,
    qnn.Multiply: multiply,
    qnn.Maximum: extreme,
    qnn.Minimum: extreme,
    qnn.Scale: scale,
    qnn.Rescale: rescale,
    qnn.Softmax: softmax,
    qnn.Concat: concat,
    qnn.Select: select,
    qnn.ChannelShuffle: chosen,
    qnn.ChannelChunk: chosen,
    qnn.PadChannels: chosen,
    qnn.Slice: slices,
    qnn.PixelShuffle: pixel_shuffle,
    qnn.ZeroPad: _zero_pad,
    qnn.MaxPool2d: max_pool,
    qnn.AvgPool2d: avg_pool,
    qnn.AdaptiveMaxPool2d: adaptive_max_pool,
    qnn.AdaptiveAvgPool2d: adaptive_avg_pool,
    qnn.ChannelMean: channel_mean,
    qnn.ChannelMax: channel_max,
    qnn.Upsample: upsample,
    qnn.Flatten: _flatten,
    qnn.Unflatten: unflatten,
    qnn.PadShortcut: pad_shortcut,
    qnn.BinaryActivation: binary,
    qnn.Thermometer: thermometer,
    qnn.GatedConv2d: gated,
    nn.Flatten: _flatten,
    **dict.fromkeys((*NEUTRAL, qnn.Detach), lambda low, name, layer, inputs: inputs[0]),
    Quantizer: _quantizer,
}
_FUNCTIONS: dict[str, Handler] = {"relu": _relu, "flatten": _flatten}
_REMEDIES = {"add": "qfx.nn.Add, which gives the sum a format", "cat": "qfx.nn.Concat"}
