"""convert: a float torch model becomes a fixed-point one, functional calls included."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from qfx.errors import LowerError
from qfx.fixed import TABLE_WIDTH
from qfx.nn.affine import Affine, BatchNorm2d, Normalize
from qfx.nn.calibrate import floating, name_quantizers
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.deform import DeformConv2d, SquareDeformConv2d
from qfx.nn.elementwise import SATURATING, AdaptiveAvgPool2d, Add, AvgPool2d, Concat, Flatten, Hardtanh, MaxPool2d, ReLU
from qfx.nn.geometry import NO_PADDING, Quad, added, inside, pool_window
from qfx.nn.in_place import refuse_in_place, require_same
from qfx.nn.prelu import PReLU
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer
from qfx.nn.ready import require_ready
from qfx.nn.recipe import Recipe, placed
from qfx.nn.results import has_products, never_negative
from qfx.nn.shapes import flattened_from, misread, require_batch, shape_of, uneven, unjoinable, unlike
from qfx.nn.sharing import share, tie
from qfx.nn.shortcut import PadShortcut
from qfx.nn.spelling import as_modules, is_sum, joined, joins_channels, remedy
from qfx.nn.table import FUNCTIONS, Table
from qfx.nn.trace import call_name, is_layer, misnamed, misreturned, node_path, scope, trace
from qfx.nn.upsample import Upsample


def convert(
    model: nn.Module, recipe: Mapping[str, Any] | Path | None = None, example: Tensor | None = None
) -> fx.GraphModule:
    """Return a fixed-point copy of ``model``, to be calibrated, trained and lowered.

    The float model is left as it is, and its ``state_dict`` keys stay valid. Come before the optimizer and DDP.

    Args:
        recipe: formats by quantization point (see Recipe); without one, 8 bits everywhere.
        example: an input batch; if given, shapes are checked by running it, and that the trace computes what the
            model does.

    Raises:
        LowerError: layers or calls that cannot be fixed-point: all of them, each with what to use instead.
        RecipeError: an impossible recipe; of a file, the line is named.
    """
    require_ready(model, example)
    training = model.training
    traced = trace(copy.deepcopy(model))
    if example is not None:
        require_batch(traced, example)
        require_same(model, traced, example)
    with placed(recipe if isinstance(recipe, Path) else None):
        conversion = _Conversion(traced, Recipe(recipe))
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
        self.padding: dict[fx.Node, Quad] = {}  # zeros that wait for the convolutions and pools that read them
        self.called: set[str] = set()
        self.floats = dict(module.named_modules())

    def run(self) -> fx.GraphModule:
        refuse_in_place(self.graph, self.floats)
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
        for place in {str(node.target) for node in self.padding} - {str(node.target) for node in self.graph.nodes}:
            self.module.delete_submodule(place)
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

    def _rank(self, node: fx.Node) -> int | None:
        """How many axes a tensor has, as far as the layers and the example tell."""
        shape = shape_of(node)
        if shape is not None:
            return len(shape) + 1
        layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Linear | Flatten):
            return 2
        if isinstance(layer, Conv2d):
            return layer.weight.dim()
        known = layer is not None and (is_layer(layer) or node in self.padding)
        return self._rank(node.all_input_nodes[0]) if known else None

    # Quantization points ------------------------------------------------------------------------------------------

    def _input(self, node: fx.Node) -> None:
        if node.prev.op != "root":
            self.problems[node] = "it must be the only input: concatenate the inputs before the network"
            return
        shape = shape_of(node)
        if shape is not None and len(shape) not in (1, 2, 3):
            self.problems[node] = f"it must be (N, C, H, W), (N, C, L) or (N, features), not of {len(shape) + 1} axes"
        path = self._free("input")
        users = list(node.users)
        new = self._insert(path, Quantizer(self.recipe.spec(path, "input"), axis=1), node, node)
        new.meta = node.meta
        for user in users:
            user.replace_input_with(node, new)
        self.declared.add(new)

    def _output(self, node: fx.Node) -> None:
        if reason := misreturned(node):
            self.problems[node] = reason
            return

        def quantize(result: fx.Node) -> fx.Node:
            if flattened_from(self.module, result):
                self.problems.setdefault(
                    result,
                    "it must not be the network's result, since the order of a flattened image is (height, width, "
                    "channel) here: give the image itself, or put a Linear behind",
                )
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
        again = path in self.called
        tied = again and next(layer.parameters(), None) is not None
        self.called.add(path)
        if is_layer(layer):
            if isinstance(layer, PadShortcut) and has_products(self.module, node.args[0]):
                self.problems[node] = (
                    "it must read a tensor with one binary point, not the exact result of a convolution or of "
                    "torch.cat: put a BatchNorm2d between them"
                )
            return
        converter = _MODULES.get(type(layer))
        if converter is None:
            return
        place = self._free(path) if again else path
        new = misread(layer, shape_of(node.args[0])) or converter(self, node, layer, place)
        if tied and not isinstance(new, str):
            new = self._tied(new, path, place) or new
        if isinstance(new, str):
            self.problems[node] = new
        elif new is not None:
            self.module.add_submodule(place, new)
            node.target = place
            self._leave(node, new)

    def _tied(self, new: nn.Module | None, path: str, place: str) -> str | None:
        """Let another call of the layer at ``path`` own its formats only, or return why it cannot."""
        new = new or self.module.get_submodule(place)  # a folded BatchNorm has its place already
        if not isinstance(new, Conv2d | Linear | BatchNorm2d | PReLU | Table):
            return "it is called twice: use one module for each call"
        for point in ("weight", "constant"):
            if self.recipe.names(place, point) and self.recipe.spec(place, point) != self.recipe.spec(path, point):
                return f"it is called twice with one {point}: '{place}' must have that of '{path}' in the recipe"
        tie(new, self.module.get_submodule(path))
        return None

    def pad(self, node: fx.Node, layer: nn.ConstantPad1d | nn.ConstantPad2d, path: str) -> str:
        left, right, top, bottom = (*layer.padding, 0, 0)[:4]
        if layer.value != 0 or min(layer.padding) < 0:
            return f"it must add zeros, not {layer.value} at {layer.padding}"
        self.padding[node] = (top, bottom, left, right)
        return "it must stand right before convolutions and pools, which take its zeros as padding of their own"

    def _take_padding(self, node: fx.Node) -> Quad:
        """The zeros that stand before a node; it reads what is before them from now on."""
        total = NO_PADDING
        while (source := node.args[0]) in self.padding:
            assert isinstance(source, fx.Node)
            total = added(total, self.padding[source])
            node.update_arg(0, source.args[0])
        return total

    def conv(self, node: fx.Node, layer: nn.Conv2d | nn.Conv1d, path: str) -> nn.Module | str:
        if layer.padding_mode != "zeros":
            return f"its padding_mode must be 'zeros', not '{layer.padding_mode}'"
        new = Conv2d.from_float(layer, self.recipe.spec(path, "weight"), self.recipe.spec(path, "activation"))
        new.padding = added(new.padding, self._take_padding(node))
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
        if flattened_from(self.module, node.args[0]):
            return "it must not read a flattened image: put a BatchNorm2d before the Flatten"
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

    def normalize(self, node: fx.Node, layer: Normalize, path: str) -> nn.Module | str:
        if flattened_from(self.module, node.args[0]):
            return "it must not read a flattened image: put it before the Flatten"
        constant, output = self.recipe.spec(path, "constant"), self.recipe.spec(path, "elementwise")
        return Affine(layer.scale, layer.shift, constant_spec=constant, output_spec=output)

    def relu(self, node: fx.Node, layer: nn.Module, path: str) -> nn.Module:
        return ReLU()

    def flatten(self, node: fx.Node, layer: nn.Flatten, path: str) -> nn.Module | str:
        rank, axes = self._rank(node), (layer.start_dim, layer.end_dim)
        if axes == (1, -1) or (rank is not None and (axes[0] % rank, axes[1] % rank) == (1, rank - 1)):
            return Flatten()
        return f"it must flatten all axes but the first, 1 to -1, not {axes[0]} to {axes[1]}"

    def hardtanh(self, node: fx.Node, layer: nn.Hardtanh, path: str) -> nn.Module | str:
        new = Hardtanh(layer.min_val, layer.max_val, spec=self.recipe.spec(path, "elementwise"))
        self._enter(node, new, path, "elementwise", "quant")
        overflow = new.quant.spec.overflow
        return (
            new if overflow in SATURATING else f"it must have overflow SAT or SAT_SYM at 'elementwise', not {overflow}"
        )

    def table(self, node: fx.Node, layer: nn.Module, path: str) -> nn.Module | str:
        spec = self.recipe.spec(path, "elementwise")
        new = Table.from_float(layer, spec, spec)
        self._enter(node, new, path, "elementwise", "input_quant")
        width = new.input_quant.width
        if width > TABLE_WIDTH:
            return f"its input must be at most {TABLE_WIDTH} bits wide at 'elementwise', not {width}"
        return new

    def prelu(self, node: fx.Node, layer: nn.PReLU, path: str) -> nn.Module | str:
        if layer.weight.numel() == 1:
            return self.table(node, layer, path)
        if flattened_from(self.module, node.args[0]):
            return "it must not read a flattened image: put it before the Flatten"
        new = PReLU.from_float(layer, self.recipe.spec(path, "constant"), self.recipe.spec(path, "elementwise"))
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def max_pool(self, node: fx.Node, layer: nn.MaxPool2d | nn.MaxPool1d, path: str) -> nn.Module | str:
        if layer.ceil_mode or layer.return_indices or layer.dilation not in (1, (1, 1)):
            return "it must have dilation 1, and neither ceil_mode nor return_indices"
        zeros = self._take_padding(node)
        if any(zeros) and not never_negative(self.module, node.args[0]):
            return (
                "it must have padding of its own, which never wins, and not zeros before it: they may exceed its input"
            )
        kernel, stride, padding = pool_window(layer, zeros)
        if not inside(kernel, padding):
            return f"its padding {padding} must be smaller than its kernel {kernel}"
        new = MaxPool2d(kernel, stride, padding, input_spec=self.recipe.spec(path, "elementwise"))
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def avg_pool(self, node: fx.Node, layer: nn.AvgPool2d | nn.AvgPool1d, path: str) -> nn.Module | str:
        if layer.ceil_mode or (any(pool_window(layer, NO_PADDING)[2]) and not layer.count_include_pad):
            return "it must not have ceil_mode, and padding only with count_include_pad"
        kernel, stride, padding = pool_window(layer, self._take_padding(node))
        if not inside(kernel, padding):
            return f"its padding {padding} must be smaller than its kernel {kernel}"
        spec = self.recipe.spec(path, "elementwise")
        new = AvgPool2d(
            kernel,
            stride,
            padding,
            getattr(layer, "divisor_override", None),
            constant_spec=self.recipe.spec(path, "constant"),
            input_spec=spec,
            output_spec=spec,
        )
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def adaptive_pool(
        self, node: fx.Node, layer: nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool1d, path: str
    ) -> nn.Module | str:
        spec, constant = self.recipe.spec(path, "elementwise"), self.recipe.spec(path, "constant")
        given: Any = layer.output_size
        size = (
            given
            if isinstance(layer, nn.AdaptiveAvgPool2d)
            else (None, given[0] if isinstance(given, tuple) else given)
        )
        new = AdaptiveAvgPool2d(size, constant_spec=constant, input_spec=spec, output_spec=spec)
        if reason := uneven(new.output_size, shape_of(node.args[0])):
            return reason
        self._enter(node, new, path, "elementwise", "input_quant")
        return new

    def upsample(self, node: fx.Node, layer: nn.Upsample, path: str) -> nn.Module | str:
        return Upsample.from_float(layer)

    # Functional calls ---------------------------------------------------------------------------------------------

    def _call(self, node: fx.Node) -> None:
        path = self._free(scope(node) + call_name(node))
        if is_sum(node):
            self._add(node, path)
            return
        if operands := joined(node):
            self._concat(node, path, operands)
            return
        source = node.args[0] if node.args else None
        layers = as_modules(node, self._rank(source) if isinstance(source, fx.Node) else None)
        if layers is None:
            return
        last = source
        for place, layer in enumerate(layers):
            where = path if place == 0 else self._free(f"{path}_flatten")
            self.module.add_submodule(where, layer)
            with self.graph.inserting_before(node):
                last = self.graph.call_module(where, (last,))
            last.meta = dict(node.meta)
            if layer is not layers[-1]:
                last.meta.pop("shape", None)
            self._layer(last, layer)
        node.replace_all_uses_with(last)
        self.graph.erase_node(node)

    def _add(self, node: fx.Node, path: str) -> None:
        a, b = node.args[:2]
        assert isinstance(a, fx.Node) and isinstance(b, fx.Node)
        spec = self.recipe.spec(path, "elementwise")
        layer = Add(operand_spec=spec, output_spec=spec)
        new = self._replace(node, path, layer, a, b)
        if reason := unlike(self.module, a, b):
            self.problems[new] = reason
        self._enter(new, layer, path, "elementwise", "a_quant", 0)
        self._enter(new, layer, path, "elementwise", "b_quant", 1)
        operands = {"a_quant": layer.a_quant, "b_quant": layer.b_quant}
        layer.settled = frozenset(
            name for name, source in zip(operands, (a, b), strict=True) if self.left.get(source) is operands[name]
        )
        self._leave(new, layer)

    def _concat(self, node: fx.Node, path: str, operands: list[fx.Node]) -> None:
        if joins_channels(node, self._rank(operands[0])):
            new, reason = self._replace(node, path, Concat(), *operands), unjoinable(self.module, operands)
        else:
            new, reason = node, "it must join channels: torch.cat(tensors, 1)"
        if reason:
            self.problems[new] = reason

    # What is left -------------------------------------------------------------------------------------------------

    def _refuse(self) -> None:
        found: dict[fx.Node, str] = {}
        for node in self.graph.nodes:
            reason = self.problems.get(node) or misnamed(node)
            if reason is None and node.op in ("placeholder", "output"):
                continue
            known = node.op == "call_module" and is_layer(self.module.get_submodule(str(node.target)))
            part_of_refused = call_name(node) == "getitem" and not found.keys().isdisjoint(node.all_input_nodes)
            if reason is None and (known or part_of_refused):
                continue
            name = call_name(node)
            if node.op == "call_module":
                name = type(self.module.get_submodule(str(node.target))).__name__
            found[node] = f"  {node_path(node)} ({name}): {reason or remedy(name, node)}"
        lines = list(found.values())
        if lines:
            number = "1 layer or call" if len(lines) == 1 else f"{len(lines)} layers or calls"
            raise LowerError(
                f"the model must consist of layers that qfx knows, but {number} cannot be converted:\n"
                + "\n".join(lines)
            )


_MODULES: dict[type[nn.Module], Callable[..., nn.Module | str | None]] = {
    nn.Conv1d: _Conversion.conv,
    nn.Conv2d: _Conversion.conv,
    nn.ZeroPad1d: _Conversion.pad,
    nn.ZeroPad2d: _Conversion.pad,
    nn.ConstantPad1d: _Conversion.pad,
    nn.ConstantPad2d: _Conversion.pad,
    nn.Linear: _Conversion.linear,
    SquareDeformConv2d: _Conversion.deform,
    nn.BatchNorm2d: _Conversion.batch_norm,
    nn.BatchNorm1d: _Conversion.batch_norm,
    Normalize: _Conversion.normalize,
    nn.ReLU: _Conversion.relu,
    nn.Flatten: _Conversion.flatten,
    nn.ReLU6: _Conversion.hardtanh,
    nn.Hardtanh: _Conversion.hardtanh,
    **dict.fromkeys(FUNCTIONS, _Conversion.table),
    nn.PReLU: _Conversion.prelu,
    nn.MaxPool1d: _Conversion.max_pool,
    nn.AvgPool1d: _Conversion.avg_pool,
    nn.AdaptiveAvgPool1d: _Conversion.adaptive_pool,
    nn.MaxPool2d: _Conversion.max_pool,
    nn.AvgPool2d: _Conversion.avg_pool,
    nn.AdaptiveAvgPool2d: _Conversion.adaptive_pool,
    nn.Upsample: _Conversion.upsample,
    nn.UpsamplingNearest2d: _Conversion.upsample,
    nn.UpsamplingBilinear2d: _Conversion.upsample,
}
