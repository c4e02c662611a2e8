"""How convert makes calls that only move values layers: slices, chunks, padded and shuffled channels."""

import operator
from typing import Any

from torch import fx

from qfx.nn.conversion import Conversion
from qfx.nn.moves import ALL, ChannelChunk, ChannelShuffle, PadChannels, Select, Slice, Steps
from qfx.nn.shapes import flattened_from, shape_of, sizes
from qfx.nn.spelling import listed
from qfx.nn.trace import call_name

Layer = Slice | ChannelChunk | ChannelShuffle | PadChannels | Select

_AXES = "channels", "rows", "columns"


def convert_move(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put a layer at ``path`` in the place of a call that moves values of one tensor, and return whether it was one."""
    source, layer = _moved(conversion, node)
    if layer is None:
        return False
    if isinstance(layer, str):
        part = node.args[0] is not source  # of a chunk or split, which is to blame
        conversion.problems[node.all_input_nodes[0] if part else node] = layer
        return True
    reason = flawed(layer, source)
    if flattened_from(conversion.module, source):
        reason = "it must not read a flattened image: choose channels before the Flatten"
    new = conversion.replace(node, path, layer, source)
    if reason:
        conversion.problems[new] = reason
    return True


def flawed(layer: Layer, source: Any) -> str | None:
    """Return what the shape of a layer's input, where an example has told it, speaks against, or None."""
    shape = shape_of(source)
    if shape is None:
        return None
    if isinstance(layer, ChannelShuffle):
        even = shape[0] % layer.groups == 0
        return None if even else f"its groups must divide the {shape[0]} channels, not be {layer.groups}"
    if isinstance(layer, ChannelChunk):
        left = layer.chosen(shape[0])
        return None if left else f"it must leave something of {shape[0]} channels, not be part {layer.index} of them"
    if isinstance(layer, Slice):
        places = (layer.rows, layer.columns) if len(shape) == 3 else (layer.columns,)
        every = zip((layer.channels, *places), shape, strict=False)
        if not all(range(*slice(*steps).indices(size)) for steps, size in every):
            return f"it must leave something of {sizes(shape)}, not nothing"
    return None


def _moved(conversion: Conversion, node: fx.Node) -> tuple[Any, Layer | str | None]:
    """The tensor whose values a call moves, and the layer that does so, or why none does; None for another call."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return source, None
    name, of_part = call_name(node), call_name(source)
    if name == "getitem" and of_part in ("chunk", "split") and isinstance(source.args[0], fx.Node):
        number, tensor = node.args[1], source.args[0]
        return tensor, _part(source, number, conversion.rank(tensor)) if type(number) is int else None
    if (order := _order(node, source)) is not None:
        return source, order
    if name == "getitem" and node.target is operator.getitem and _is_tensor(source):
        return source, _sliced(node.args[1], conversion.rank(source))
    if name == "pad":
        return source, _padded(node, conversion.rank(source))
    if name in ("view", "reshape"):
        return _shuffled(node)
    return source, None


def _order(node: fx.Node, source: fx.Node) -> Layer | str | None:
    """The layer that puts channels in another order, or repeats them: by their numbers, or as a call asks for it."""
    name, given, shape = call_name(node), listed(node), shape_of(source)
    if name == "getitem" and isinstance(node.args[1], tuple) and len(node.args[1]) > 1:
        whole, chosen, *rest = node.args[1]
        numbers = isinstance(chosen, list) and all(type(channel) is int and channel >= 0 for channel in chosen)
        return Select(chosen) if numbers and all(each == slice(None) for each in (whole, *rest)) else None
    count, channels = len(shape) + 1 if shape else 4, tuple(range(shape[0])) if shape else ()
    match name, given:
        case "flip", (1,):
            order = channels[::-1]
        case "repeat", (1, int(times), *rest) if times > 0 and rest == [1] * (count - 2):
            order = channels * times
        case "repeat_interleave", (int(times), 1) if times > 0:
            order = tuple(channel for channel in channels for _ in range(times))
        case _:
            return None
    return Select(order) if order else "it must have an example, which tells how many channels there are"


def _is_tensor(node: fx.Node) -> bool:
    """Whether a node can be a tensor that is sliced, and no list of sizes or of tensors."""
    return call_name(node) not in ("size", "getattr", "unbind", "max", "min", "topk", "sort", "var_mean")


def _sliced(index: Any, rank: int | None) -> Layer | str | None:
    """The layer of ``x[index]``."""
    given = index if isinstance(index, tuple) else (index,)
    if Ellipsis in given:
        place = given.index(Ellipsis)
        if rank is None:
            return "it must have an example, or a slice for each axis instead of '...'"
        given = (*given[:place], *[slice(None)] * (rank + 1 - len(given)), *given[place + 1 :])
    if not all(isinstance(each, slice) for each in given):
        if given and isinstance(given[0], slice) and any(type(each) is int for each in given):
            return "it must keep its axes: take x[:, 0:1] instead of x[:, 0]"
        return None
    parts = [(each.start, each.stop, each.step) for each in given]
    if not all(part is None or type(part) is int for each in parts for part in each):
        return "its slices must have numbers for ends, none that depend on the input"
    if _whole(parts[0]) is False:
        return "it must keep the batch whole: the first slice must be ':'"
    return _slice(dict(enumerate(parts[1:])), rank)


def _whole(steps: Steps) -> bool:
    start, stop, step = steps
    return start in (None, 0) and stop is None and step in (None, 1)


def _slice(steps: dict[int, Steps], rank: int | None) -> Layer | str:
    """The layer that slices by the number of an axis: 0 channels, then rows and columns, or the length of a signal."""
    if rank == 3:
        steps = {2 * axis: each for axis, each in steps.items()}
    if max(steps, default=0) > 2:
        return "it must slice channels, rows and columns, no further axes"
    return Slice(*(steps.get(axis, ALL) for axis in range(3)))


def _part(call: fx.Node, number: int, rank: int | None) -> Layer | str | None:
    """The layer that gives part ``number`` of a chunk or split."""
    split = call_name(call) == "split"
    given = dict(zip(("sizes", "dim"), call.args[1:], strict=False)) | call.kwargs
    sizes_ = next((value for key, value in given.items() if key != "dim"), None)  # their name differs from call to call
    axis = given.get("dim", 0)
    if type(axis) is not int:
        return None
    axis += (rank or 4) if axis < 0 else 0
    if axis == 0:
        return f"it must {call_name(call)} channels, dim=1, and keep the batch whole"
    if not split:
        if axis != 1 or type(sizes_) is not int:
            return "it must chunk channels, dim=1: use torch.split or slices along other axes"
        return ChannelChunk(sizes_, number)
    if type(sizes_) is int:
        return _slice({axis - 1: (number * sizes_, (number + 1) * sizes_, None)}, rank)
    if not isinstance(sizes_, tuple | list) or not all(type(size) is int for size in sizes_):
        return "its sizes must be numbers, none that depend on the input"
    start = sum(sizes_[:number])
    return _slice({axis - 1: (start, start + sizes_[number], None)}, rank)


def _padded(node: fx.Node, rank: int | None) -> Layer | str | None:
    """The layer that pads channels, where a call of pad does that alone."""
    pad = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    if not isinstance(pad, tuple | list) or len(pad) % 2 or not all(type(side) is int for side in pad):
        return None
    first = 2 if rank == 3 else 4
    sides, channels = list(pad[:first]), list(pad[first : first + 2])
    if not any(channels):
        return None
    if any(sides) or any(pad[first + 2 :]):
        return "it must pad channels alone: pad the sides of an image in another call, right before a convolution"
    mode, value = [*node.args[2:4], None, None][:2]
    mode, value = mode or node.kwargs.get("mode", "constant"), value or node.kwargs.get("value")
    if mode != "constant" or value not in (None, 0, 0.0) or min(channels) < 0:
        return f"it must add channels of zeros, not {mode} {value or 0} at {tuple(channels)}"
    return PadChannels(*channels)


def _shuffled(node: fx.Node) -> tuple[Any, Layer | None]:
    """A shuffle of channels: ``x.view(n, groups, -1, h, w).transpose(1, 2)`` listed as an image again."""
    back = listed(node)
    turned = node.args[0]
    while isinstance(turned, fx.Node) and call_name(turned) == "contiguous":
        turned = turned.args[0]
    if not isinstance(turned, fx.Node) or not _exchanges(turned):
        return None, None
    apart = turned.args[0]
    if not isinstance(apart, fx.Node) or call_name(apart) not in ("view", "reshape"):
        return None, None
    there, source = listed(apart), apart.args[0]
    if len(there) != 5 or len(back) != 4 or type(there[1]) is not int or there[3:] != back[2:]:
        return None, None
    kept = all(type(size) is int or _is_size(size, source, axis) for axis, size in enumerate(there[3:], 2))
    return (source, ChannelShuffle(there[1])) if kept else (None, None)


def _exchanges(node: fx.Node) -> bool:
    """Whether a call exchanges axes 1 and 2."""
    if call_name(node) in ("transpose", "swapaxes"):
        return sorted(node.args[1:], key=str) == [1, 2]
    return call_name(node) == "permute" and listed(node) == (0, 2, 1, 3, 4)


def _is_size(size: Any, source: Any, axis: int) -> bool:
    """Whether a node is the size of a tensor along an axis."""
    if not isinstance(size, fx.Node):
        return False
    if call_name(size) == "size":
        return size.args == (source, axis)
    if size.target is not operator.getitem or size.args[1] not in (axis, axis - 4):
        return False
    of = size.args[0]
    known = isinstance(of, fx.Node) and (call_name(of) == "size" or of.args[1:] == ("shape",))
    return known and of.args[0] is source
