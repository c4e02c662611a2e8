"""Static bounds: the range that each channel of each tensor can reach, from the weights and the input formats alone."""

from dataclasses import dataclass

import numpy as np

from qfx.fixed import MAX_WIDTH, Fixed, Overflow, requantize
from qfx.graph.graph import Graph, Node
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

_BEYOND = (1 << MAX_WIDTH) - 1  # no code is larger


@dataclass(frozen=True, eq=False)
class Range:
    """The codes that a tensor can have, for each channel; Python integers, so that no bound can wrap."""

    low: np.ndarray  # object, shape (C,)
    high: np.ndarray

    @property
    def magnitude(self) -> np.ndarray:
        """The largest magnitude of each channel."""
        return np.maximum(-self.low, self.high)

    def with_zero(self) -> "Range":
        """The range that zero padding may extend."""
        return Range(np.minimum(self.low, 0), np.maximum(self.high, 0))


def static_ranges(graph: Graph) -> dict[str, Range]:
    """Return the range of each node's codes.

    For sums of products the range is ``-B..B`` with ``B = sum(|w| * max|x|) + |b|``, so that every partial sum lies in
    it too, whatever the order of summation.
    """
    ranges: dict[str, Range] = {}
    for node in graph.nodes:
        ranges[node.name] = _node_range(graph, node, [ranges[name] for name in graph.tensors(node)])
    return ranges


def _node_range(graph: Graph, node: Node, inputs: list[Range]) -> Range:
    channels = node.type.channels
    constants = [graph.constants[name].codes.astype(object) for name in node.inputs if name in graph.constants]
    match node.op:
        case Input(fixed=fixed):
            return _full(fixed, channels)
        case Conv2d() | DeformConv2d() | Dense() | Affine():
            bound = _magnitude_of_sum(node, constants[0], inputs[0].magnitude)
            return _symmetric(bound + np.abs(constants[1]) if len(constants) > 1 else bound)
        case Add():
            a, b = (graph.by_name[name].type.fixed.scalar_frac for name in node.inputs)
            scale_a, scale_b = 1 << max(b - a, 0), 1 << max(a - b, 0)
            return Range(
                inputs[0].low * scale_a + inputs[1].low * scale_b, inputs[0].high * scale_a + inputs[1].high * scale_b
            )
        case Multiply():
            ends = [p * q for p in (inputs[0].low, inputs[0].high) for q in (inputs[1].low, inputs[1].high)]
            return Range(np.minimum.reduce(ends), np.maximum.reduce(ends))
        case Concat():
            return Range(*(np.concatenate([getattr(x, end) for x in inputs]) for end in ("low", "high")))
        case SumPool(kernel=kernel, padding=padding):
            x = inputs[0].with_zero() if any(padding) else inputs[0]
            count = kernel[0] * kernel[1]
            return Range(x.low * count, x.high * count)
        case Select(channels=chosen):
            return _chosen(inputs[0], np.array(chosen))
        case ChannelMax():
            return _full_range(inputs[0].low.max(), inputs[0].high.max(), 1)
        case ChannelSum():
            return _full_range(inputs[0].low.sum(), inputs[0].high.sum(), 1)
        case DepthToSpace():
            low, high = (ends.reshape(-1, channels) for ends in (inputs[0].low, inputs[0].high))
            return Range(low.min(axis=0), high.max(axis=0))
        case MaxPool() | Upsample() | Slice():
            return inputs[0]
        case Clamp(low=low, high=high):
            return Range(inputs[0].low.clip(low, high), inputs[0].high.clip(low, high))
        case Flatten():
            return _full_range(inputs[0].low.min(), inputs[0].high.max(), channels)
        case Lookup():
            return _looked_up(constants[0], graph.by_name[node.inputs[0]].type.fixed, inputs[0])
        case Requantize():
            return _requantized(node.op, graph.by_name[node.inputs[0]].type.fixed, inputs[0])
        case _:
            return _full(node.type.fixed, channels)


def _magnitude_of_sum(node: Node, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    match node.op:
        case Conv2d(groups=groups):
            per_group, filters = weight.shape[2:]
            sizes = np.abs(weight).sum(axis=(0, 1)).reshape(per_group, groups, filters // groups)
            return (sizes * x.reshape(groups, per_group).T[:, :, None]).sum(axis=0).reshape(filters)
        case DeformConv2d():
            return np.abs(weight).sum(axis=(0, 1)) * x
        case Dense():
            return (np.abs(weight) * x[:, None]).sum(axis=0)
        case _:
            return np.abs(weight) * x


def _looked_up(table: np.ndarray, source: Fixed, x: Range) -> Range:
    """The least and the largest of the entries that each channel reaches."""
    first, last = (ends.clip(source.min_code, source.max_code) - source.min_code for ends in (x.low, x.high))
    reached = [table[low : high + 1] for low, high in zip(first, last, strict=True)]
    low, high = (np.array([of(entries) for entries in reached], dtype=object) for of in (min, max))
    return Range(low, high)


def _chosen(x: Range, channels: np.ndarray) -> Range:
    """The range of each chosen channel; that of zeros holds 0 alone."""
    low, high = (np.where(channels >= 0, ends[channels], 0) for ends in (x.low, x.high))
    return Range(low, high)


def _requantized(op: Requantize, source: Fixed, x: Range) -> Range:
    """Monotonic modes map the ends to the ends; where a value may wrap or turn zero, the whole format is reachable."""
    ends = np.stack([x.low, x.high]).clip(-_BEYOND, _BEYOND).astype(np.int64)
    if op.overflow in (Overflow.WRAP, Overflow.SAT_ZERO) and _leaves(ends, source, op):
        return _full(op.to, len(x.low))
    low, high = requantize(ends, source, op.to, op.rounding, op.overflow).astype(object)
    return Range(low, high)


def _leaves(ends: np.ndarray, source: Fixed, op: Requantize) -> bool:
    """Whether an end lies outside the format: seen in the widest one, or by what SAT_ZERO does where that ends too."""
    wide = requantize(ends, source, Fixed(MAX_WIDTH, op.to.frac), op.rounding, Overflow.SAT)
    saturated, zeroed = (
        requantize(ends, source, op.to, op.rounding, mode) for mode in (Overflow.SAT, Overflow.SAT_ZERO)
    )
    return bool((wide < op.to.min_code).any() or (wide > op.to.max_code).any() or (saturated != zeroed).any())


def _full(fixed: Fixed, channels: int) -> Range:
    return _full_range(fixed.min_code, fixed.max_code, channels)


def _full_range(low: int, high: int, channels: int) -> Range:
    return Range(np.full(channels, low, dtype=object), np.full(channels, high, dtype=object))


def _symmetric(bound: np.ndarray) -> Range:
    return Range(-bound, bound)
