"""The operations of SPEC.md a second time: one loop for each formula, Python integers and fractions only."""

from fractions import Fraction
from itertools import product
from math import ceil, floor

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import Graph, Node
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


def evaluate(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the codes of every node for one image, as arrays of Python integers."""
    known: dict[str, np.ndarray] = {name: c.codes.astype(object) for name, c in graph.constants.items()}
    for node in graph.nodes:
        known[node.name] = image.astype(object) if isinstance(node.op, Input) else _node(graph, node, known)
    return {node.name: known[node.name] for node in graph.nodes}


def _node(graph: Graph, node: Node, known: dict[str, np.ndarray]) -> np.ndarray:
    out = np.zeros(node.type.shape, dtype=object)
    values = [known[name] for name in node.inputs]
    formats = [operand.type.fixed if hasattr(operand, "type") else operand.fixed for operand in graph.operands(node)]
    for index in product(*map(range, node.type.shape)):
        out[index] = _element(node, index, values, formats)
    return out


def _element(node: Node, index: tuple[int, ...], values: list[np.ndarray], formats: list[Fixed]) -> int:
    x, channel = values[0], index[-1]
    match node.op:
        case Conv2d():
            return _conv(node.op, index, x, values[1]) + (values[2][channel] if len(values) > 2 else 0)
        case DeformConv2d():
            return _deform(index, *values[:3]) + (values[3][channel] if len(values) > 3 else 0)
        case Dense():
            total = sum(values[1][i, channel] * x[i] for i in range(len(x)))
            return total + (values[2][channel] if len(values) > 2 else 0)
        case Affine():
            return x[index] * values[1][channel] + values[2][channel]
        case Add():
            fracs = [fixed.scalar_frac for fixed in formats]
            return sum(v[index] * 2 ** (max(fracs) - frac) for v, frac in zip(values, fracs, strict=True))
        case ChannelMax():
            return max(x[index[:-1]])
        case ChannelSum():
            return sum(x[index[:-1]])
        case Multiply():
            return x[index] * values[1][index]
        case Concat():
            first = x.shape[-1]
            return x[index] if channel < first else values[1][(*index[:-1], channel - first)]
        case Select(channels=channels):
            return x[(*index[:-1], channels[channel])] if channels[channel] >= 0 else 0
        case MaxPool():
            return max(_window(node.op, index, x, formats[0].min_code))
        case Upsample(factor=(rows, columns)):
            return x[index[0] // rows, index[1] // columns, channel]
        case DepthToSpace(block=(rows, columns)):
            pixel = index[0] % rows * columns + index[1] % columns
            return x[index[0] // rows, index[1] // columns, pixel * node.type.channels + channel]
        case Slice(rows=rows, columns=columns):
            return x[range(*rows)[index[0]], range(*columns)[index[1]], channel]
        case SumPool():
            return sum(_window(node.op, index, x, 0))
        case Clamp(low=low, high=high):
            return low if x[index] < low else high if x[index] > high else x[index]
        case Lookup():
            every = range(formats[0].min_code, formats[0].max_code + 1)
            return next(entry for code, entry in zip(every, values[1], strict=True) if code == x[index])
        case Flatten():
            return [v for row in x for pixel in row for v in pixel][channel] if x.ndim == 3 else list(x.flat)[channel]
        case Requantize(to=to, rounding=rounding, overflow=overflow):
            frac = int(formats[0].fracs(x.shape[-1])[channel])
            return overflowed(rounded(x[index] * Fraction(2) ** (to.scalar_frac - frac), rounding), to, overflow)
    raise AssertionError(node.op)


def _pixel(x: np.ndarray, row: int, column: int, channel: int, outside: int) -> int:
    inside = 0 <= row < x.shape[0] and 0 <= column < x.shape[1]
    return x[row, column, channel] if inside else outside


def _conv(op: Conv2d, index: tuple[int, ...], x: np.ndarray, weight: np.ndarray) -> int:
    (y, column, o), (kh, kw, per_group, filters) = index, weight.shape
    first = o // (filters // op.groups) * per_group
    total = 0
    for i, j, c in product(range(kh), range(kw), range(per_group)):
        row = y * op.stride[0] + i * op.dilation[0] - op.padding[0]
        col = column * op.stride[1] + j * op.dilation[1] - op.padding[2]
        total += weight[i, j, c, o] * _pixel(x, row, col, first + c, 0)
    return total


def _deform(index: tuple[int, ...], x: np.ndarray, offset: np.ndarray, weight: np.ndarray) -> int:
    y, column, c = index
    n = offset[y, column, 0]
    taps = product(range(3), range(3))
    return sum(weight[i, j, c] * _pixel(x, y + (i - 1) * n, column + (j - 1) * n, c, 0) for i, j in taps)


def _window(op: MaxPool | SumPool, index: tuple[int, ...], x: np.ndarray, outside: int) -> list[int]:
    y, column, c = index
    return [
        _pixel(x, y * op.stride[0] + i - op.padding[0], column * op.stride[1] + j - op.padding[2], c, outside)
        for i, j in product(range(op.kernel[0]), range(op.kernel[1]))
    ]


def rounded(value: Fraction, rounding: Rounding) -> int:
    """SPEC.md N3."""
    half, down, up = Fraction(1, 2), floor(value), ceil(value)
    match rounding:
        case Rounding.TRN:
            return down
        case Rounding.TRN_ZERO:
            return up if value < 0 else down
        case Rounding.RND:
            return floor(value + half)
        case Rounding.RND_MIN_INF:
            return ceil(value - half)
        case Rounding.RND_INF:
            return ceil(value - half) if value < 0 else floor(value + half)
        case Rounding.RND_ZERO:
            return floor(value + half) if value < 0 else ceil(value - half)
        case Rounding.RND_CONV:
            return round(value)


def overflowed(code: int, fixed: Fixed, overflow: Overflow) -> int:
    """SPEC.md N4."""
    low, high = fixed.min_code, fixed.max_code
    if overflow is Overflow.WRAP:
        return (code - low) % (1 << fixed.width) + low
    if overflow is Overflow.SAT_SYM and fixed.signed and fixed.width > 1:
        low = -high
    if low <= code <= high:
        return code
    return 0 if overflow is Overflow.SAT_ZERO else (low if code < low else high)
