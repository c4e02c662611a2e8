"""convert: a float torch model becomes a fixed-point one, functional calls included."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from qfx.errors import LowerError, said
from qfx.nn.affine import BatchNorm2d
from qfx.nn.binary import BinaryActivation, Thermometer
from qfx.nn.calibrate import floating, name_quantizers
from qfx.nn.calls import convert_call
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.conversion import Conversion
from qfx.nn.converters import MODULES, pad_alone
from qfx.nn.describe import WAS
from qfx.nn.elementwise import ReLU
from qfx.nn.float_optimizer import remember
from qfx.nn.gated import GatedConv2d
from qfx.nn.in_place import refuse_in_place, require_same
from qfx.nn.inputs import home
from qfx.nn.instead import instead, remedy
from qfx.nn.move_calls import convert_move
from qfx.nn.operators import NUMBER
from qfx.nn.prelu import PReLU
from qfx.nn.quantizer import ChannelError, Quantizer
from qfx.nn.ready import require_ready
from qfx.nn.recipe import Recipe, placed
from qfx.nn.reduce_calls import convert_reduction
from qfx.nn.shapes import flattened_from, misread, require_batch, shape_of
from qfx.nn.sharing import tie
from qfx.nn.spelling import as_modules, is_helper
from qfx.nn.table import Table
from qfx.nn.trace import call_name, is_layer, is_leaf, misnamed, misreturned, node_path, scope, trace
from qfx.nn.transposed import ConvTranspose2d
from qfx.nn.view_calls import convert_view


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
    traced = _traced(_copied(model), example)
    if example is not None:
        require_batch(traced, example)
        require_same(model, traced, example)
    with placed(recipe if isinstance(recipe, Path) else None):
        converted = _run(Conversion(traced, Recipe(recipe))).to(home(model))
    if example is not None:
        with floating(converted), torch.no_grad():
            converted.eval()(example)
    remember(model)
    return converted.train(training)  # type: ignore[return-value]


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the user's attributes raise
        raise LowerError(
            f"model must be a network that copy.deepcopy takes, which ends in {said(error)}: remove the attribute that "
            "it does not take (a function of torch.jit.script, a tensor that is computed of parameters, a lock)"
        ) from error


def _traced(model: nn.Module, example: Tensor | None) -> fx.GraphModule:
    """Return what ``trace`` does, or refuse the model with the layers that are in the way beside that."""
    try:
        return trace(model, example)
    except LowerError as error:
        unknown = [
            f"  {path} ({type(module).__name__}): {instead(type(module).__name__)}"
            for path, module in model.named_modules()
            if path and is_leaf(module) and type(module) not in MODULES and not is_layer(module)
        ]
        if not unknown:
            raise
        raise LowerError(
            "\n".join((f"{error}; beside that there are layers that qfx does not know:", *unknown))
        ) from error


def _run(conversion: Conversion) -> fx.GraphModule:
    refuse_in_place(conversion.graph, conversion.floats)
    conversion.graph.eliminate_dead_code()  # what no output needs stays a float layer, which is never called
    for node in list(conversion.graph.nodes):
        match node.op:
            case "placeholder":
                _input(conversion, node)
            case "call_module":
                _layer(conversion, node, conversion.floats[str(node.target)])
            case "call_function" | "call_method":
                _call(conversion, node)
            case "output":
                _output(conversion, node)
    conversion.graph.eliminate_dead_code()
    for node in [node for node in conversion.graph.nodes if node in conversion.padding]:
        pad_alone(conversion, node)
    kept = {str(node.target) for node in conversion.graph.nodes}
    for place in {str(node.target) for node in conversion.padding} - kept:
        conversion.module.delete_submodule(place)
    for place in [name for name, _ in conversion.module.named_buffers() if name.startswith(NUMBER)]:
        if place not in kept:
            delattr(conversion.module, place)  # what a forward made itself is a constant of its layer
    _refuse(conversion)
    conversion.recipe.check_used(conversion.was)
    conversion.graph.lint()
    conversion.module.recompile()
    conversion.module.meta[WAS] = conversion.was
    name_quantizers(conversion.module)
    _rectify(conversion.module)
    return conversion.module


def _rectify(module: fx.GraphModule) -> None:
    """Let the results that ReLUs alone read be unsigned."""
    layers = dict(module.named_modules())
    for node in module.graph.nodes:
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        quantizer = getattr(layer, "output_quant", None)
        readers = [layers.get(str(user.target)) for user in node.users]
        if isinstance(quantizer, Quantizer) and readers and all(isinstance(each, ReLU) for each in readers):
            quantizer.rectify()


def _input(conversion: Conversion, node: fx.Node) -> None:
    if node.prev.op != "root":
        conversion.problems[node] = "it must be the only input: concatenate the inputs before the network"
        return
    shape = shape_of(node)
    if shape is not None and len(shape) not in (1, 2, 3):
        conversion.problems[node] = f"it must be (N, C, H, W), (N, C, L) or (N, features), not of {len(shape) + 1} axes"
    path = conversion.free("input")
    users = list(node.users)
    new = conversion.insert(path, Quantizer(conversion.recipe.spec(path, "input"), axis=1), node, node)
    new.meta = node.meta
    for user in users:
        user.replace_input_with(node, new)
    conversion.declared.add(new)


def _output(conversion: Conversion, node: fx.Node) -> None:
    if reason := misreturned(node):
        conversion.problems[node] = reason
        return

    def quantize(result: fx.Node) -> fx.Node:
        if flattened_from(conversion.module, result):
            conversion.problems.setdefault(
                result,
                "it must not be the network's result, since the order of a flattened image is (height, width, "
                "channel) here: give the image itself, or put a Linear behind",
            )
        path = conversion.free("output")
        return conversion.insert(path, Quantizer(conversion.recipe.spec(path, "output"), axis=1), result, result)

    node.args = fx.map_arg(node.args, quantize)


def _layer(conversion: Conversion, node: fx.Node, layer: nn.Module) -> None:
    if isinstance(layer, nn.Identity):
        conversion.was[str(node.target)] = "Identity"
        node.replace_all_uses_with(node.args[0])
        conversion.graph.erase_node(node)
        return
    path = str(node.target)
    again = path in conversion.called
    tied = again and next(layer.parameters(), None) is not None
    conversion.called.add(path)
    converter = MODULES.get(type(layer))
    if converter is None and is_layer(layer):
        conversion.was.setdefault(path, type(layer).__name__)
        if reason := _misplaced(conversion, node, layer):
            conversion.problems[node] = reason
    if converter is None:
        return
    place = conversion.free(path) if again else path
    conversion.was.setdefault(place, type(layer).__name__)
    try:
        new = misread(layer, shape_of(node.args[0])) or converter(conversion, node, layer, place)
    except ChannelError as error:
        new = str(error)
    if tied and not isinstance(new, str):
        new = _tied(conversion, new, path, place) or new
    if isinstance(new, str):
        conversion.problems[node] = new
    elif new is not None:
        conversion.module.add_submodule(place, new)
        node.target = place
        conversion.leave(node, new)


def _misplaced(conversion: Conversion, node: fx.Node, layer: nn.Module) -> str | None:
    """Return why a layer that is the same in float and in fixed point must not read what it reads, or None."""
    if isinstance(layer, BinaryActivation | Thermometer) and flattened_from(conversion.module, node.args[0]):
        return "it must not read a flattened image: put it before the Flatten"
    return None


def _tied(conversion: Conversion, new: nn.Module | None, path: str, place: str) -> str | None:
    """Let another call of the layer at ``path`` own its formats only, or return why it cannot."""
    new = new or conversion.module.get_submodule(place)  # a folded BatchNorm has its place already
    if not isinstance(new, Conv2d | ConvTranspose2d | Linear | GatedConv2d | BatchNorm2d | PReLU | Table):
        return "it is called twice: use one module for each call"
    for point in ("weight", "constant"):
        recipe = conversion.recipe
        if recipe.names(place, point) and recipe.spec(place, point) != recipe.spec(path, point):
            return f"it is called twice with one {point}: '{place}' must have that of '{path}' in the recipe"
    first = conversion.module.get_submodule(path)
    if isinstance(new, Table) and isinstance(first, Table) and first.offset is not None:
        if new.input_quant.width != first.input_quant.width:
            return (
                f"it is called twice with one learned table: its input must have {first.input_quant.width} bits at "
                f"'elementwise' as in '{path}', not {new.input_quant.width}"
            )
    tie(new, first)
    return None


_CALLS = (convert_call, convert_view, convert_move, convert_reduction)


def _call(conversion: Conversion, node: fx.Node) -> None:
    path = conversion.free(scope(node) + call_name(node))
    if any(placed_by(conversion, node, path) for placed_by in _CALLS):
        if node in conversion.problems and node not in conversion.reduced:
            conversion.paths[node] = path
        return
    source = node.args[0] if node.args else None
    layers = as_modules(node, conversion.rank(source) if isinstance(source, fx.Node) else None)
    if layers is None:
        conversion.paths[node] = path
        return
    last = source
    for place, layer in enumerate(layers):
        where = path if place == 0 else conversion.free(f"{path}_flatten")
        conversion.module.add_submodule(where, layer)
        conversion.was[where] = call_name(node)
        with conversion.graph.inserting_before(node):
            last = conversion.graph.call_module(where, (last,))
        last.meta = dict(node.meta)
        if layer is not layers[-1]:
            last.meta.pop("shape", None)
        _layer(conversion, last, layer)
    node.replace_all_uses_with(last)
    conversion.graph.erase_node(node)


def _refuse(conversion: Conversion) -> None:
    lines = []
    for node, reason in _refused(conversion).items():
        name = call_name(node)
        if node.op == "call_module":
            name = type(conversion.module.get_submodule(str(node.target))).__name__
        path = conversion.paths.get(node) or node_path(node)
        lines.append(f"  {path} ({name}): {reason or remedy(name, node)}")
    if lines:
        number = "1 layer or call" if len(lines) == 1 else f"{len(lines)} layers or calls"
        raise LowerError(
            f"the model must consist of layers that qfx knows, but {number} cannot be converted:\n" + "\n".join(lines)
        )


def _refused(conversion: Conversion) -> dict[fx.Node, str | None]:
    """Return the nodes that cannot be converted, with the reason where one is known, but none that only follows.

    Parts and sizes of what is refused follow from it, and so do parameters, sizes and parts that refused calls read.
    """
    found: dict[fx.Node, str | None] = {}
    for node in conversion.graph.nodes:
        reason = conversion.problems.get(node) or misnamed(node)
        known = node.op == "call_module" and is_layer(conversion.module.get_submodule(str(node.target)))
        if reason is not None or not (known or node.op in ("placeholder", "output")):
            found[node] = reason

    def follows(node: fx.Node) -> bool:
        readers = node.users.keys() & found.keys()
        return is_helper(node) and (
            any(read in found for read in node.all_input_nodes) or 0 < len(readers) == len(node.users)
        )

    return {node: reason for node, reason in found.items() if reason is not None or not follows(node)}
