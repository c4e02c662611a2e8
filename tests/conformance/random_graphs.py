"""Seeded random legal graphs that reach every combination of operation, rounding, overflow, per-channel and width 0."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding, decode, requantize, simplest_frac
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import (
    OPS,
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
    Op,
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)


class Cell(NamedTuple):
    """A Requantize in its surroundings: which operation it reads, how it rounds, what it meets."""

    op: str
    rounding: Rounding
    overflow: Overflow
    per_channel: bool  # the binary points of what it reads
    zero_width: bool  # of its own format


# Products, their sums and what clamps, joins or repeats them have a binary point for each channel (SPEC.md, N2).
PER_CHANNEL_OPS = (
    "Conv2d",
    "DeformConv2d",
    "Dense",
    "Affine",
    "Multiply",
    "Clamp",
    "Concat",
    "Select",
    "Upsample",
    "DepthToSpace",
    "Slice",
)
# How often a branch of width 0 is added behind an operation; 0.4 elsewhere. The rarer ones need it more often.
_WIDTH_0 = {
    "Dense": 1.0,
    "Multiply": 1.0,
    "ChannelMax": 1.0,
    "ChannelSum": 1.0,
    "Concat": 1.0,
    "Select": 1.0,
    "Upsample": 1.0,
    "DepthToSpace": 1.0,
    "Slice": 1.0,
    "Conv2d": 0.8,
    "DeformConv2d": 0.8,
}
CELLS = frozenset(
    Cell(*cell)
    for cell in product(OPS, Rounding, Overflow, (False, True), (False, True))
    if cell[0] in PER_CHANNEL_OPS or not cell[3]
)


def hits(graph: Graph) -> Iterator[Cell]:
    """Yield the cell of each Requantize of a graph."""
    for node in graph.nodes:
        if isinstance(node.op, Requantize):
            read = graph.by_name[node.inputs[0]]
            yield Cell(
                type(read.op).__name__,
                node.op.rounding,
                node.op.overflow,
                read.type.fixed.per_channel,
                node.op.to.width == 0,
            )


def random_graphs(seed: int, count: int, blocks: int = 6, largest: int = 7) -> Iterator[Graph]:
    """Yield ``count`` legal graphs; together they hit the cells evenly, each cell before any cell twice.

    Args:
        blocks: how many layers or residual blocks a graph has before its head.
        largest: the largest height, width or number of channels.
    """
    rng = np.random.default_rng(seed)
    decks: dict[tuple[str, bool, bool], list[tuple[Rounding, Overflow]]] = {}
    for index in range(count):
        yield _Author(f"random_{seed}_{index}", rng, decks, largest).write(blocks)


def random_codes(graph: Graph, count: int, seed: int) -> np.ndarray:
    """Return input codes: all lowest, all highest, a checkerboard of both, all zero, then random ones."""
    fixed, shape = graph.input.type.fixed, graph.input.type.shape
    rng = np.random.default_rng(seed)
    board = np.where(np.indices(shape).sum(axis=0) % 2, fixed.min_code, fixed.max_code)
    special = [np.full(shape, fixed.min_code), np.full(shape, fixed.max_code), board, np.zeros(shape, dtype=np.int64)]
    random = rng.integers(fixed.min_code, fixed.max_code, size=(max(count - 4, 0), *shape), endpoint=True)
    return np.concatenate([np.stack(special)[:count], random])


def varies(codes: np.ndarray) -> bool:
    """Whether a tensor still tells anything."""
    return bool((codes != codes.flat[0]).any())


class _Author:
    """Writes one graph, layer by layer; the current tensor always has one binary point."""

    def __init__(
        self,
        name: str,
        rng: np.random.Generator,
        decks: dict[tuple[str, bool, bool], list[tuple[Rounding, Overflow]]],
        largest: int,
    ) -> None:
        self.rng, self.decks, self.largest = rng, decks, largest
        self.builder = GraphBuilder(name)
        self.sample: dict[str, np.ndarray] = {}  # what a few images become, so that formats can be chosen to fit

    def add(self, name: str, op: Op, *inputs: str) -> str:
        """Add a node, and compute it on the sample."""
        self.builder.add(name, op, *inputs)
        constants = self.builder.constants
        if isinstance(op, Input):
            low, high = op.fixed.min_code, op.fixed.max_code
            self.sample[name] = self.rng.integers(low, high, size=(3, *op.shape), endpoint=True)
        else:
            values = [constants[i].codes if i in constants else self.sample[i] for i in inputs]
            operands = [constants[i] if i in constants else self.builder.type(i) for i in inputs]
            self.sample[name] = op.evaluate(values, operands)
        return name

    def magnitude(self, x: str) -> int:
        """The power of two that holds the largest real value of the sample: it lies below ``2**magnitude``."""
        values = np.abs(decode(self.sample[x], self.builder.type(x).fixed))
        return int(np.frexp(values.max())[1])

    def write(self, blocks: int) -> Graph:
        height, width, channels = (int(self.rng.integers(least, self.largest + 1)) for least in (2, 2, 1))
        fixed = Fixed(int(self.rng.integers(1, 9)), int(self.rng.integers(-2, 5)), bool(self.rng.integers(2)))
        x = self.settle(self.add(self.name("Input"), Input((height, width, channels), fixed)))
        layers = (
            self.conv,
            self.deform,
            self.affine,
            self.clamp,
            self.lookup,
            self.multiply,
            self.of_channels,
            self.concat,
            self.max_pool,
            self.sum_pool,
            self.select,
            self.upsample,
            self.depth_to_space,
            self.slice,
            self.requantize,
        )
        for _ in range(blocks):
            layer = layers[self.rng.integers(len(layers))]
            y = self.settle(layer(x))
            if self.rng.random() < 0.4 and self.builder.type(y).shape == self.builder.type(x).shape:
                y = self.settle(self.add(self.name("Add"), Add(), *self.rng.permutation([x, y])))
            x = y
        if self.rng.random() < 0.7:
            x = self.settle(self.add(self.name("Flatten"), Flatten(), x))
            x = self.settle(self.dense(x))
        return self.builder.build(x)

    # What follows each operation.

    def settle(self, x: str) -> str:
        """Bring a result back to one binary point and few bits, sometimes with a branch of width 0 added to it."""
        if self.rng.random() < 0.3:
            x = self.clamp(x)
        if self.rng.random() < 0.25:
            x = self.affine(x)
        wide = self.narrowed(x)
        if self.rng.random() < _WIDTH_0.get(self.kind(x), 0.4):
            none = self.narrowed(x, zero_width=True)
            total = self.add(self.name("Add"), Add(), *self.rng.permutation([wide, none]))
            return self.narrowed(total)
        return wide

    def narrowed(self, x: str, zero_width: bool = False) -> str:
        """Requantize to a format that the sample fills, or a bit more or less than that."""
        rounding, overflow = self.modes(x, zero_width)
        fixed = self.builder.type(x).fixed
        for _ in range(8):
            width = 0 if zero_width else int(self.rng.choice([1, *range(2, 9)], p=[0.02, *[0.14] * 7]))
            signed = bool((self.sample[x] < 0).mean() > 0.4 * self.rng.random())
            frac = width - signed - self.magnitude(x) + int(self.rng.integers(-1, 2))
            to = Fixed(width, int(np.clip(frac, -10, 8)), signed)
            if varies(requantize(self.sample[x], fixed, to, rounding, overflow)):
                break
        return self.add(self.name("Requantize"), Requantize(to, rounding, overflow), x)

    def modes(self, x: str, zero_width: bool) -> tuple[Rounding, Overflow]:
        """The modes that were not used for the longest time behind this kind of operation."""
        key = (self.kind(x), self.builder.type(x).fixed.per_channel, zero_width)
        deck = self.decks.setdefault(key, [])
        if not deck:
            every = list(product(Rounding, Overflow))
            deck += [every[i] for i in self.rng.permutation(len(every))]
        return deck.pop()

    # One method for each operation: reads a tensor with one binary point, unless said otherwise.

    def conv(self, x: str) -> str:
        height, width, channels = self.builder.type(x).shape
        kernel, stride, dilation, padding = [], [], [], []
        for size in (height, width):
            k, d = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3))
            reach = d * (k - 1)
            before, after = (int(self.rng.integers(0, reach + 1)) for _ in range(2))
            before += max(reach + 1 - size - before - after, 0)
            kernel.append(k)
            dilation.append(d)
            padding += [before, after]
            stride.append(int(self.rng.integers(1, 3)) if size > 3 else 1)
        divisors = [g for g in range(1, channels + 1) if channels % g == 0]
        groups = int(self.rng.choice([1, channels, self.rng.choice(divisors)]))
        filters = groups * int(self.rng.integers(1, max(self.largest // groups, 1) + 1))
        if self.rng.random() < 0.4:
            filters = channels
        name = self.name("Conv2d")
        weight = self.constant(f"{name}.weight", (*kernel, channels // groups, filters))
        bias = self.bias(name, x, weight, filters)
        op = Conv2d(tuple(stride), tuple(padding), tuple(dilation), groups)  # type: ignore[arg-type]
        return self.add(name, op, x, weight, *bias)

    def deform(self, x: str) -> str:
        """The operator with its own offset convolution."""
        channels = self.builder.type(x).channels
        offset = self.name("Conv2d")
        weight = self.constant(f"{offset}.weight", (3, 3, channels, 1), per_channel=False)
        offset = self.add(offset, Conv2d(padding=(1, 1, 1, 1)), x, weight)
        # A scale of one moves the binary point, so that dilations are small numbers but not all zero.
        fixed, frac = self.builder.type(offset).fixed, int(np.clip(self.magnitude(offset) - 3, -20, 20))
        unit = self.builder.constant(f"{offset}.unit", np.ones(1, dtype=np.int64), Fixed(2, frac))
        zero = self.builder.constant(f"{offset}.none", np.zeros(1, dtype=np.int64), Fixed(1, fixed.scalar_frac + frac))
        offset = self.add(self.name("Affine"), Affine(), offset, unit, zero)
        to = Fixed(int(self.rng.integers(2, 5)), 0, bool(self.rng.integers(2)))
        rounding, overflow = self.modes(offset, zero_width=False)
        offset = self.add(self.name("Requantize"), Requantize(to, rounding, overflow), offset)
        reach = min(int(self.rng.integers(0, 4)), to.max_code)
        offset = self.add(self.name("Clamp"), Clamp(0, reach), offset)
        name = self.name("DeformConv2d")
        weight = self.constant(f"{name}.weight", (3, 3, channels))
        return self.add(name, DeformConv2d(reach), x, offset, weight, *self.bias(name, x, weight, channels))

    def dense(self, x: str) -> str:
        name, filters = self.name("Dense"), int(self.rng.integers(1, self.largest + 1))
        weight = self.constant(f"{name}.weight", (self.builder.type(x).channels, filters))
        return self.add(name, Dense(), x, weight, *self.bias(name, x, weight, filters))

    def affine(self, x: str) -> str:
        """The input may have a binary point for each channel."""
        kind, name = self.builder.type(x), self.name("Affine")
        scale = self.constant(f"{name}.scale", (kind.channels,))
        fracs = kind.fixed.fracs(kind.channels) + self.builder.constants[scale].fixed.fracs(kind.channels)
        shift = self.on_grid(f"{name}.shift", fracs)
        return self.add(name, Affine(), x, scale, shift)

    def clamp(self, x: str) -> str:
        """ReLU, ReLU6 or any two bounds."""
        fixed, sample = self.builder.type(x).fixed, self.sample[x]
        low, high = sorted(int(code) for code in self.rng.choice(sample.reshape(-1), size=2))
        bounds = [(0, fixed.max_code), (0, max(high, 0)), (low, high) if low < high else (fixed.min_code, high)]
        self.rng.shuffle(bounds)
        chosen = next((pair for pair in bounds if varies(sample.clip(*pair))), bounds[0])
        return self.add(self.name("Clamp"), Clamp(*chosen), x)

    def lookup(self, x: str) -> str:
        """A table of random entries."""
        name = self.name("Lookup")
        width = int(self.rng.integers(1, 9))
        fixed = Fixed(width, int(self.rng.integers(-2, 6)), bool(self.rng.integers(2)))
        entries = self.rng.integers(
            fixed.min_code, fixed.max_code, 1 << self.builder.type(x).fixed.width, endpoint=True
        )
        return self.add(name, Lookup(), x, self.builder.constant(f"{name}.table", entries, fixed))

    def multiply(self, x: str) -> str:
        """The tensor times a BatchNorm of it, exact or rounded, or times itself."""
        chance = self.rng.random()
        other = x if chance < 0.1 else self.affine(x) if chance < 0.85 else self.narrowed(self.affine(x))
        return self.add(self.name("Multiply"), Multiply(), *self.rng.permutation([x, other]))

    def of_channels(self, x: str) -> str:
        """The largest or the sum of all channels, which stays one channel or stands for as many again."""
        if self.builder.type(x).channels == 1:
            return self.requantize(x)
        op = [ChannelMax, ChannelSum][self.rng.integers(2)]
        y = self.settle(self.add(self.name(op.__name__), op(), x))
        if self.rng.random() < 0.8:
            y = self.add(self.name("Select"), Select((0,) * self.builder.type(x).channels), y)
        return y

    def concat(self, x: str) -> str:
        """The tensor and a convolution of it, at times on the same grid; many channels are only requantized."""
        if self.builder.type(x).channels >= self.largest:
            return self.requantize(x)
        channels = int(self.rng.integers(1, self.largest))
        name = self.name("Conv2d")
        weight = self.constant(f"{name}.weight", (1, 1, self.builder.type(x).channels, channels))
        other = self.add(name, Conv2d(), x, weight)
        if self.rng.random() < 0.5:
            to = replace(self.builder.type(x).fixed, width=int(self.rng.integers(1, 9)))
            rounding, overflow = self.modes(other, zero_width=False)
            other = self.add(self.name("Requantize"), Requantize(to, rounding, overflow), other)
        return self.add(self.name("Concat"), Concat(), *self.rng.permutation([x, other]))

    def max_pool(self, x: str) -> str:
        return self.add(self.name("MaxPool"), MaxPool(*self.window(x)), x)

    def sum_pool(self, x: str) -> str:
        return self.add(self.name("SumPool"), SumPool(*self.window(x)), x)

    def select(self, x: str) -> str:
        """Some channels of what a BatchNorm or nothing has made of the tensor, in any order, zeros among them."""
        x = self.affine(x) if self.rng.random() < 0.9 else x
        channels = self.builder.type(x).channels
        chosen = self.rng.integers(-1, channels, size=int(self.rng.integers(2, self.largest + 1)))
        chosen[:2] = self.rng.integers(channels, size=2)
        self.rng.shuffle(chosen)
        return self.add(self.name("Select"), Select(tuple(int(c) for c in chosen)), x)

    def depth_to_space(self, x: str) -> str:
        """Blocks of what a convolution or an Affine has made, their pixels on one grid."""
        sizes = self.builder.type(x).shape[:2]
        block = tuple(int(self.rng.integers(1, max(self.largest // size, 1) + 1)) for size in sizes)
        pixels = block[0] * block[1]
        filters = int(self.rng.integers(1, 4))
        name = self.name("Conv2d")
        fracs = tuple(int(frac) for frac in self.rng.integers(0, 6, size=filters)) * pixels
        fixed = Fixed(int(self.rng.integers(2, 7)), simplest_frac(fracs if self.rng.random() < 0.9 else fracs[:1]))
        codes = self.rng.integers(fixed.min_code, fixed.max_code, (1, 1, self.builder.type(x).channels, len(fracs)))
        weight = self.builder.constant(f"{name}.weight", codes, fixed)
        return self.add(self.name("DepthToSpace"), DepthToSpace(block), self.add(name, Conv2d(), x, weight))  # type: ignore[arg-type]

    def slice(self, x: str) -> str:
        """Some rows and columns of what a BatchNorm or nothing has made of the tensor."""
        x = self.affine(x) if self.rng.random() < 0.9 else x
        steps = []
        for size in self.builder.type(x).shape[:2]:
            start, end = (int(self.rng.integers(0, size // 3 + 1)) for _ in range(2))
            steps.append((start, size - min(end, size - start - 1), int(self.rng.integers(1, 3))))
        return self.add(self.name("Slice"), Slice(*steps), x)

    def upsample(self, x: str) -> str:
        """What a BatchNorm or nothing has made of the tensor, as far as the image stays small."""
        x = self.affine(x) if self.rng.random() < 0.9 else x
        sizes = self.builder.type(x).shape[:2]
        factor = tuple(int(self.rng.integers(1, max(self.largest // size, 1) + 1)) for size in sizes)
        return self.add(self.name("Upsample"), Upsample(factor), x)  # type: ignore[arg-type]

    def requantize(self, x: str) -> str:
        return self.narrowed(x)

    def window(self, x: str) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
        kernel, stride, padding = [], [], []
        for size in self.builder.type(x).shape[:2]:
            k = int(self.rng.integers(1, min(size, 3) + 1))
            kernel.append(k)
            stride.append(int(self.rng.integers(1, k + 1)))
            padding += [int(self.rng.integers(0, k)) if self.rng.random() < 0.5 else 0 for _ in range(2)]
        return tuple(kernel), tuple(stride), tuple(padding)  # type: ignore[return-value]

    # Constants.

    def constant(self, name: str, shape: tuple[int, ...], per_channel: bool | None = None) -> str:
        width = 0 if self.rng.random() < 0.03 else int(self.rng.integers(2, 7))
        frac: int | tuple[int, ...] = int(self.rng.integers(0, 6))
        if self.rng.random() < 0.6 if per_channel is None else per_channel:
            frac = tuple(int(f) for f in self.rng.integers(0, 6, size=shape[-1]))
        fixed = Fixed(width, frac)
        if width > 3 and self.rng.random() < 0.3:  # 2-hot: a power of two or a sum of two
            powers = 1 << self.rng.integers(0, width - 2, size=(2, *shape))
            codes = powers.sum(axis=0) * self.rng.integers(-1, 2, size=shape)
            return self.builder.constant(name, codes, fixed, max_digits=2)
        codes = self.rng.integers(fixed.min_code, fixed.max_code, size=shape, endpoint=True)
        return self.builder.constant(name, codes, fixed)

    def bias(self, name: str, x: str, weight: str, filters: int) -> tuple[str, ...]:
        if self.rng.random() < 0.4:
            return ()
        fracs = self.builder.type(x).fixed.scalar_frac + self.builder.constants[weight].fixed.fracs(filters)
        return (self.on_grid(f"{name}.bias", fracs),)

    def on_grid(self, name: str, fracs: np.ndarray) -> str:
        """A constant whose binary points are those of the products that it is added to."""
        fixed = Fixed(int(self.rng.integers(1, 8)), simplest_frac(fracs))
        codes = self.rng.integers(fixed.min_code, fixed.max_code, size=fracs.shape, endpoint=True)
        return self.builder.constant(name, codes, fixed)

    def kind(self, name: str) -> str:
        """The operation of a node."""
        return type(next(node.op for node in self.builder.nodes if node.name == name)).__name__

    def name(self, op: str) -> str:
        return f"{op.lower()}{len(self.builder.nodes)}"
