"""Graphs that reach every kernel of the HLS emitter, several in one project because compiling costs the most."""

from itertools import product

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding, nearest_khot
from qfx.graph import Graph, GraphBuilder
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
    MaxPool,
    Multiply,
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)

MODES = list(product(Rounding, Overflow))


class Author:
    """Builds graphs with seeded constants, and joins its branches in outputs."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.builder = GraphBuilder(name)
        self.rng = np.random.default_rng(seed)
        self.outputs: list[str] = []

    def add(self, name: str, op: object, *inputs: str) -> str:
        """Add a node."""
        return self.builder.add(name, op, *inputs)  # type: ignore[arg-type]

    def weight(self, name: str, shape: tuple[int, ...], fixed: Fixed) -> str:
        """Add a constant of random codes, the extremes among them."""
        codes = self.rng.integers(fixed.min_code, fixed.max_code, size=shape, endpoint=True)
        codes.flat[0], codes.flat[-1] = fixed.min_code, fixed.max_code
        return self.builder.constant(name, codes, fixed)

    def khot(self, name: str, shape: tuple[int, ...], fixed: Fixed, digits: int, signed: bool) -> str:
        """Add a K-hot constant of random codes."""
        values = self.rng.uniform(fixed.min_code, fixed.max_code, size=shape)
        codes = nearest_khot(values, fixed.width, digits, signed)
        return self.builder.constant(name, codes, fixed, max_digits=digits, signed_digits=signed)

    def requantized(self, name: str, fixed: Fixed) -> str:
        """Put a Requantize behind a node: what most ops need before the next."""
        return self.add(f"{name}_q", Requantize(fixed), name)

    def output(self, name: str) -> None:
        """Make a node an output."""
        self.outputs.append(name)

    def graph(self) -> Graph:
        """Return the verified graph."""
        return self.builder.build(*self.outputs)


def convolution_graph() -> Graph:
    """Convolutions by hls4ml's kernels and by ours; the names are ones that C++ or hls4ml reserve."""
    a = Author("convolutions", 1)
    x = a.add("input", Input((7, 6, 4), Fixed(4, 1)))
    per_channel = (3, 5, 4, 4)

    def conv(name: str, source: str, op: Conv2d, weight: str, *bias: str) -> str:
        made = a.add(name, op, source, weight, *bias)
        a.output(made)
        return made

    w = a.weight("w0", (3, 3, 4, 4), Fixed(4, per_channel))
    b = a.weight("b0", (4,), Fixed(9, tuple(1 + f for f in per_channel)))
    same = a.add("time", Conv2d(padding=(1, 1, 1, 1)), x, w, b)
    source = a.requantized(same, Fixed(4, 0, False))
    # hls4ml's kernels: strided, one-sided padding, 1x1, one row
    conv("size", source, Conv2d(stride=(2, 2), padding=(0, 1, 2, 0)), a.weight("w1", (3, 2, 4, 3), Fixed(5, -2)))
    conv(
        "float",
        source,
        Conv2d(),
        a.weight("w2", (1, 1, 4, 5), Fixed(3, (1, 2, 3, 4, 5))),
        a.weight("b2", (5,), Fixed(6, (1, 2, 3, 4, 5))),
    )
    conv("result", source, Conv2d(stride=(1, 2)), a.weight("w3", (1, 3, 4, 2), Fixed(1, 0)))
    conv("dw.3", source, Conv2d(padding=(1, 1, 1, 1), groups=4), a.weight("w4", (3, 3, 1, 4), Fixed(4, per_channel)))
    # ours: stride above the kernel, dilation, groups, one-row depthwise
    source = a.add("clamp", Clamp(-7, 6), x)
    conv("skip", source, Conv2d(stride=(3, 2)), a.weight("w5", (2, 1, 4, 3), Fixed(4, 2)))
    conv(
        "dilated",
        source,
        Conv2d(padding=(2, 3, 1, 0), dilation=(2, 3)),
        a.weight("w6", (3, 2, 4, 2), Fixed(4, 2)),
        a.weight("b6", (2,), Fixed(7, 3)),
    )
    conv(
        "grouped",
        source,
        Conv2d(stride=(2, 1), padding=(0, 0, 1, 1), groups=2),
        a.weight("w7", (3, 3, 2, 6), Fixed(3, (0, 1, 2, 3, 4, 5))),
    )
    conv("row-wise", source, Conv2d(groups=4, padding=(0, 0, 2, 2)), a.weight("w8", (1, 5, 1, 8), Fixed(4, 2)))
    conv("khot", source, Conv2d(padding=(1, 1, 1, 1)), a.khot("w9", (3, 3, 4, 4), Fixed(8, per_channel), 2, True))
    conv("khot_dw", source, Conv2d(padding=(4, 0, 0, 4), groups=4), a.khot("w10", (3, 3, 1, 4), Fixed(8, 6), 2, False))
    return a.graph()


def element_graph() -> Graph:
    """Everything but convolution: deformable, affine, add, pools, clamp, flatten, dense."""
    a = Author("elements", 2)
    x = a.add("input", Input((6, 6, 3), Fixed(5, 0, False)))
    offset = a.add("off_conv", Conv2d(padding=(1, 1, 1, 1)), x, a.weight("w0", (3, 3, 3, 1), Fixed(3, 5)))
    offset = a.add("off", Clamp(0, 3), a.requantized(offset, Fixed(4, 0)))
    plain = a.add(
        "deform",
        DeformConv2d(3),
        x,
        offset,
        a.weight("w1", (3, 3, 3), Fixed(4, (1, 2, 3))),
        a.weight("b1", (3,), Fixed(8, (1, 2, 3))),
    )
    khot = a.add("deform_khot", DeformConv2d(3), x, offset, a.khot("w2", (3, 3, 3), Fixed(8, 6), 2, False))
    a.output(khot)
    affine = a.add(
        "affine", Affine(), plain, a.weight("s3", (3,), Fixed(5, (2, 2, 4))), a.weight("t3", (3,), Fixed(12, (3, 4, 7)))
    )
    left = a.requantized(affine, Fixed(7, 3))
    right = a.requantized(khot, Fixed(6, -1))
    total = a.add("add", Add(), left, right)
    a.output(a.add("twice", Add(), total, total))
    a.output(a.add("largest", ChannelMax(), total))
    a.output(a.add("all", ChannelSum(), total))
    a.output(a.add("gated", Multiply(), affine, right))
    a.output(a.add("joined", Concat(), x, affine))
    a.output(a.add("chosen", Select((1, -1, 0, 1)), affine))
    a.output(a.add("sliced", Slice((1, 4, 2), (0, 3, 1)), affine))
    a.output(a.add("blocks", DepthToSpace((3, 1)), total))
    a.output(a.add("larger", Upsample((2, 3)), affine))
    a.output(a.add("max", MaxPool((3, 2), (2, 1), (1, 1, 0, 1)), total))
    pooled = a.add("sum", SumPool((3, 3), (2, 2), (1, 1, 2, 0)), total)
    scaled = a.add(
        "scaled",
        Affine(),
        pooled,
        a.khot("s4", (3,), Fixed(8, (1, 9, -3)), 3, True),
        a.weight("t4", (3,), Fixed(20, (4, 12, 0))),
    )
    relu = a.add("relu", Clamp(0, a.builder.type(scaled).fixed.max_code // 3), scaled)
    flat = a.add("flat", Flatten(), a.requantized(relu, Fixed(6, 2)))
    inputs = a.builder.type(flat).size
    a.output(
        a.add(
            "dense",
            Dense(),
            flat,
            a.weight("w5", (inputs, 4), Fixed(5, (0, 2, 4, 6))),
            a.weight("b5", (4,), Fixed(8, (2, 4, 6, 8))),
        )
    )
    a.output(a.add("dense_khot", Dense(), flat, a.khot("w6", (inputs, 3), Fixed(8, (7, 6, 7)), 2, True)))
    return a.graph()


def requantize_graph() -> Graph:
    """All 28 modes from one binary point a channel; each rounding mode also with all bits shifted below the result."""
    a = Author("modes", 3)
    x = a.add("input", Input((8, 8, 4), Fixed(7, 3)))
    scale, shift = a.weight("s", (4,), Fixed(3, (0, 2, 5, -4))), a.weight("t", (4,), Fixed(4, (3, 5, 8, -1)))
    spread = a.add("spread", Affine(), x, scale, shift)
    limits = a.builder.type(spread).fixed
    for group in range(4):  # a stream has at most seven readers
        copy = a.add(f"copy_{group}", Clamp(limits.min_code, limits.max_code), spread)
        for rounding, overflow in MODES[7 * group : 7 * group + 7]:
            a.output(
                a.add(f"{rounding.value}_{overflow.value}", Requantize(Fixed(5, 2, False), rounding, overflow), copy)
            )
    plain = a.add("plain", Clamp(-64, 63), x)
    for rounding in list(Rounding)[2:]:
        a.output(a.add(f"below_{rounding.value}", Requantize(Fixed(3, -6), rounding, Overflow.SAT), plain))
    a.output(a.add("left", Requantize(Fixed(6, 9, False), Rounding.RND, Overflow.WRAP), plain))
    far = [a.weight(name, (4,), Fixed(4, tuple(f + x for f in (40, -20, 1, 0)))) for name, x in (("s2", 0), ("t2", 3))]
    a.add("far", Affine(), plain, *far)  # needs more than 64 bits inside
    a.output(a.add("far_q", Requantize(Fixed(8, 2), Rounding.RND_CONV, Overflow.SAT_SYM), "far"))
    return a.graph()


def small_graph() -> Graph:
    """One node of each family, for faults that are planted."""
    a = Author("small", 4)
    x = a.add("input", Input((4, 4, 2), Fixed(6, 2)))
    conv = a.add(
        "conv", Conv2d(), x, a.weight("w", (2, 2, 2, 3), Fixed(4, (1, 2, 3))), a.weight("b", (3,), Fixed(6, (3, 4, 5)))
    )
    a.add("rounded", Requantize(Fixed(7, 1), Rounding.RND_CONV, Overflow.SAT), conv)
    a.output(
        a.add("khot", Affine(), "rounded", a.khot("s", (3,), Fixed(8, 5), 2, False), a.weight("t", (3,), Fixed(6, 6)))
    )
    return a.graph()


def codes_for(graph: Graph, frames: int = 4, seed: int = 0) -> np.ndarray:
    """Return input codes: the lowest, the highest, then random ones."""
    kind = graph.input.type
    low, high = kind.fixed.min_code, kind.fixed.max_code
    random = np.random.default_rng(seed).integers(low, high, size=(frames, *kind.shape), endpoint=True)
    return np.concatenate([np.full((1, *kind.shape), low), np.full((1, *kind.shape), high), random])
