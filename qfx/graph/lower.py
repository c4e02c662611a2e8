"""Lowering: a trained fixed-point torch model becomes the integer graph."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

import qfx.nn as qnn
from qfx.arguments import require_kind
from qfx.errors import LowerError, QfxError
from qfx.fixed import Fixed, Overflow, Rounding, fixed_for_range, simplest_frac
from qfx.graph.graph import Graph, GraphBuilder
from qfx.graph.ops import (
    Add,
    Affine,
    Clamp,
    Concat,
    Conv2d,
    DeformConv2d,
    Dense,
    Flatten,
    Input,
    Lookup,
    MaxPool,
    Requantize,
    SumPool,
    Upsample,
)
from qfx.graph.passes import run_passes
from qfx.nn.constants import Codes
from qfx.nn.inputs import require_finite, require_input, require_model
from qfx.nn.quantizer import Quantizer
from qfx.nn.trace import call_name, misreturned, node_path, trace

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
    require_model(model, LowerError)
    require_input("example", example, LowerError)
    require_kind(LowerError, "name", name, (str, type(None)), "a text")
    require_finite(model, LowerError)
    traced = trace(model).graph
    lowering = _Lowering(GraphBuilder(name or type(model).__name__), dict(model.named_modules()), tuple(example.shape))
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
    outputs = [values[argument] for node in traced.nodes if node.op == "output" for argument in node.all_input_nodes]
    return run_passes(lowering.builder.build(*outputs))


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
    placeholder: str = ""
    input_quant: Quantizer | None = None  # the format of the Input, once it is known
    declared: bool = False  # the model begins with a Quantizer, which is what the other layers read

    def node(self, node: fx.Node, inputs: list[str]) -> str:
        """Add what stands for one traced node; return the name of its result."""
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
        channels, *image = self.input_shape[1:]
        shape = (*([1] * (2 - len(image))), *image, channels) if image else (channels,)
        self.builder.add(self.placeholder, Input(shape, quantizer.format()))
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
        if inputs[0] in self.flattened and isinstance(op, Requantize | Clamp | Lookup | Add):
            self.flattened[result] = self.flattened[inputs[0]]
        return result

    def constant(self, name: str, constant: Codes) -> str:
        """Add a layer's constant."""
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
            spec = quantizer.spec
            op = Requantize(quantizer.format(), spec.rounding, spec.overflow)
            result = self.add(name, op, self.unflattened.get(x, x))
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


def _linear(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    constants = layer.constants()
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
    result = _scale_and_shift(low, name, inputs[0], constants["scale"], constants["shift"])
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
    sloped = _scale_and_shift(low, f"{name}.sloped", negative, slope, nothing)
    return low.quantize(f"{name}.out", layer.output_quant, low.add(name, Add(), positive, sloped))


def _add(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    a = low.quantize(f"{name}.a", layer.a_quant, inputs[0])
    b = low.quantize(f"{name}.b", layer.b_quant, inputs[1])
    if low.is_permuted(a) or low.is_permuted(b):
        if low.flattened.get(a) != low.flattened.get(b):
            raise LowerError(
                f"the operands of '{name}' must be flattened from images of one shape: add before the Flatten"
            )
    return low.quantize(f"{name}.out", layer.output_quant, low.add(name, Add(), a, b))


def _concat(low: _Lowering, name: str, _: Any, inputs: list[str]) -> str:
    if any(x in low.unflattened or low.is_permuted(x) for x in inputs):
        raise LowerError(f"the operands of '{name}' must not be flattened images: concatenate before the Flatten")
    result = inputs[0]
    for count, x in enumerate(inputs[1:], 2):
        result = low.add(name if count == len(inputs) else f"{name}.{count}", Concat(), result, x)
    return result


def _max_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    x = low.quantize(f"{name}.in", layer.input_quant, inputs[0])
    return low.add(name, MaxPool(layer.kernel, layer.stride, layer.padding), x)


def _upsample(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    rows, columns = layer.factor
    return low.add(name, Upsample((rows if len(low.input_shape) == 4 else 1, columns)), inputs[0])


def _avg_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    pool = SumPool(layer.kernel, layer.stride, layer.padding)
    return _average(low, name, layer, inputs[0], pool, layer.constants())


def _adaptive_avg_pool(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    height, width, _ = low.builder.type(inputs[0]).shape
    kernel = layer.kernel_for(height, width)
    return _average(low, name, layer, inputs[0], SumPool(kernel, kernel), layer.constants(height, width))


def _average(low: _Lowering, name: str, layer: Any, x: str, pool: SumPool, constants: dict[str, Codes]) -> str:
    total = low.add(f"{name}.sum", pool, low.quantize(f"{name}.in", layer.input_quant, x))
    channels = low.builder.type(total).channels
    scale = replace(constants["scale"], codes=np.repeat(constants["scale"].codes, channels))
    result = _scale_and_shift(low, name, total, scale, Codes(np.zeros(channels, dtype=np.int64), Fixed(1, 0)))
    return low.quantize(f"{name}.out", layer.output_quant, result)


def _flatten(low: _Lowering, name: str, _: Any, inputs: list[str]) -> str:
    if inputs[0] in low.unflattened or len(low.builder.type(inputs[0]).shape) == 1:
        return inputs[0]
    return low.flatten(name, inputs[0])


def _pad_shortcut(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    constants = layer.constants(low.builder.type(inputs[0]).channels)
    return low.add(name, Conv2d((layer.stride, layer.stride)), inputs[0], *_weights(low, name, constants))


def _quantizer(low: _Lowering, name: str, layer: Any, inputs: list[str]) -> str:
    return low.quantize(name, layer, inputs[0])


def _weights(low: _Lowering, name: str, constants: dict[str, Codes]) -> list[str]:
    return [low.constant(f"{name}.{role}", constants[role]) for role in ("weight", "bias") if role in constants]


def _scale_and_shift(low: _Lowering, name: str, x: str, scale: Codes, shift: Codes) -> str:
    """Add an Affine. Where the shift's grid is finer than the product's, the scale gets the missing bits, exactly."""
    if low.is_permuted(x):
        raise LowerError(f"'{name}' must not follow a Flatten of an image; use a BatchNorm2d before the Flatten")
    channels = len(scale.codes)
    of_x, of_scale, of_shift = (form.fracs(channels) for form in (low.builder.type(x).fixed, scale.fixed, shift.fixed))
    finer = np.where(shift.codes == 0, 0, np.maximum(of_shift - of_x - of_scale, 0))
    widened = Fixed(scale.fixed.width + int(finer.max()), simplest_frac(of_scale + finer))
    grid = of_x + of_scale + finer
    codes = shift.codes << np.where(shift.codes == 0, 0, grid - of_shift)
    fixed = fixed_for_range(min(int(codes.min()), -1), max(int(codes.max()), 0), grid)
    scale_name = low.constant(f"{name}.scale", replace(scale, codes=scale.codes << finer, fixed=widened))
    return low.add(name, Affine(), x, scale_name, low.builder.constant(f"{name}.shift", codes, fixed))


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
    qnn.Linear: _linear,
    qnn.DeformConv2d: _deform,
    qnn.Affine: _affine,
    qnn.BatchNorm2d: _affine,
    qnn.ReLU: _relu,
    nn.ReLU: _relu,
    qnn.Hardtanh: _hardtanh,
    qnn.Table: _table,
    qnn.PReLU: _prelu,
    qnn.Add: _add,
    qnn.Concat: _concat,
    qnn.MaxPool2d: _max_pool,
    qnn.AvgPool2d: _avg_pool,
    qnn.Upsample: _upsample,
    qnn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    qnn.Flatten: _flatten,
    qnn.PadShortcut: _pad_shortcut,
    nn.Flatten: _flatten,
    nn.Identity: lambda low, name, layer, inputs: inputs[0],
    nn.Dropout: lambda low, name, layer, inputs: inputs[0],
    Quantizer: _quantizer,
}
_FUNCTIONS: dict[str, Handler] = {"relu": _relu, "flatten": _flatten}
_REMEDIES = {"add": "qfx.nn.Add, which gives the sum a format", "cat": "qfx.nn.Concat"}
