"""What torch's functional calls are: the modules that they stand for, sums, concatenations, sizes."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from qfx.nn.sharing import borrow
from qfx.nn.table import Table
from qfx.nn.trace import call_name
from qfx.nn.tracer import DROPOUTS

RANDOM = (  # calls that give other values each time
    *DROPOUTS,
    *("rand_like", "randn_like", "bernoulli", "rrelu", "gumbel_softmax"),
)


def is_helper(node: fx.Node) -> bool:
    """Return whether a node has no values of its own: a parameter, a size, an element of a list."""
    return node.op == "get_attr" or call_name(node) in ("getitem", "getattr", "size")


def is_sum(node: fx.Node) -> bool:
    """Return whether a call adds two tensors that the network computes, and does nothing else."""
    tensors = [operand for operand in node.args if isinstance(operand, fx.Node) and operand.op != "get_attr"]
    return call_name(node) in ("add", "iadd") and len(tensors) == len(node.args) == 2 and not node.kwargs


def joined(node: fx.Node) -> list[fx.Node] | None:
    """Return the tensors that a call concatenates, along whichever axis, or None for another call."""
    if call_name(node) not in ("cat", "concat", "concatenate"):
        return None
    tensors = node.args[0] if node.args else node.kwargs.get("tensors")
    known = isinstance(tensors, tuple | list) and all(isinstance(tensor, fx.Node) for tensor in tensors)
    return list(tensors) if known else None  # type: ignore[arg-type]


def joins_channels(node: fx.Node, rank: int | None) -> bool:
    """Return whether a concatenation is along axis 1: of an image, -3, where the axes are not known."""
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    return axis == 1 or (isinstance(axis, int) and axis < 0 and axis + (rank or 4) == 1)


def as_modules(node: fx.Node, rank: int | None) -> list[nn.Module] | None:
    """Return torch's modules that a functional call stands for, one behind the other, or None.

    Args:
        rank: how many axes the call's tensor has, where that is known.
    """
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    args, kwargs = node.args[1:], {key: value for key, value in node.kwargs.items() if key != "inplace"}
    builder = _CALLS.get(call_name(node), _POOLS.get(node.target))
    try:
        if builder is not None and builder is not _prelu and _has_nodes((args, kwargs)):
            return None
        if builder is not None:
            return [builder(*args, **kwargs)]
        if call_name(node) == "mean":
            return _mean(rank, *args, **kwargs)
        return [nn.Flatten()] if call_name(node) in ("view", "reshape") and _keeps_batch(node) else None
    except (TypeError, _NotALayerError):  # spelled in a way that no module stands for
        return None


def _has_nodes(arguments: Any) -> bool:
    found: list[fx.Node] = []
    fx.map_arg(arguments, found.append)
    return bool(found)


class _NotALayerError(Exception):
    """The call's arguments are not those of a layer."""


def _clamp(min: Any = None, max: Any = None) -> nn.Module:
    if max is None and min == 0:
        return nn.ReLU()
    if not all(isinstance(bound, int | float) for bound in (min, max)):
        raise _NotALayerError
    return nn.Hardtanh(min, max)


def _clamp_min(min: Any) -> nn.Module:
    return _clamp(min)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> nn.Module:
    return nn.Hardtanh(min_val, max_val)


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _pad(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    sides = len(pad)
    if mode != "constant" or sides % 2 or sides > 4 and any(pad[4:]):
        raise _NotALayerError
    kinds: dict[int, type[nn.Module]] = {2: nn.ConstantPad1d, 4: nn.ConstantPad2d}
    return kinds[min(sides, 4)](tuple(pad[:4]), value or 0.0)


def _interpolate(size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
                 recompute_scale_factor: bool | None = None, antialias: bool = False) -> nn.Module:  # fmt: skip
    return nn.Upsample(size, scale_factor, mode, align_corners, recompute_scale_factor)


def _softmax(dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module:
    if dtype is not None:
        raise _NotALayerError
    return nn.Softmax(dim)


def _prelu(weight: Any) -> nn.Module:
    """The layer with the slope that the model owns elsewhere: it is saved and counted there only."""
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        raise _NotALayerError
    layer, owner = nn.PReLU(), weight.graph.owning_module
    assert owner is not None
    borrow(layer, "weight", operator.attrgetter(str(weight.target))(owner))
    return layer


def _power(exponent: Any) -> nn.Module:
    if not isinstance(exponent, int | float):
        raise _NotALayerError
    return Table(partial(torch.pow, exponent=exponent))


def _dropout(kind: type[nn.Module], p: float, training: bool) -> nn.Module:
    if training:
        raise _NotALayerError
    return kind(p)


def _mean(rank: int | None, dim: Any = None, keepdim: bool = False) -> list[nn.Module] | None:
    axes = (dim,) if isinstance(dim, int) else dim
    if not isinstance(axes, tuple | list):
        return None
    rank = rank or (4 if len(axes) == 2 else None)
    places = rank and sorted(axis % rank for axis in axes)
    if keepdim and rank == 4 and places in ([2], [3]):
        return [nn.AdaptiveAvgPool2d((1, None) if places == [2] else (None, 1))]
    if (rank, places) not in ((3, [2]), (4, [2, 3])):
        return None
    pool: nn.Module = nn.AdaptiveAvgPool1d(1) if rank == 3 else nn.AdaptiveAvgPool2d(1)
    return [pool] if keepdim else [pool, nn.Flatten()]


def _keeps_batch(node: fx.Node) -> bool:
    """Whether ``x.view(sizes)`` is ``(x.size(0), n)`` or ``(-1, n)``, spelled as may be; n may be -1, or x.size(1)."""
    sizes = listed(node)
    if len(sizes) != 2 or not (isinstance(sizes[1], int) or is_size(sizes[1], 1)):
        return False
    first, second = sizes
    if isinstance(first, int):
        return first == -1 and (not isinstance(second, int) or second > 0)
    return is_size(first, 0)


def listed(node: fx.Node) -> tuple[Any, ...]:
    """Return the sizes or axes that a call on a tensor names: one by one, or in a tuple."""
    given = (*node.args[1:], *node.kwargs.values())
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], tuple | list) else given


def is_size(node: Any, axis: int) -> bool:
    """Return whether a node is the size of a tensor along an axis, counted from the first."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (axis,)
    return node.target is operator.getitem and node.args[1] == axis


def _max_pool(kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
              return_indices: bool = False) -> nn.Module:  # fmt: skip
    return nn.MaxPool2d(kernel, stride, padding, dilation, return_indices, ceil_mode)


def _max_pool1d(kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
                return_indices: bool = False) -> nn.Module:  # fmt: skip
    return nn.MaxPool1d(kernel, stride, padding, dilation, return_indices, ceil_mode)


def _adaptive_max_pool1d(size: Any, return_indices: bool = False) -> nn.Module:
    return nn.AdaptiveMaxPool1d(size, return_indices)


def _adaptive_max_pool2d(size: Any, return_indices: bool = False) -> nn.Module:
    return nn.AdaptiveMaxPool2d(size, return_indices)


_CALLS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "flatten": _flatten,
    "pad": _pad,
    "interpolate": _interpolate,
    "pixel_shuffle": nn.PixelShuffle,
    "channel_shuffle": nn.ChannelShuffle,
    "native_channel_shuffle": nn.ChannelShuffle,
    "prelu": _prelu,
    "softmax": _softmax,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "logsigmoid": nn.LogSigmoid,
    "log_sigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "tanhshrink": nn.Tanhshrink,
    **dict.fromkeys(("threshold", "_threshold"), nn.Threshold),
    "pow": _power,
    **{name: partial(_dropout, kind) for name, kind in DROPOUTS.items()},
}
_POOLS: dict[Any, Callable[..., nn.Module]] = {
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.max_pool1d: _max_pool1d,
    torch.max_pool1d: _max_pool1d,
    F.avg_pool1d: nn.AvgPool1d,
    F.adaptive_avg_pool1d: nn.AdaptiveAvgPool1d,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    F.adaptive_max_pool1d: _adaptive_max_pool1d,
    F.adaptive_max_pool2d: _adaptive_max_pool2d,
}
