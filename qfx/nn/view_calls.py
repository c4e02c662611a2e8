"""How convert makes other shapes of the same values layers: features as an image of a pixel, a pixel as features."""

from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from qfx.nn.conversion import Conversion
from qfx.nn.elementwise import Flatten
from qfx.nn.moves import ALL, Detach, PixelShuffle, Slice, Unflatten
from qfx.nn.reduce_calls import place_reduction
from qfx.nn.shapes import flattened_from, shape_of
from qfx.nn.spelling import is_size, listed
from qfx.nn.trace import call_name

_SAME = ("contiguous", "clone", "float", "cpu", "cuda", "type_as")  # the values as they are: networks are float32
_REPEATS = ("add", "iadd", "sub", "isub", "subtract", "mul", "imul", "multiply")


def convert_view(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put layers at ``path`` in the place of a call that gives its tensor other axes, and return whether it was one."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return False
    if source in conversion.reduced:
        return _of_reduced(conversion, node, path)
    if call_name(node) == "detach":
        conversion.replace(node, path, Detach(), source)
        return True
    if _is_same(node):
        node.replace_all_uses_with(source)
        return True
    if call_name(node) in ("expand", "expand_as"):
        return _repeated(node, source)
    if _squeezed(conversion, node, path, source):
        return True
    if call_name(node) == "getitem" and (place := _one_place(node)) is not None:
        slice_ = conversion.insert(path, place, source, source)
        conversion.was[path] = "getitem"
        conversion.replace(node, conversion.free(f"{path}_flatten"), Flatten(), slice_)
        return True
    sizes = _added(conversion, node, source)
    if sizes is None:
        return False
    layer = image_of_features(conversion, node, path, sizes)
    if isinstance(layer, str):
        conversion.problems[node] = layer
    else:
        given = node.args[0]
        assert isinstance(given, fx.Node)
        conversion.replace(node, path, layer, given)
    return True


def image_of_features(conversion: Conversion, node: fx.Node, path: str, sizes: tuple[int, ...]) -> nn.Module | str:
    """Return the layer that makes features (N, C*H*W) the image (N, C, H, W), or why there is none.

    Args:
        sizes: H and W, or the length of a signal.
    """
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if conversion.rank(source) not in (None, 2):
        return "it must read features (N, C), as a Linear gives them"
    if flattened_from(conversion.module, source):
        return "it must not read a flattened image: put a Linear between, or leave both out"
    if set(sizes) == {1}:
        return Unflatten(len(sizes))
    if len(sizes) != 2:
        return f"it must make an image (C, H, W) of the features, or a signal of length 1, not one of length {sizes[0]}"
    one = conversion.insert(conversion.free(f"{path}_pixel"), Unflatten(2), source, source)
    if (shape := shape_of(source)) is not None:
        one.meta["shape"] = (*shape, 1, 1)
    node.update_arg(0, one)
    new = PixelShuffle((sizes[0], sizes[1]), input_spec=conversion.recipe.spec(path, "elementwise"))
    conversion.enter(node, new, path, "elementwise", "input_quant")
    return new


def _is_same(node: fx.Node) -> bool:
    """Whether a call changes no value: ``x.contiguous()``, ``x.to(device)``, ``x.to(torch.float32)``."""
    if call_name(node) not in ("to", "type"):
        return call_name(node) in _SAME
    given = (*node.args[1:], *node.kwargs.values())
    return all(each == torch.float32 for each in given if isinstance(each, torch.dtype))


def _of_reduced(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """What reads a reduction over channels that has not kept their axis: it comes back, or all is flattened."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    found = conversion.reduced[source]
    if found.axes != (1,):
        return False
    rank = found.rank or 4
    back = call_name(node) == "unsqueeze" and _axis(node) in (1, 1 - rank)
    if call_name(node) == "getitem" and isinstance(node.args[1], tuple):
        back = node.args[1][:2] == (slice(None), None) and all(each == slice(None) for each in node.args[1][2:])
    flat = call_name(node) == "flatten" and listed(node) in ((1,), (1, -1))
    if call_name(node) in ("view", "reshape"):
        sizes = listed(node)
        flat = len(sizes) == 2 and is_size(sizes[0], 0) and sizes[1] == -1
    if back or flat:
        place_reduction(conversion, node, path, replace(found, keepdim=back))
    return back or flat


def _repeated(node: fx.Node, source: fx.Node) -> bool:
    """An expanded tensor that sums and products alone read: they repeat it, where the other operand is whole."""
    for user in node.users:
        others = [operand for operand in user.args if operand is not node]
        whole = (
            len(others) == 1 and isinstance(others[0], fx.Node) and call_name(others[0]) not in ("expand", "expand_as")
        )
        if call_name(user) not in _REPEATS or not whole:
            return False
        alike = call_name(node) == "expand_as" and node.args[1:] == (others[0],)
        if not alike and (shape_of(node) is None or shape_of(node) != shape_of(others[0])):
            return False
    node.replace_all_uses_with(source)
    return True


def _squeezed(conversion: Conversion, node: fx.Node, path: str, source: fx.Node) -> bool:
    """Put a Flatten in the place of a squeeze of an image of one pixel; of one of its axes, a signal of length 1."""
    shape, axes = shape_of(source), listed(node)
    if (
        call_name(node) != "squeeze"
        or shape is None
        or set(shape[1:]) != {1}
        or not axes
        or not all(map(_is_int, axes))
    ):
        return False
    gone = sorted(axis % (len(shape) + 1) for axis in axes)
    if gone != list(range(2, len(shape) + 1)) and (len(shape), gone) not in ((3, [2]), (3, [3])):
        return False
    last = conversion.replace(node, path, Flatten(), source)
    if len(gone) < len(shape) - 1:
        users = list(last.users)
        signal = conversion.insert(conversion.free(f"{path}_signal"), Unflatten(1), last, last)
        signal.meta, last.meta = dict(last.meta), {**last.meta, "shape": shape[:1]}
        for user in users:
            user.replace_input_with(last, signal)
    return True


def _one_place(node: fx.Node) -> Slice | None:
    """The layer of ``x[:, :, 0, 0]``, but for its axes."""
    index = node.args[1]
    if not isinstance(index, tuple) or len(index) not in (3, 4) or index[:2] != (slice(None), slice(None)):
        return None
    if not all(map(_is_int, index[2:])):
        return None
    steps = [(place, place + 1 or None, None) for place in index[2:]]
    return Slice(ALL, *steps) if len(steps) == 2 else Slice(ALL, ALL, steps[0])


def _added(conversion: Conversion, node: fx.Node, source: fx.Node) -> tuple[int, ...] | None:
    """The sizes of the axes that a call adds behind those of features, or None for another call."""
    name, rank = call_name(node), conversion.rank(source)
    if name == "unsqueeze":
        return _unsqueezed(conversion, node, source, rank)
    if rank != 2:
        return None
    if name == "getitem":
        return _indexed(node.args[1])
    if name == "unflatten":
        given = dict(zip(("dim", "sizes"), node.args[1:], strict=False)) | node.kwargs
        sizes = (None, *given["sizes"]) if given.get("dim") in (1, -1) else ()
    elif name in ("view", "reshape"):
        sizes = listed(node)
        sizes = sizes if sizes and (is_size(sizes[0], 0) or sizes[0] == -1) else ()
    else:
        return None
    behind = sizes[2:]
    return tuple(behind) if behind and all(_is_int(size) and size > 0 for size in behind) else None


def _unsqueezed(conversion: Conversion, node: fx.Node, source: fx.Node, rank: int | None) -> tuple[int, ...] | None:
    layer = conversion.module.get_submodule(str(source.target)) if source.op == "call_module" else None
    if isinstance(layer, Unflatten) and layer.axes == 1 and _axis(node) in (2, 3, -1, -2):
        node.update_arg(0, source.args[0])
        return 1, 1
    return (1,) if rank == 2 and _axis(node) in (2, -1) else None


def _indexed(index: Any) -> tuple[int, ...] | None:
    """The axes of ``x[:, :, None, None]`` or ``x[..., None, None]``."""
    if not isinstance(index, tuple) or None not in index:
        return None
    kept, added = index[: index.index(None)], index[index.index(None) :]
    if kept not in ((slice(None), slice(None)), (Ellipsis,)) or any(each is not None for each in added):
        return None
    return (1,) * len(added) if len(added) <= 2 else None


def _axis(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")


def _is_int(value: Any) -> bool:
    return type(value) is int
