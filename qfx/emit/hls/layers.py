"""From graph nodes to hls4ml layers: which kernel computes each op, with which types and constants."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qfx.errors import EmitError
from qfx.fixed import Fixed, Overflow, Rounding, digits_of
from qfx.graph import Constant, Graph, Node, TensorType
from qfx.graph.ops import (
    Add,
    Affine,
    ChannelMax,
    ChannelSum,
    Clamp,
    Concat,
    Conv2d,
    DeformConv2d,
    Dense,
    DepthToSpace,
    Flatten,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)
from qfx_hls4ml import Table

_BUILTIN_WIDTH = 48  # hls4ml prints its weights through float64

_MAP = "qfx::map<qfx::{kernel}<{{config}}>>({{x[0]}}, {{y}});"
_JOIN = "qfx::join<qfx::{kernel}<{{config}}>>({{x[0]}}, {{x[1]}}, {{y}});"
_WINDOW = "qfx::window<qfx::{kernel}<{{config}}>>({{x[0]}}, {{y}});"
_WINDOW_SIDE = "qfx::window<qfx::{kernel}<{{config}}>>({{x[0]}}, {{y}}, {{x[1]}});"
_FLATTEN = "qfx::flatten<{{config}}>({{x[0]}}, {{y}});"
_UPSAMPLE = "qfx::upsample<{{config}}>({{x[0]}}, {{y}});"
_DEPTH = "qfx::depth_to_space<{{config}}>({{x[0]}}, {{y}});"
_SLICE = "qfx::slice<{{config}}>({{x[0]}}, {{y}});"
_HEADERS = {
    _MAP: ["drive.hpp"],
    _JOIN: ["drive.hpp"],
    _WINDOW: ["window.hpp"],
    _WINDOW_SIDE: ["window.hpp"],
    _FLATTEN: [],
    _UPSAMPLE: [],
    _DEPTH: [],
    _SLICE: [],
}  # fmt: skip


@dataclass(frozen=True)
class LayerSpec:
    """One hls4ml layer: its entry in the layer list, and the types that hls4ml must give it and keep."""

    node: Node
    name: str  # of the layer in C++
    entry: dict[str, Any]
    types: dict[str, Fixed]  # "result", "weight", "bias", "accum"
    modes: tuple[Rounding, Overflow] = (Rounding.TRN, Overflow.WRAP)  # of the result
    products: int = 1  # multiplications for one output pixel, for the reuse factor
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # real weights as hls4ml must hold them


def layer_specs(graph: Graph) -> list[LayerSpec]:
    """Return the layers of a graph in its order."""
    names = {node.name: cpp_name(index, node.name) for index, node in enumerate(graph.nodes)}
    return [_spec(graph, node, names) for node in graph.nodes]


def cpp_name(index: int, name: str) -> str:
    """Return a C++ name that is unique, reserved nowhere, and still says which node it belongs to."""
    return f"n{index}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def word_type(fixed: Fixed) -> Fixed:
    """Return the one format that words of a tensor carry in C++.

    A word always holds the graph's code. If each channel has its own binary point, the type carries the largest one;
    Requantize, the only op that meets such tensors and looks at binary points, knows the differences.
    """
    return fixed if isinstance(fixed.frac, int) else Fixed(fixed.width, max(fixed.frac), fixed.signed)


def _spec(graph: Graph, node: Node, names: dict[str, str]) -> LayerSpec:
    make = _MAKERS.get(type(node.op))
    if make is None:
        raise EmitError(f"node {node.name!r} must be an op that has an HLS kernel, not {type(node.op).__name__}")
    if not 1 <= node.type.fixed.width:
        raise EmitError(
            f"node {node.name!r} must be at least one bit wide, not {node.type}: run remove_zero_width first"
        )
    spec = make(graph, node, names[node.name])
    spec.entry["inputs"] = [names[tensor] for tensor in graph.tensors(node)]
    return spec


def _input(graph: Graph, node: Node, name: str) -> LayerSpec:
    entry = {"class_name": "InputLayer", "name": name, "input_shape": list(node.type.shape)}
    return LayerSpec(node, name, entry, {"result": word_type(node.type.fixed)})


def _conv2d(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Conv2d)
    weight = _constant(graph, node, 1)
    rows, cols, per_group, filters = weight.codes.shape
    x = graph.by_name[node.inputs[0]].type
    products = rows * cols * per_group * filters
    if _builtin_conv(op, weight, x.channels, filters):
        depthwise = op.groups > 1
        geometry = {
            "in_height": x.shape[0], "in_width": x.shape[1], "n_chan": x.channels,
            "out_height": node.type.shape[0], "out_width": node.type.shape[1], "n_filt": filters,
            "filt_height": rows, "filt_width": cols, "stride_height": op.stride[0], "stride_width": op.stride[1],
            "pad_top": op.padding[0], "pad_bottom": op.padding[1], "pad_left": op.padding[2],
            "pad_right": op.padding[3], "data_format": "channels_last",
        }  # fmt: skip
        shape = (rows, cols, filters, 1) if depthwise else weight.codes.shape
        kind, key = ("DepthwiseConv2D", "depthwise") if depthwise else ("Conv2D", "weight")
        return _builtin(graph, node, name, kind, key, geometry, shape, products)
    constants = _window(node, x, op.stride, op.padding, rows, cols, op.dilation)
    constants |= {"dilation_row": op.dilation[0], "dilation_col": op.dilation[1], "groups": op.groups}
    tables = {"weight": _table(weight), "bias": _bias_table(graph, node, 2)}
    return _kernel(node, name, "conv.hpp", _WINDOW, constants, tables, products=products)


def _deform(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, DeformConv2d)
    x = graph.by_name[node.inputs[0]].type
    reach = op.max_dilation
    constants = _window(node, x, (1, 1), (reach, reach, reach, reach), 3, 3, (reach, reach))
    tables = {"weight": _table(_constant(graph, node, 2)), "bias": _bias_table(graph, node, 3)}
    products = 9 * x.channels
    return _kernel(node, name, "conv.hpp", _WINDOW_SIDE, constants, tables, products=products)


def _dense(graph: Graph, node: Node, name: str) -> LayerSpec:
    weight = _constant(graph, node, 1)
    n_in, n_out = weight.codes.shape
    if weight.max_digits is None and weight.fixed.width <= _BUILTIN_WIDTH:
        return _builtin(
            graph, node, name, "Dense", "weight", {"n_in": n_in, "n_out": n_out}, (n_in, n_out), n_in * n_out
        )
    constants = {"pixels": 1, "channels_in": n_in, "channels_out": n_out}
    tables = {"weight": _table(weight), "bias": _bias_table(graph, node, 2)}
    return _kernel(node, name, "dense.hpp", _MAP, constants, tables, products=n_in * n_out)


def _affine(graph: Graph, node: Node, name: str) -> LayerSpec:
    tables = {"scale": _table(_constant(graph, node, 1)), "shift": _table(_constant(graph, node, 2), digits=False)}
    return _kernel(node, name, "element.hpp", _MAP, _pixels(node), tables, products=node.type.channels)


def _join(graph: Graph, node: Node, name: str) -> LayerSpec:
    a, b = (graph.by_name[source].type.channels for source in node.inputs)
    constants = _pixels(node) | {"channels_a": a, "channels_b": b}
    products = node.type.channels if isinstance(node.op, Multiply) else 1
    return _kernel(node, name, "element.hpp", _JOIN, constants, products=products)


def _select(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Select)
    constants = _pixels(node) | {"channels_in": graph.by_name[node.inputs[0]].type.channels}
    tables = {"channel": (np.array(op.channels), max(op.channels).bit_length() + 1, True)}
    return _kernel(node, name, "element.hpp", _MAP, constants, tables)


def _of_channels(graph: Graph, node: Node, name: str) -> LayerSpec:
    constants = _pixels(node) | {"channels_in": graph.by_name[node.inputs[0]].type.channels}
    return _kernel(node, name, "element.hpp", _MAP, constants)


def _max_pool(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, MaxPool)
    x = graph.by_name[node.inputs[0]].type
    constants = _window(node, x, op.stride, op.padding, *op.kernel, (1, 1)) | {"min_code": x.fixed.min_code}
    return _kernel(node, name, "pool.hpp", _WINDOW, constants)


def _sum_pool(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, SumPool)
    x = graph.by_name[node.inputs[0]].type
    constants = _window(node, x, op.stride, op.padding, *op.kernel, (1, 1))
    return _kernel(node, name, "pool.hpp", _WINDOW, constants)


def _requantize(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Requantize)
    x = graph.by_name[node.inputs[0]].type
    fracs = x.fixed.fracs(x.channels)
    shifts = fracs.max() - fracs
    dropped = int(fracs.max()) - op.to.scalar_frac
    constants = _pixels(node) | {"spare": max(int(shifts.max()), dropped + 1 - x.fixed.width)}
    tables = {"shift": (shifts, 8, False)}
    return _kernel(node, name, "element.hpp", _MAP, constants, tables, modes=(op.rounding, op.overflow))


def _clamp(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Clamp)
    return _kernel(node, name, "element.hpp", _MAP, _pixels(node) | {"low": op.low, "high": op.high})


def _lookup(graph: Graph, node: Node, name: str) -> LayerSpec:
    constants = _pixels(node) | {"lowest": graph.by_name[node.inputs[0]].type.fixed.min_code}
    tables = {"table": _table(_constant(graph, node, 1), digits=False)}
    return _kernel(node, name, "element.hpp", _MAP, constants, tables)


def _flatten(graph: Graph, node: Node, name: str) -> LayerSpec:
    x = graph.by_name[node.inputs[0]].type
    constants = {"pixels": x.size // x.channels, "channels_in": x.channels}
    return _kernel(node, name, "dense.hpp", _FLATTEN, constants)


def _upsample(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Upsample)
    height, width, channels = graph.by_name[node.inputs[0]].type.shape
    constants = {"in_height": height, "in_width": width, "channels_in": channels}
    constants |= {"repeat_rows": op.factor[0], "repeat_cols": op.factor[1]}
    return _kernel(node, name, "upsample.hpp", _UPSAMPLE, constants)


def _depth_to_space(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, DepthToSpace)
    height, width, channels = graph.by_name[node.inputs[0]].type.shape
    constants = {"in_height": height, "in_width": width, "channels_in": channels, "channels_out": node.type.channels}
    constants |= {"block_rows": op.block[0], "block_cols": op.block[1]}
    return _kernel(node, name, "upsample.hpp", _DEPTH, constants)


def _slice(graph: Graph, node: Node, name: str) -> LayerSpec:
    op = node.op
    assert isinstance(op, Slice)
    height, width, channels = graph.by_name[node.inputs[0]].type.shape
    constants = {"in_height": height, "in_width": width, "channels_in": channels}
    constants |= {"out_height": node.type.shape[0], "out_width": node.type.shape[1]}
    constants |= {"first_row": op.rows[0], "first_col": op.columns[0]}
    constants |= {"step_rows": op.rows[2], "step_cols": op.columns[2]}
    return _kernel(node, name, "upsample.hpp", _SLICE, constants)


_MAKERS: dict[type, Callable[[Graph, Node, str], LayerSpec]] = {
    Input: _input,
    Conv2d: _conv2d,
    DeformConv2d: _deform,
    Dense: _dense,
    Affine: _affine,
    Add: _join,
    Multiply: _join,
    ChannelMax: _of_channels,
    ChannelSum: _of_channels,
    Concat: _join,
    MaxPool: _max_pool,
    SumPool: _sum_pool,
    Select: _select,
    Upsample: _upsample,
    DepthToSpace: _depth_to_space,
    Slice: _slice,
    Requantize: _requantize,
    Clamp: _clamp,
    Lookup: _lookup,
    Flatten: _flatten,
}


def _builtin_conv(op: Conv2d, weight: Constant, channels: int, filters: int) -> bool:
    """Whether hls4ml's own kernel computes this convolution exactly in both io types."""
    rows, cols = weight.codes.shape[:2]
    depthwise = op.groups == channels == filters and channels > 1 and rows > 1
    return (
        weight.max_digits is None
        and weight.fixed.width <= _BUILTIN_WIDTH
        and op.dilation == (1, 1)
        and (op.groups == 1 or depthwise)
        and op.stride[0] <= rows
        and op.stride[1] <= cols
    )


def _builtin(
    graph: Graph,
    node: Node,
    name: str,
    kind: str,
    key: str,
    fields: dict[str, Any],
    shape: tuple[int, ...],
    products: int,
) -> LayerSpec:
    """A layer of hls4ml: real weights on the grid of the type."""
    weight, result = _constant(graph, node, 1), word_type(node.type.fixed)
    types = {"result": result, "accum": result, "weight": word_type(weight.fixed)}
    data = {"weight": np.ldexp(weight.codes.reshape(shape).astype(np.float64), -types["weight"].scalar_frac)}
    entry = {"class_name": kind, "name": name, **fields, f"{key}_data": data["weight"]}
    if len(node.inputs) > 2:
        bias = _constant(graph, node, 2)
        types["bias"] = word_type(bias.fixed)
        data["bias"] = np.ldexp(bias.codes.astype(np.float64), -types["bias"].scalar_frac)
        entry["bias_data"] = data["bias"]
    return LayerSpec(node, name, entry, types, products=products, extra=data)


def _kernel(
    node: Node,
    name: str,
    header: str,
    call: str,
    constants: dict[str, int],
    tables: dict[str, tuple[Any, ...]] | None = None,
    modes: tuple[Rounding, Overflow] = (Rounding.TRN, Overflow.WRAP),
    products: int = 1,
) -> LayerSpec:
    """A layer of the plug-in; the kernel bears the name of the op, ``call`` is one of the drivers' calls above."""
    entry = {
        "class_name": "QfxKernel",
        "name": name,
        "headers": [header, *_HEADERS[call]],
        "call": call.format(kernel=type(node.op).__name__),
        "shape": list(node.type.shape),
        "constants": constants,
        "tables": {role: Table(*table) for role, table in (tables or {}).items()},
    }
    return LayerSpec(node, name, entry, {"result": word_type(node.type.fixed)}, modes, products)


def _pixels(node: Node) -> dict[str, int]:
    channels = node.type.channels
    return {"pixels": node.type.size // channels, "channels_in": channels, "channels_out": channels}


def _window(
    node: Node,
    x: TensorType,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    rows: int,
    cols: int,
    dilation: tuple[int, int],
) -> dict[str, int]:
    """The geometry that the driver ``window`` and its kernels read."""
    span = (rows - 1) * dilation[0] + 1
    return {
        "in_height": x.shape[0], "in_width": x.shape[1], "channels_in": x.channels,
        "out_height": node.type.shape[0], "out_width": node.type.shape[1], "channels_out": node.type.channels,
        "kernel_rows": rows, "kernel_cols": cols, "stride_row": stride[0], "stride_col": stride[1],
        "pad_top": padding[0], "pad_left": padding[2], "span": span,
        "ring_rows": 1 << span.bit_length(), "ring_banks": cols,
    }  # fmt: skip


def _constant(graph: Graph, node: Node, position: int) -> Constant:
    return graph.constants[node.inputs[position]]


def _table(constant: Constant, digits: bool = True) -> tuple[Any, ...]:
    """The arguments of a Table: K-hot constants as digits, all others as codes."""
    codes, fixed = constant.codes.ravel(), constant.fixed
    if not digits or constant.max_digits is None:
        return codes, fixed.width, fixed.signed
    words = [digits_of(int(code), fixed.width, constant.signed_digits) for code in codes]
    length = max(1, *map(len, words)) if words else 1
    return codes, fixed.width, fixed.signed, tuple(word + ((0, 0),) * (length - len(word)) for word in words)


def _bias_table(graph: Graph, node: Node, position: int) -> tuple[Any, ...]:
    if len(node.inputs) > position:
        return _table(_constant(graph, node, position), digits=False)
    return np.zeros(node.type.channels, dtype=np.int64), 1, False


def reuse_factor(spec: LayerSpec, unroll: Mapping[str, int]) -> int:
    """Return how many cycles share one multiplier: the products of a pixel over those that the plan unrolls."""
    parallel = math.prod(unroll[axis] for axis in ("co", "ci", "ky", "kx"))
    return max(1, -(-spec.products // parallel))
