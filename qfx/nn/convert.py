"""convert: a float torch model becomes a fixed-point one, functional calls included."""

import copy
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from qfx.errors import LowerError
from qfx.nn.affine import Affine, BatchNorm2d, Normalize
from qfx.nn.calibrate import floating, name_quantizers
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.deform import DeformConv2d, SquareDeformConv2d, share
from qfx.nn.elementwise import AdaptiveAvgPool2d, Add, AvgPool2d, Flatten, MaxPool2d, ReLU
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer
from qfx.nn.recipe import Recipe
from qfx.nn.trace import call_name, is_layer, node_path, scope, trace

_INSTEAD = {
    "add": "a sum of two tensors (a constant belongs into a bias or a BatchNorm2d)",
    "cat": "+ (addition)",
    "concat": "+ (addition)",
    "batch_norm": "the module nn.BatchNorm2d",
    "conv2d": "the module nn.Conv2d",
    "linear": "the module nn.Linear",
    "dropout": "the module nn.Dropout",
    "matmul": "the module nn.Linear",
    "Softmax": "nothing: apply it to the network's result",
    "softmax": "nothing: apply it to the network's result",
    "LogSoftmax": "nothing: apply it to the network's result",
    "log_softmax": "nothing: apply it to the network's result",
    "ConvTranspose2d": "nn.Conv2d",
    "Conv1d": "nn.Conv2d with a kernel of height 1",
    "GroupNorm": "nn.BatchNorm2d",
    "LayerNorm": "nn.BatchNorm2d",
    "InstanceNorm2d": "nn.BatchNorm2d",
    "view": "torch.flatten(x, 1)",
    "reshape": "torch.flatten(x, 1)",
    "size": "torch.flatten(x, 1), or a constant",
    "getattr": "torch.flatten(x, 1), or a constant",
    "mul": "nn.BatchNorm2d or qfx.nn.Normalize",
    "truediv": "qfx.nn.Normalize",
    "sub": "qfx.nn.Normalize",
    "mean": "nn.AdaptiveAvgPool2d(1)",
}
_ACTIVATIONS = (
    "relu6 hardtanh gelu silu sigmoid tanh leakyrelu leaky_relu prelu elu mish hardswish hardsigmoid softplus clamp"
).split()
_LAYERS = "Conv2d, Linear, BatchNorm2d, ReLU, +, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten"


def convert(
    model: nn.Module, recipe: Mapping[str, Any] | Path | None = None, example: Tensor | None = None
) -> fx.GraphModule:
    """Return a fixed-point copy of ``model``, to be calibrated, trained and lowered.

    The float model is left as it is, and its ``state_dict`` keys stay valid. Come before the optimizer and DDP.

    Args:
        recipe: formats by quantization point (see Recipe); without one, 8 bits everywhere.
        example: an input batch; if given, shapes are checked by running it.

    Raises:
        LowerError: layers or calls that cannot be fixed-point: all of them, each with what to use instead.
        TrainError: an impossible recipe.
    """
    training = model.training
    conversion = _Conversion(trace(copy.deepcopy(model)), Recipe(recipe))
    converted = conversion.run()
    if example is not None:
        with floating(converted), torch.no_grad():
            converted.eval()(example)
    return converted.train(training)  # type: ignore[return-value]


class _Conversion:
    """One run of convert: the module being rewritten, and what was found wrong with it."""

    def __init__(self, module: fx.GraphModule, recipe: Recipe) -> None:
        self.module, self.graph, self.recipe = module, module.graph, recipe
        self.problems: dict[fx.Node, str] = {}
        self.quantizers: dict[tuple[fx.Node, str], Quantizer] = {}
        self.left: dict[fx.Node, Quantizer] = {}  # the quantizer that a layer's result has just left
        self.declared: set[fx.Node] = set()  # results of the network's input quantizers
        self.called: set[str] = set()
        self.floats = dict(module.named_modules())

    def run(self) -> fx.GraphModule:
        for node in list(self.graph.nodes):
            match node.op:
                case "placeholder":
                    self._input(node)
                case "call_module":
                    self._layer(node, self.floats[str(node.target)])
                case "call_function" | "call_method":
                    self._call(node)
                case "output":
                    self._output(node)
        self.graph.eliminate_dead_code()
        self._refuse()
        self.recipe.check_used()
        self.graph.lint()
        self.module.recompile()
        name_quantizers(self.module)
        return self.module

    # Places -------------------------------------------------------------------------------------------------------

    def _free(self, path: str) -> str:
        """A module path that is not taken yet: ``path``, or it with _1, _2, ... behind."""
        taken = {name for name, _ in self.module.named_modules()} | {name for name, _ in self.module.named_parameters()}
        number, free = 0, path
        while free in taken:
            number += 1
            free = f"{path}_{number}"
        return free

    def _insert(self, path: str, layer: nn.Module, after: fx.Node, *inputs: fx.Node) -> fx.Node:
        self.module.add_submodule(path, layer)
        with self.graph.inserting_after(after):
            return self.graph.call_module(path, inputs)

    def _replace(self, node: fx.Node, path: str, layer: nn.Module, *inputs: fx.Node) -> fx.Node:
        new = self._insert(path, layer, node, *inputs)
        new.meta = node.meta
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        return new

    # Quantization points ------------------------------------------------------------------------------------------

    def _input(self, node: fx.Node) -> None:
        path = self._free("input")
        users = list(node.users)
        new = self._insert(path, Quantizer(self.recipe.spec(path, "input"), axis=1), node, node)
        for user in users:
            user.replace_input_with(node, new)
        self.declared.add(new)

    def _output(self, node: fx.Node) -> None:
        def quantize(result: fx.Node) -> fx.Node:
            path = self._free("output")
            return self._insert(path, Quantizer(self.recipe.spec(path, "output"), axis=1), result, result)

        node.args = fx.map_arg(node.args, quantize)

    def _enter(self, node: fx.Node, layer: nn.Module, path: str, point: str, name: str, index: int = 0) -> None:
        """Let ``layer.<name>`` be the quantizer that its input tensor already has at this point, if there is one."""
        source = node.args[index]
        assert isinstance(source, fx.Node)
        own: Quantizer = getattr(layer, name)
        if source in self.declared and not self.recipe.names(path, point):
            own_or_shared = self.module.get_submodule(str(source.target))
        else:
            own_or_shared = self.quantizers.setdefault((source, point), own)
        assert isinstance(own_or_shared, Quantizer)
        if own_or_shared is own:
            return
        if own_or_shared.spec != own.spec and source not in self.declared:
            if point == "activation":
                self.problems[node] = (
                    f"its input must have one format at point 'activation' for all its consumers, but the recipe says "
                    f"{own.spec.width} bits here and {own_or_shared.spec.width} elsewhere"
                )
            return
        share(layer, name, own_or_shared)

    def _leave(self, node: fx.Node, layer: nn.Module) -> None:
        quantizer = getattr(layer, "output_quant", None)
        if quantizer is not None:
            self.quantizers[node, "elementwise"] = self.left[node] = quantizer

    # Modules ------------------------------------------------------------------------------------------------------

    def _layer(self, node: fx.Node, layer: nn.Module) -> None:
        if isinstance(layer, nn.Identity):
            node.replace_all_uses_with(node.args[0])
            self.graph.erase_node(node)
            return
        path = str(node.target)
        if path in self.called and next(layer.parameters(), None) is not None:
            self.problems[node] = "it is called twice: use one module for each call"
            return
        again = path in self.called
        self.called.add(path)
        if is_layer(layer):
            return
        converter = _MODULES.get(type(layer))
        if converter is None:
            return
        place = self._free(path) if again else path
        new = converter(self, node, layer, place)
        if isinstance(new, str):
            self.problems[node] = new
        elif new is not None:
            self.module.add_submodule(place, new)
            node.target = place
            self._leave(node, new)

    def conv(self, node: fx.Node, layer: nn.Conv2d, path: str) -> nn.Module | str:
        if layer.padding_mode != "zeros":
            return f"its padding_mode must be 'zeros', not '{layer.padding_mode}'"
        new = Conv2d.from_float(layer, self.recipe.spec(path, "weight"), self.recipe.spec(path, "activation"))
        self._enter(node, new, path, "activation", "input_quant")
        return new

    def linear(self, node: fx.Node, layer: nn.Linear, path: str) -> nn.Module:
        new = Linear.from_float(layer, self.recipe.spec(path, "weight"), self.recipe.spec(path, "activation"))
        self._enter(node, new, path, "activation", "input_quant")
        return new

    def deform(self, node: fx.Node, layer: SquareDeformConv2d, path: str) -> nn.Module:
        weight, offset = self.recipe.spec(path, "weight"), self.recipe.spec(f"{path}.offset", "weight")
        new = DeformConv2d.from_float(layer, weight, self.recipe.spec(path, "activation"), offset)
        self._enter(node, new, path, "activation", "input_quant")
        share(new.offset, "input_quant", new.input_quant)
        return new

    def batch_norm(self, node: fx.Node, layer: nn.BatchNorm2d | nn.BatchNorm1d, path: str) -> nn.Module | str | None:
        if layer.running_mean is None:
            return "it must track running statistics (track_running_stats=True)"
        if not self.recipe.fold(path):
            constant, output = self.recipe.spec(path, "constant"), self.recipe.spec(path, "elementwise")
            return BatchNorm2d.from_float(layer, constant, output)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        conv = self.module.get_submodule(str(source.target)) if source.op == "call_module" else None
        if not isinstance(conv, Conv2d) or len(source.users) > 1 or conv.norm:
            return "to be folded, it must stand alone behind a convolution: leave 'fold' out for it"
        folded = BatchNorm2d.from_float(layer, CONSTANT, ELEMENTWISE, folded=True)
        self.module.add_submodule(path, folded)
        conv.norm.append(folded)
        node.replace_all_uses_with(source)
        self.graph.erase_node(node)
        return None

    def normalize(self, node: fx.Node, layer: Normalize, path: str) -> nn.Module:
        constant, output = self.recipe.spec(path, "constant"), self.recipe.spec(path, "elementwise")
        return Affine(layer.scale, layer.shift, constant_spec=constant, output_spec=output)

    def relu(self, node: fx.Node, layer: nn.Module, path: str) -> nn.Module:
        return ReLU()

    def flatten(self, node: fx.Node, layer: nn.Flatten, path: str) -> nn.Module | str:
        return Flatten() if (layer.start_dim, layer.end_dim) == (1, -1) else "it must flatten all axes but the first"

    def max_pool(self, node: fx.Node, layer: nn.MaxPool2d, path: str) -> nn.Module | str:
        if layer.ceil_mode or layer.return_indices or layer.dilation not in (1, (1, 1)):
            return "it must have dilation 1, and neither ceil_mode nor return_indices"
        new = MaxPool2d(
            layer.kernel_size, layer.stride, layer.padding, input_spec=self.recipe.spec(path, "elementwise")
        )
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def avg_pool(self, node: fx.Node, layer: nn.AvgPool2d, path: str) -> nn.Module | str:
        if layer.ceil_mode or (layer.padding not in (0, (0, 0)) and not layer.count_include_pad):
            return "it must not have ceil_mode, and padding only with count_include_pad"
        spec = self.recipe.spec(path, "elementwise")
        new = AvgPool2d(
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.divisor_override,
            constant_spec=self.recipe.spec(path, "constant"),
            input_spec=spec,
            output_spec=spec,
        )
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def adaptive_pool(self, node: fx.Node, layer: nn.AdaptiveAvgPool2d, path: str) -> nn.Module:
        spec, constant = self.recipe.spec(path, "elementwise"), self.recipe.spec(path, "constant")
        size: Any = layer.output_size
        new = AdaptiveAvgPool2d(size, constant_spec=constant, input_spec=spec, output_spec=spec)
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    # Functional calls ---------------------------------------------------------------------------------------------

    def _call(self, node: fx.Node) -> None:
        layers = _as_modules(node)
        if layers is None:
            return
        source = node.args[0]
        assert isinstance(source, fx.Node)
        path = self._free(scope(node) + call_name(node))
        if isinstance(layers[0], Add):
            self._add(node, path)
            return
        last = source
        for place, layer in enumerate(layers):
            where = path if place == 0 else self._free(f"{path}_flatten")
            self.module.add_submodule(where, layer)
            with self.graph.inserting_before(node):
                last = self.graph.call_module(where, (last,))
            last.meta = node.meta
            self._layer(last, layer)
        node.replace_all_uses_with(last)
        self.graph.erase_node(node)

    def _add(self, node: fx.Node, path: str) -> None:
        a, b = node.args[:2]
        assert isinstance(a, fx.Node) and isinstance(b, fx.Node)
        spec = self.recipe.spec(path, "elementwise")
        layer = Add(operand_spec=spec, output_spec=spec)
        new = self._replace(node, path, layer, a, b)
        self._enter(new, layer, path, "elementwise", "a_quant", 0)
        self._enter(new, layer, path, "elementwise", "b_quant", 1)
        operands = {"a_quant": layer.a_quant, "b_quant": layer.b_quant}
        layer.settled = frozenset(
            name for name, source in zip(operands, (a, b), strict=True) if self.left.get(source) is operands[name]
        )
        self._leave(new, layer)

    # What is left -------------------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        lines = []
        for node in self.graph.nodes:
            reason = self.problems.get(node)
            if node.op in ("placeholder", "output"):
                continue
            known = node.op == "call_module" and is_layer(self.module.get_submodule(str(node.target)))
            if reason is None and known:
                continue
            name = call_name(node)
            if node.op == "call_module":
                name = type(self.module.get_submodule(str(node.target))).__name__
            lines.append(f"  {node_path(node)} ({name}): {reason or f'use {_instead(name)} instead'}")
        if lines:
            number = "1 layer or call" if len(lines) == 1 else f"{len(lines)} layers or calls"
            raise LowerError(
                f"the model must consist of layers that qfx knows, but {number} cannot be converted:\n"
                + "\n".join(lines)
            )


def _instead(name: str) -> str:
    if name.lower() in _ACTIVATIONS:
        return "nn.ReLU"
    return _INSTEAD.get(name, f"one of {_LAYERS}")


def _as_modules(node: fx.Node) -> list[nn.Module] | None:
    """The layers that a functional call stands for, if it is one of those that qfx knows."""
    name, args, kwargs = call_name(node), node.args[1:], dict(node.kwargs)
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if name in ("relu", "flatten"):
        kwargs.pop("inplace", None)
        found = (
            [nn.ReLU()]
            if name == "relu"
            else [nn.Flatten(*_positional(args, kwargs, ("start_dim", "end_dim"), (0, -1)))]
        )
        return found  # type: ignore[return-value]
    if name in ("add", "iadd"):
        return [Add()] if len(args) == 1 and isinstance(args[0], fx.Node) and not kwargs else None
    if node.target in _POOLS:
        return [_POOLS[node.target](*args, **kwargs)]
    if name in ("view", "reshape"):
        sizes = args[0] if args and isinstance(args[0], tuple | list) else args
        return [nn.Flatten()] if len(sizes) == 2 and _keeps_batch(sizes, node.args[0]) else None
    if name == "mean":
        axes, keep = _positional(args, kwargs, ("dim", "keepdim"), (None, False))
        if isinstance(axes, tuple | list) and sorted(axis % 4 for axis in axes) == [2, 3]:
            return [nn.AdaptiveAvgPool2d(1)] if keep else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return None


def _positional(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...], defaults: tuple) -> list[Any]:
    return [args[i] if i < len(args) else kwargs.get(name, defaults[i]) for i, name in enumerate(names)]


def _keeps_batch(sizes: Any, source: fx.Node) -> bool:
    """Whether ``view(sizes)`` of ``source`` is ``(x.size(0), -1)``, ``(x.shape[0], -1)`` or ``(-1, features)``."""
    first, second = sizes
    if isinstance(first, int):
        return first == -1 and isinstance(second, int) and second > 0
    if second != -1 or not isinstance(first, fx.Node):
        return False
    if first.op == "call_method" and first.target == "size":
        return first.args[1:] == (0,)
    return first.target is operator.getitem and first.args[1] == 0


def _max_pool(kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
              return_indices: bool = False) -> nn.Module:  # fmt: skip
    return nn.MaxPool2d(kernel, stride, padding, dilation, return_indices, ceil_mode)


_POOLS: dict[Any, Callable[..., nn.Module]] = {
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
_MODULES: dict[type[nn.Module], Callable[..., nn.Module | str | None]] = {
    nn.Conv2d: _Conversion.conv,
    nn.Linear: _Conversion.linear,
    SquareDeformConv2d: _Conversion.deform,
    nn.BatchNorm2d: _Conversion.batch_norm,
    nn.BatchNorm1d: _Conversion.batch_norm,
    Normalize: _Conversion.normalize,
    nn.ReLU: _Conversion.relu,
    nn.Flatten: _Conversion.flatten,
    nn.MaxPool2d: _Conversion.max_pool,
    nn.AvgPool2d: _Conversion.avg_pool,
    nn.AdaptiveAvgPool2d: _Conversion.adaptive_pool,
}
