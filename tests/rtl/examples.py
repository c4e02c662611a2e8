"""Small designs that together use every operation, for the tests of plan, emitter and simulation."""

from __future__ import annotations

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding, nearest_khot
from qfx.graph import Graph, GraphBuilder, run_passes
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

SAME = (1, 1, 1, 1)


def chain(size: int = 8, channels: int = 4) -> Graph:
    """Convolution with bias, BatchNorm, ReLU and Requantize: one segment."""
    b, rng = GraphBuilder("chain"), np.random.default_rng(1)
    _stem(b, rng, size, channels)
    return run_passes(b.build("stem.q"))


def everything(channels: int = 4) -> Graph:
    """A residual block, a deformable block with 2-hot weights, pools multiplied, joined and upsampled, and a dense."""
    b, rng = GraphBuilder("everything"), np.random.default_rng(2)
    _stem(b, rng, 8, channels)
    b.constant("second.w", rng.integers(-7, 8, (3, 3, channels, channels)), Fixed(4, (2, 3, 2, 1)))
    b.add("second", Conv2d(padding=SAME), "stem.q", "second.w")
    b.add("second.q", Requantize(Fixed(6, -5), Rounding.RND_CONV), "second")
    b.add("add", Add(), "second.q", "stem.q")
    b.add("add.q", Requantize(Fixed(4, -6, False)), "add")
    b.add("pool", MaxPool((2, 2), (2, 2)), "add.q")
    b.constant("depthwise.w", rng.integers(-7, 8, (3, 3, 1, channels)), Fixed(4, 2))
    b.add("depthwise", Conv2d(padding=SAME, groups=channels), "pool", "depthwise.w")
    b.add("depthwise.q", Requantize(Fixed(4, -8, False)), "depthwise")
    _deform(b, rng, channels)
    b.add("sum", SumPool((2, 2), (2, 2)), "deform.q")
    b.constant("average", np.ones(channels, dtype=np.int64), Fixed(2, 2))
    b.constant("nothing", np.zeros(channels, dtype=np.int64), Fixed(2, b.type("sum").fixed.scalar_frac + 2))
    b.add("mean", Affine(), "sum", "average", "nothing")
    b.add("mean.q", Requantize(Fixed(6, -6, False), Rounding.TRN, Overflow.SAT), "mean")
    b.add("largest", MaxPool((2, 2), (2, 2)), "depthwise.q")
    b.add("gated", Multiply(), "mean.q", "largest")
    b.add("gated.q", Requantize(Fixed(6, -12, False)), "gated")
    b.add("both", Concat(), "gated.q", "largest")
    b.add("both.q", Requantize(Fixed(6, -6, False)), "both")
    b.add("turned", Select(tuple(range(2 * channels - 1, -1, -1))), "both.q")
    b.add("spread", DepthToSpace((1, 2)), "turned")
    b.add("gathered", Concat(), "spread", "spread")
    b.add("cut", Slice((0, 2, 1), (1, 4, 2)), "gathered")
    b.add("grown", Upsample((2, 3)), "cut")
    b.add("shrunk", MaxPool((2, 3), (2, 3)), "grown")
    b.add("flat", Flatten(), "shrunk")
    b.constant("dense.w", rng.integers(-7, 8, (8 * channels, 10)), Fixed(4, 2))
    b.constant("dense.b", rng.integers(-7, 8, (10,)), Fixed(4, -4))
    b.add("dense", Dense(), "flat", "dense.w", "dense.b")
    return run_passes(b.build("dense"))


def attention(channels: int = 6) -> Graph:
    """A softmax over channels, its tables and joins, and squeeze and excitation: skip paths around whole images."""
    b, rng = GraphBuilder("attention"), np.random.default_rng(4)
    b.add("x", Input((4, 5, channels), Fixed(6, 2)))
    b.add("top", ChannelMax(), "x")
    b.add("top.all", Select((0,) * channels), "top")
    b.constant("minus", -np.ones(channels, dtype=np.int64), Fixed(2, 0), max_digits=1)
    b.constant("none", np.zeros(channels, dtype=np.int64), Fixed(1, 2))
    b.add("negative", Affine(), "x", "minus", "none")
    b.add("below", Add(), "negative", "top.all")
    b.add("below.q", Requantize(Fixed(5, 2, False)), "below")
    b.constant("exp", np.round(63 * np.exp(-np.arange(32) / 4)).astype(np.int64), Fixed(6, 6, False))
    b.add("e", Lookup(), "below.q", "exp")
    b.add("sum", ChannelSum(), "e")
    b.add("sum.q", Requantize(Fixed(7, 4, False)), "sum")
    b.constant("reciprocal", 1024 // np.arange(8, 136), Fixed(8, 7, False))
    b.add("r", Lookup(), "sum.q", "reciprocal")
    b.add("r.all", Select((0,) * channels), "r")
    b.add("softmax", Multiply(), "e", "r.all")
    b.add("softmax.q", Requantize(Fixed(7, 7, False)), "softmax")
    b.add("squeeze", SumPool((4, 5), (1, 1)), "softmax.q")
    b.constant("gate", rng.integers(0, 8, 64), Fixed(3, 3, False))
    b.add("squeeze.q", Requantize(Fixed(6, 3, False)), "squeeze")
    b.add("gate.q", Lookup(), "squeeze.q", "gate")
    b.add("gate.all", Upsample((4, 5)), "gate.q")
    b.add("excited", Multiply(), "softmax.q", "gate.all")
    b.add("y", Requantize(Fixed(6, 6, False)), "excited")
    return run_passes(b.build("y"))


def frames(graph: Graph, count: int, seed: int = 5) -> np.ndarray:
    """Random input codes (count, *shape)."""
    fixed, rng = graph.input.type.fixed, np.random.default_rng(seed)
    return rng.integers(fixed.min_code, fixed.max_code + 1, (count, *graph.input.type.shape))


def _stem(b: GraphBuilder, rng: np.random.Generator, size: int, channels: int) -> None:
    b.add("x", Input((size, size, 2), Fixed(5, 0, False)))
    b.constant("stem.w", rng.integers(-7, 8, (3, 3, 2, channels)), Fixed(4, 2))
    b.constant("stem.b", rng.integers(-30, 30, (channels,)), Fixed(8, 2))
    b.add("stem", Conv2d(padding=SAME), "x", "stem.w", "stem.b")
    b.constant("norm.s", rng.integers(-7, 8, (channels,)), Fixed(4, 1))
    b.constant("norm.t", rng.integers(-300, 300, (channels,)), Fixed(12, 3))
    b.add("norm", Affine(), "stem", "norm.s", "norm.t")
    b.add("relu", Clamp(0, b.type("norm").fixed.max_code // 2), "norm")
    b.add("stem.q", Requantize(Fixed(4, -5, False)), "relu")


def _deform(b: GraphBuilder, rng: np.random.Generator, channels: int) -> None:
    b.constant("offset.w", rng.integers(-2, 5, (3, 3, channels, 1)), Fixed(4, 3))
    b.add("offset.conv", Conv2d(padding=SAME), "depthwise.q", "offset.w")
    # Dilations are counts of pixels: the binary point moves to where they are small numbers.
    b.constant("unit", np.ones(1, dtype=np.int64), Fixed(2, 9))
    b.constant("zero", np.zeros(1, dtype=np.int64), Fixed(2, b.type("offset.conv").fixed.scalar_frac + 9))
    b.add("offset.unit", Affine(), "offset.conv", "unit", "zero")
    b.add("offset.q", Requantize(Fixed(6, 0)), "offset.unit")
    b.add("offset", Clamp(0, 3), "offset.q")
    twohot = nearest_khot(rng.normal(size=(3, 3, channels)) * 30, 8, 2, True)
    b.constant("deform.w", twohot, Fixed(8, 5), max_digits=2, signed_digits=True)
    b.add("deform", DeformConv2d(3), "depthwise.q", "offset", "deform.w")
    b.add("deform.q", Requantize(Fixed(5, -7, False)), "deform")
