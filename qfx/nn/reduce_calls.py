"""How convert makes sums, means and largest values layers: ``x.mean(1, keepdim=True)``, ``x.amax((2, 3))``."""

from dataclasses import replace

from torch import fx, nn

from qfx.nn.conversion import Conversion, Reduction
from qfx.nn.elementwise import Flatten
from qfx.nn.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d
from qfx.nn.reduce import ChannelMax, ChannelMean
from qfx.nn.shapes import shape_of
from qfx.nn.trace import call_name, scope

_KINDS = {"sum": "sum", "mean": "mean", "amax": "max"}
_KEEP = "it must keep its axes: give it keepdim=True, which unsqueeze or flatten may follow"


def convert_reduction(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put layers at ``path`` in the place of a reduction, and return whether it was one that has a form.

    One whose result has too few axes for an image waits for what is done with it: see ``Conversion.reduced``.
    """
    found = _reduction(conversion, node)
    if found is None:
        return False
    if call_name(node) not in _KINDS:  # a part of what torch.max gives, which is traced where it is read
        path = conversion.free(f"{scope(node.args[0])}max")  # type: ignore[arg-type]
    before = conversion.reduced.get(found.source)
    if before is not None and before.axes != (1,) and _goes_on(before, found):
        found = replace(found, source=before.source, axes=(2, 3), rank=4)  # rows and columns, one behind the other
    if _is_pool(found):
        place_reduction(conversion, node, path, found)
        return True
    if found.axes in ((1,), (2,), (3,)):
        conversion.reduced[node] = found
        conversion.problems[node] = _KEEP
        return True
    return False


def _goes_on(before: Reduction, found: Reduction) -> bool:
    """Whether a reduction takes away the second axis of an image, as one before it the first."""
    return found.kind == before.kind and found.axes == (2,) and not found.keepdim


def place_reduction(conversion: Conversion, node: fx.Node, path: str, found: Reduction) -> None:
    """Put the layer of a reduction in the place of ``node``, and a Flatten where it does not keep its axes."""
    layer = _layer(conversion, path, found)
    pooled = conversion.insert(path, layer, node, found.source)
    pooled.meta, conversion.was[path] = dict(node.meta), call_name(node)
    if (shape := shape_of(found.source)) is not None:
        pooled.meta["shape"] = tuple(1 if axis in found.axes else size for axis, size in enumerate(shape, 1))
    conversion.enter(pooled, layer, path, "elementwise", "input_quant")
    conversion.leave(pooled, layer)
    last = pooled
    if not found.keepdim:
        last = conversion.insert(conversion.free(f"{path}_flatten"), Flatten(), pooled, pooled)
        last.meta, conversion.was[str(last.target)] = node.meta, call_name(node)
    node.replace_all_uses_with(last)
    conversion.graph.erase_node(node)


def _reduction(conversion: Conversion, node: fx.Node) -> Reduction | None:
    call, kind = node, _KINDS.get(call_name(node))
    if call_name(node) in ("getitem", "getattr") and isinstance(node.args[0], fx.Node):
        call = node.args[0]  # the values that torch.max gives beside their places
        kind = "max" if call_name(call) == "max" and node.args[1] in (0, "values") else None
    given = dict(zip(("input", "dim", "keepdim"), call.args, strict=False)) | call.kwargs
    source, keepdim = given.pop("input", None), bool(given.pop("keepdim", False))
    axes = given.pop("dim", given.pop("axis", None))
    axes = (axes,) if type(axes) is int else axes
    if kind is None or given or not isinstance(source, fx.Node) or not isinstance(axes, tuple | list):
        return None
    rank = conversion.rank(source) or (4 if len(axes) == 2 else None)
    if not all(type(axis) is int and (axis >= 0 or rank) for axis in axes):
        return None
    return Reduction(kind, source, tuple(sorted(axis % rank if rank else axis for axis in axes)), rank, keepdim)


def _is_pool(found: Reduction) -> bool:
    """Whether the result has axes that an image, a signal or features have."""
    if found.axes == (1,):
        return found.keepdim or found.rank == 3
    whole = (found.rank, found.axes) in ((3, (2,)), (4, (2, 3)))
    return whole or (found.rank == 4 and found.keepdim and found.axes in ((2,), (3,)))


def _layer(conversion: Conversion, path: str, found: Reduction) -> nn.Module:
    recipe, divisor = conversion.recipe, 1 if found.kind == "sum" else None
    spec = recipe.spec(path, "elementwise")
    windows = [1 if axis in found.axes else None for axis in (2, 3)]
    size = (None, 1) if found.rank == 3 else (windows[0], windows[1])
    if found.kind == "max":
        return ChannelMax(input_spec=spec) if found.axes == (1,) else AdaptiveMaxPool2d(size, input_spec=spec)
    specs = {"constant_spec": recipe.spec(path, "constant"), "input_spec": spec, "output_spec": spec}
    return ChannelMean(divisor, **specs) if found.axes == (1,) else AdaptiveAvgPool2d(size, divisor, **specs)
