"""How convert makes each of torch's layers a fixed-point one.

A function here takes the conversion, the node that calls the layer, the layer and its path, and returns the new layer,
or why there is none, or None where it has put the new layer in place itself.
"""

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from qfx.fixed import TABLE_WIDTH
from qfx.nn.affine import Affine, BatchNorm2d, Normalize
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.conversion import Conversion
from qfx.nn.deform import DeformConv2d, SquareDeformConv2d
from qfx.nn.elementwise import SATURATING, Flatten, Hardtanh, ReLU
from qfx.nn.gated import WIDEST_WEIGHT, GatedConv2d, PrecisionGatedConv2d
from qfx.nn.geometry import NO_PADDING, added, beyond, inside, pool_window
from qfx.nn.move_calls import flawed
from qfx.nn.moves import ChannelShuffle, PixelShuffle, ZeroPad
from qfx.nn.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from qfx.nn.prelu import PReLU
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Spec
from qfx.nn.results import never_negative, odd_levels_of
from qfx.nn.shapes import flattened_from, shape_of, sizes, uneven
from qfx.nn.sharing import share
from qfx.nn.softmax import Softmax
from qfx.nn.table import FUNCTIONS, Table
from qfx.nn.transposed import ConvTranspose2d
from qfx.nn.upsample import Upsample
from qfx.nn.view_calls import image_of_features


def _pad(conversion: Conversion, node: fx.Node, layer: nn.ConstantPad1d | nn.ConstantPad2d, path: str) -> str | None:
    """Zeros wait for what reads them: convolutions and pools take them as padding, for all else `pad_alone` is."""
    left, right, top, bottom = (*layer.padding, 0, 0)[:4]
    if layer.value != 0 or min(layer.padding) < 0:
        return f"it must add zeros, not {layer.value} at {layer.padding}"
    if conversion.rank(node.args[0]) == 2:
        return "it must pad an image or a signal, not features: pad them before the Flatten"
    conversion.padding[node] = (top, bottom, left, right)
    return None


def pad_alone(conversion: Conversion, node: fx.Node) -> None:
    """Put the layer of zeros that are not taken as padding in their place; none where there are no zeros."""
    path, padding = str(node.target), conversion.padding[node]
    if padding == NO_PADDING:
        node.replace_all_uses_with(node.args[0])
        conversion.graph.erase_node(node)
        return
    new = ZeroPad(padding, input_spec=conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "input_quant")
    conversion.module.add_submodule(path, new)


def _activation(conversion: Conversion, node: fx.Node, path: str) -> Spec:
    """The format of what a layer with weights reads: the odd integers of a binary activation have theirs already."""
    spec, odd = conversion.recipe.spec(path, "activation"), odd_levels_of(conversion.module, node.args[0])
    return spec if odd is None or conversion.recipe.names(path, "activation") else odd


def _conv(conversion: Conversion, node: fx.Node, layer: nn.Conv2d | nn.Conv1d, path: str) -> nn.Module | str:
    if layer.padding_mode != "zeros":
        return f"its padding_mode must be 'zeros', not '{layer.padding_mode}'"
    new = Conv2d.from_float(layer, conversion.recipe.spec(path, "weight"), _activation(conversion, node, path))
    new.padding = added(new.padding, conversion.take_padding(node))
    conversion.enter(node, new, path, "activation", "input_quant")
    return new


def _conv_transpose(
    conversion: Conversion, node: fx.Node, layer: nn.ConvTranspose2d | nn.ConvTranspose1d, path: str
) -> nn.Module | str:
    if len(node.args) > 1 or node.kwargs:
        return "it must have output_padding, and no output_size in its call"
    weight, activation = conversion.recipe.spec(path, "weight"), conversion.recipe.spec(path, "activation")
    new = ConvTranspose2d.from_float(layer, weight, activation)
    conversion.enter(node, new, path, "activation", "input_quant")
    return new


def _linear(conversion: Conversion, node: fx.Node, layer: nn.Linear, path: str) -> nn.Module:
    new = Linear.from_float(layer, conversion.recipe.spec(path, "weight"), _activation(conversion, node, path))
    conversion.enter(node, new, path, "activation", "input_quant")
    return new


def _deform(conversion: Conversion, node: fx.Node, layer: SquareDeformConv2d, path: str) -> nn.Module:
    weight, offset = conversion.recipe.spec(path, "weight"), conversion.recipe.spec(f"{path}.offset", "weight")
    new = DeformConv2d.from_float(layer, weight, conversion.recipe.spec(path, "activation"), offset)
    conversion.enter(node, new, path, "activation", "input_quant")
    share(new.offset, "input_quant", new.input_quant)
    return new


def _gated(conversion: Conversion, node: fx.Node, layer: PrecisionGatedConv2d, path: str) -> nn.Module | str:
    if flattened_from(conversion.module, node.args[0]):
        return "it must read an image, not a flattened one"
    spec = conversion.recipe.spec(path, "weight")
    if spec.width > WIDEST_WEIGHT:
        return f"its weights must be at most {WIDEST_WEIGHT} bits wide, not {spec.width}"
    new = GatedConv2d(layer, spec)
    new.padding = added(new.padding, conversion.take_padding(node))
    return new


def _batch_norm(
    conversion: Conversion, node: fx.Node, layer: nn.BatchNorm2d | nn.BatchNorm1d, path: str
) -> nn.Module | str | None:
    if layer.running_mean is None:
        return "it must track running statistics (track_running_stats=True)"
    if flattened_from(conversion.module, node.args[0]):
        return "it must not read a flattened image: put a BatchNorm2d before the Flatten"
    if not conversion.recipe.fold(path):
        constant, output = conversion.recipe.spec(path, "constant"), conversion.recipe.spec(path, "elementwise")
        return BatchNorm2d.from_float(layer, constant, output)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    conv = conversion.module.get_submodule(str(source.target)) if source.op == "call_module" else None
    if not isinstance(conv, Conv2d | ConvTranspose2d) or len(source.users) > 1 or conv.norm:
        return "to be folded, it must stand alone behind a convolution: leave 'fold' out for it"
    folded = BatchNorm2d.from_float(layer, CONSTANT, ELEMENTWISE, folded=True)
    conversion.module.add_submodule(path, folded)
    conv.norm.append(folded)
    node.replace_all_uses_with(source)
    conversion.graph.erase_node(node)
    return None


def _normalize(conversion: Conversion, node: fx.Node, layer: Normalize, path: str) -> nn.Module | str:
    if flattened_from(conversion.module, node.args[0]):
        return "it must not read a flattened image: put it before the Flatten"
    constant, output = conversion.recipe.spec(path, "constant"), conversion.recipe.spec(path, "elementwise")
    return Affine(layer.scale, layer.shift, constant_spec=constant, output_spec=output)


def _relu(conversion: Conversion, node: fx.Node, layer: nn.Module, path: str) -> nn.Module:
    return ReLU()


def _flatten(conversion: Conversion, node: fx.Node, layer: nn.Flatten, path: str) -> nn.Module | str:
    rank, axes = conversion.rank(node), (layer.start_dim, layer.end_dim)
    if axes == (1, -1) or (rank is not None and (axes[0] % rank, axes[1] % rank) == (1, rank - 1)):
        return Flatten()
    return f"it must flatten all axes but the first, 1 to -1, not {axes[0]} to {axes[1]}"


def _hardtanh(conversion: Conversion, node: fx.Node, layer: nn.Hardtanh, path: str) -> nn.Module | str:
    new = Hardtanh(layer.min_val, layer.max_val, spec=conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "quant")
    overflow = new.quant.spec.overflow
    return new if overflow in SATURATING else f"it must have overflow SAT or SAT_SYM at 'elementwise', not {overflow}"


def _table(conversion: Conversion, node: fx.Node, layer: nn.Module, path: str) -> nn.Module | str:
    spec = conversion.recipe.spec(path, "elementwise")
    specs = [spec, spec]
    if isinstance(layer, Table) and not conversion.recipe.names(path, "elementwise"):
        stated = (layer.input_quant.spec, layer.output_quant.spec)
        specs = [own if own != ELEMENTWISE else spec for own in stated]
    new = Table.from_float(layer, *specs)
    conversion.enter(node, new, path, "elementwise", "input_quant")
    width = new.input_quant.width
    if width > TABLE_WIDTH:
        return f"its input must be at most {TABLE_WIDTH} bits wide at 'elementwise', not {width}"
    if conversion.recipe.learns_table(path):
        if new.input_quant.spec.learn_width:
            return "its input must have no learn_width at 'elementwise', since its table is learned: state a width"
        new.learn()
    return new


def _prelu(conversion: Conversion, node: fx.Node, layer: nn.PReLU, path: str) -> nn.Module | str:
    if layer.weight.numel() == 1:
        return _table(conversion, node, layer, path)
    if flattened_from(conversion.module, node.args[0]):
        return "it must not read a flattened image: put it before the Flatten"
    new = PReLU.from_float(layer, conversion.recipe.spec(path, "constant"), conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _max_pool(conversion: Conversion, node: fx.Node, layer: nn.MaxPool2d | nn.MaxPool1d, path: str) -> nn.Module | str:
    if layer.return_indices or layer.dilation not in (1, (1, 1)):
        return "it must have dilation 1, and no return_indices"
    own = layer.ceil_mode or not never_negative(conversion.module, conversion.before_padding(node))
    kernel, stride, padding = pool_window(layer, NO_PADDING if own else conversion.take_padding(node))
    if layer.ceil_mode:
        shape = shape_of(node.args[0])
        if shape is None:
            return "it must have an example where it has ceil_mode, which tells how large its input is"
        padding = added(padding, beyond(((1,) * (3 - len(shape)) + shape[1:]), kernel, stride, padding))
    if not inside(kernel, padding):
        return f"its padding {padding} must be smaller than its kernel {kernel}"
    new = MaxPool2d(kernel, stride, padding, input_spec=conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _avg_pool(conversion: Conversion, node: fx.Node, layer: nn.AvgPool2d | nn.AvgPool1d, path: str) -> nn.Module | str:
    if layer.ceil_mode or (any(pool_window(layer, NO_PADDING)[2]) and not layer.count_include_pad):
        return "it must not have ceil_mode, and padding only with count_include_pad"
    kernel, stride, padding = pool_window(layer, conversion.take_padding(node))
    if not inside(kernel, padding):
        return f"its padding {padding} must be smaller than its kernel {kernel}"
    spec = conversion.recipe.spec(path, "elementwise")
    new = AvgPool2d(
        kernel,
        stride,
        padding,
        getattr(layer, "divisor_override", None),
        constant_spec=conversion.recipe.spec(path, "constant"),
        input_spec=spec,
        output_spec=spec,
    )
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _adaptive_pool(
    conversion: Conversion, node: fx.Node, layer: nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool1d, path: str
) -> nn.Module | str:
    spec, constant = conversion.recipe.spec(path, "elementwise"), conversion.recipe.spec(path, "constant")
    new = AdaptiveAvgPool2d(_windows(layer), constant_spec=constant, input_spec=spec, output_spec=spec)
    if reason := uneven(new.output_size, shape_of(node.args[0])):
        return reason
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _adaptive_max_pool(
    conversion: Conversion, node: fx.Node, layer: nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool1d, path: str
) -> nn.Module | str:
    if layer.return_indices:
        return "it must not have return_indices"
    new = AdaptiveMaxPool2d(_windows(layer), input_spec=conversion.recipe.spec(path, "elementwise"))
    if reason := uneven(new.output_size, shape_of(node.args[0])):
        return reason
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _windows(layer: Any) -> Any:
    """How many windows an adaptive pool has along rows and columns, of a signal along its length."""
    size = layer.output_size
    if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return size
    return None, size[0] if isinstance(size, tuple) else size


def _softmax(conversion: Conversion, node: fx.Node, layer: nn.Softmax | nn.Softmax2d, path: str) -> nn.Module | str:
    rank = conversion.rank(node.args[0])
    axis = -3 if isinstance(layer, nn.Softmax2d) else layer.dim
    if axis is None or not (axis == 1 or (axis < 0 and axis + (rank or 0) == 1)):
        return f"it must be over the channels, dim=1, not {axis}"
    spec = conversion.recipe.spec(path, "elementwise")
    if spec.width > TABLE_WIDTH:
        return f"its input must be at most {TABLE_WIDTH} bits wide at 'elementwise', not {spec.width}"
    new = Softmax(spec=spec)
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _channel_shuffle(conversion: Conversion, node: fx.Node, layer: nn.ChannelShuffle, path: str) -> nn.Module | str:
    new = ChannelShuffle(layer.groups)
    return flawed(new, node.args[0]) or new


def _pixel_shuffle(conversion: Conversion, node: fx.Node, layer: nn.PixelShuffle, path: str) -> nn.Module | str:
    factor, shape = layer.upscale_factor, shape_of(node.args[0])
    if factor < 1 or (shape and shape[0] % factor**2):
        channels = f" of {shape[0]} channels" if shape else ""
        return f"its square of upscale_factor must divide the channels, not be {factor}x{factor}{channels}"
    new = PixelShuffle(factor, input_spec=conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _unflatten(conversion: Conversion, node: fx.Node, layer: nn.Unflatten, path: str) -> nn.Module | str:
    sizes = layer.unflattened_size
    if layer.dim != 1 or not all(type(size) is int for size in sizes) or len(sizes) not in (2, 3):
        return f"it must make an image (C, H, W) of the features, dim=1, not {tuple(sizes)} of axis {layer.dim}"
    return image_of_features(conversion, node, path, tuple(sizes[1:]))


def _upsample(conversion: Conversion, node: fx.Node, layer: nn.Upsample, path: str) -> nn.Module | str:
    shape = shape_of(node.args[0])
    if layer.size is not None and layer.scale_factor is None and shape:
        size = layer.size if isinstance(layer.size, tuple | list) else (layer.size,) * (len(shape) - 1)
        factors = tuple(wanted / given for wanted, given in zip(size, shape[1:], strict=True))
        if not all(factor >= 1 and factor == int(factor) for factor in factors):
            return f"its size must be a whole multiple of {sizes(shape[1:])}, not {sizes(tuple(size))}"
        layer = nn.Upsample(scale_factor=factors, mode=layer.mode)
    return Upsample.from_float(layer)


MODULES: dict[type[nn.Module], Callable[..., nn.Module | str | None]] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.ZeroPad1d: _pad,
    nn.ZeroPad2d: _pad,
    nn.ConstantPad1d: _pad,
    nn.ConstantPad2d: _pad,
    nn.ConvTranspose1d: _conv_transpose,
    nn.ConvTranspose2d: _conv_transpose,
    nn.ChannelShuffle: _channel_shuffle,
    nn.PixelShuffle: _pixel_shuffle,
    nn.Linear: _linear,
    SquareDeformConv2d: _deform,
    PrecisionGatedConv2d: _gated,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    Normalize: _normalize,
    nn.ReLU: _relu,
    nn.Flatten: _flatten,
    nn.ReLU6: _hardtanh,
    nn.Hardtanh: _hardtanh,
    **dict.fromkeys((*FUNCTIONS, Table), _table),
    nn.PReLU: _prelu,
    nn.MaxPool1d: _max_pool,
    nn.AvgPool1d: _avg_pool,
    nn.AdaptiveAvgPool1d: _adaptive_pool,
    nn.AdaptiveMaxPool1d: _adaptive_max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.AdaptiveMaxPool2d: _adaptive_max_pool,
    nn.Unflatten: _unflatten,
    nn.Softmax: _softmax,
    nn.Softmax2d: _softmax,
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.UpsamplingBilinear2d: _upsample,
}
