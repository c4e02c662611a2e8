"""One list of cases for each operation, which every engine runs: a small graph and the input codes that strain it."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding, nearest_khot, simplest_frac
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import (
    Add,
    Affine,
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
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)
from tests.conformance.random_graphs import random_codes

IMAGES = 6  # of each case that has not codes of its own


@dataclass(frozen=True, eq=False)
class Case:
    """A graph whose last node is the operation under test, and codes for its input."""

    name: str
    op: str
    graph: Graph
    codes: np.ndarray


class Draft:
    """A graph under construction, with seeded constants."""

    def __init__(self, name: str, fixed: str, shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.builder = GraphBuilder(name)
        self.x = self.builder.add("x", Input(shape, Fixed.parse(fixed)))

    def add(self, name: str, op: object, *inputs: str) -> str:
        return self.builder.add(name, op, *inputs)  # type: ignore[arg-type]

    def constant(self, name: str, shape: tuple[int, ...], fixed: str = "s4.2") -> str:
        """Random codes over the whole format, both ends among them where there is room."""
        kind = Fixed.parse(fixed)
        codes = self.rng.integers(kind.min_code, kind.max_code, size=shape, endpoint=True)
        if codes.size > 1:
            codes.flat[[0, -1]] = kind.min_code, kind.max_code
        return self.builder.constant(name, codes, kind)

    def khot(self, name: str, shape: tuple[int, ...], signed_digits: bool, width: int = 8) -> str:
        """Codes with at most two non-zero digits, the largest one and zero among them."""
        values = self.rng.normal(scale=2.0 ** (width - 2), size=shape)
        values.flat[0] = 2.0**width
        values.flat[-1] = 0.0
        codes = nearest_khot(values, width, 2, signed_digits)
        return self.builder.constant(name, codes, Fixed(width, 5), max_digits=2, signed_digits=signed_digits)

    def grid(self, name: str, x: str, factor: str, width: int = 6) -> str:
        """A bias or shift on the grid of the products of a tensor and a constant."""
        constant = self.builder.constants[factor]
        channels = constant.type.channels
        fracs = self.builder.type(x).fixed.fracs(channels) + constant.fixed.fracs(channels)
        fixed = Fixed(width, simplest_frac(fracs))
        return self.builder.constant(name, self.rng.integers(fixed.min_code, fixed.max_code + 1, channels), fixed)


Write = Callable[[Draft], str]
_WRITERS: dict[str, tuple[str, str, tuple[int, ...], Write, Callable[[], np.ndarray] | None]] = {}


def case(
    op: str, name: str, write: Write, fixed: str = "s4.1", shape: tuple[int, ...] = (5, 4, 3), codes: object = None
) -> None:
    """Enter a case into the list."""
    name = f"{op.lower()}_{name}"
    if name in _WRITERS:
        raise ValueError(f"case names must be unique, but {name!r} is there twice")
    _WRITERS[name] = (op, fixed, shape, write, codes)  # type: ignore[assignment]


@cache
def case_named(name: str) -> Case:
    """Build one case."""
    op, fixed, shape, write, codes = _WRITERS[name]
    draft = Draft(name, fixed, shape)
    graph = draft.builder.build(write(draft))
    return Case(name, op, graph, codes() if codes else random_codes(graph, IMAGES, zlib.crc32(name.encode())))


def case_names(op: str | None = None) -> list[str]:
    """The names of all cases, or of those of one operation."""
    return [name for name, (of, *_) in _WRITERS.items() if op in (None, of)]


# ---------------------------------------------------------------------------------------------------------------------
# Input: the codes themselves


def _nothing(draft: Draft) -> str:
    return draft.x


for _fixed in ("u8.0", "s1.3", "u1.-2", "s12.4"):
    case("Input", _fixed.replace(".", "_").replace("-", "m"), _nothing, _fixed)
case("Input", "vector", _nothing, "s5.2", (6,))


# ---------------------------------------------------------------------------------------------------------------------
# Conv2d


def convolved(
    draft: Draft,
    kernel: tuple[int, int] = (3, 3),
    filters: int = 4,
    weight: str = "s4.2",
    bias: bool = True,
    digits: str = "",
    **op: object,
) -> str:
    channels = draft.builder.type(draft.x).channels
    shape = (*kernel, channels // int(op.get("groups", 1)), filters)  # type: ignore[call-overload]
    w = draft.khot("w", shape, digits == "signed") if digits else draft.constant("w", shape, weight)
    biases = (draft.grid("b", draft.x, w),) if bias else ()
    return draft.add("y", Conv2d(**op), draft.x, w, *biases)  # type: ignore[arg-type]


SAME = {"padding": (1, 1, 1, 1)}
case("Conv2d", "pointwise", partial(convolved, kernel=(1, 1)))
case("Conv2d", "same", partial(convolved, **SAME))
case("Conv2d", "without_bias", partial(convolved, bias=False))
case("Conv2d", "stride_2", partial(convolved, stride=(2, 2), **SAME), shape=(7, 6, 2))
case("Conv2d", "stride_uneven", partial(convolved, stride=(1, 3), **SAME), shape=(7, 6, 2))
case("Conv2d", "stride_beyond_kernel", partial(convolved, kernel=(1, 1), stride=(2, 3)), shape=(7, 6, 2))
case("Conv2d", "padding_uneven", partial(convolved, padding=(0, 1, 2, 0)))
case(
    "Conv2d", "padding_as_wide_as_the_kernel", partial(convolved, kernel=(2, 2), padding=(2, 2, 2, 2)), shape=(7, 6, 2)
)
case("Conv2d", "dilated", partial(convolved, dilation=(2, 2), padding=(2, 2, 2, 2)), shape=(7, 6, 2))
case("Conv2d", "dilated_uneven", partial(convolved, dilation=(1, 3), padding=(1, 0, 3, 2)), shape=(7, 6, 2))
case("Conv2d", "row_kernel", partial(convolved, kernel=(1, 3)))
case("Conv2d", "column_kernel", partial(convolved, kernel=(3, 1)))
case("Conv2d", "even_kernel", partial(convolved, kernel=(2, 2)))
case("Conv2d", "depthwise", partial(convolved, groups=3, filters=3, **SAME))
case("Conv2d", "depthwise_stride_2", partial(convolved, groups=2, filters=2, stride=(2, 2), **SAME), shape=(7, 6, 2))
case("Conv2d", "depthwise_twice", partial(convolved, groups=3, filters=6, **SAME))
case("Conv2d", "grouped", partial(convolved, groups=2, filters=6, **SAME), shape=(5, 4, 4))
case("Conv2d", "per_channel", partial(convolved, weight="s4.[2,-1,4,0]", **SAME))
case("Conv2d", "per_channel_depthwise", partial(convolved, groups=3, filters=3, weight="s5.[3,1,6]", **SAME))
case("Conv2d", "unsigned", partial(convolved, **SAME), "u5.0")
case("Conv2d", "one_bit", partial(convolved, weight="s1.0", **SAME), "u1.0")
case("Conv2d", "twohot", partial(convolved, digits="unsigned", **SAME))
case("Conv2d", "twohot_signed_digits", partial(convolved, digits="signed", **SAME))
case("Conv2d", "twohot_depthwise", partial(convolved, digits="unsigned", groups=3, filters=3, **SAME))
case("Conv2d", "weight_of_width_0", partial(convolved, weight="s0.1", **SAME))
case("Conv2d", "one_pixel", partial(convolved, **SAME), shape=(1, 1, 2))
case("Conv2d", "one_row", partial(convolved, kernel=(1, 3), padding=(0, 0, 1, 1)), shape=(1, 6, 2))
case("Conv2d", "one_channel", partial(convolved, filters=1, **SAME), shape=(4, 8, 1))
case("Conv2d", "beyond_float32", partial(convolved, weight="s12.4", bias=False, **SAME), "s14.2")
case("Conv2d", "many_channels", partial(convolved, filters=11, **SAME), shape=(3, 3, 13))


# ---------------------------------------------------------------------------------------------------------------------
# DeformConv2d: channel 0 of the input is the dilation


def _deform(draft: Draft, reach: int = 3, weight: str = "s4.2", bias: bool = True, digits: str = "") -> str:
    channels = draft.builder.type(draft.x).channels
    pick = np.zeros((1, 1, channels, 1), dtype=np.int64)
    pick[0, 0, 0, 0] = 1
    draft.builder.constant("pick", pick, Fixed(2, 0))
    offset = draft.add("picked", Conv2d(), draft.x, "pick")
    offset = draft.add("rounded", Requantize(Fixed(4, 0, signed=False)), offset)
    offset = draft.add("offset", Clamp(0, reach), offset)
    w = draft.khot("w", (3, 3, channels), False) if digits else draft.constant("w", (3, 3, channels), weight)
    biases = (draft.grid("b", draft.x, w),) if bias else ()
    return draft.add("y", DeformConv2d(reach), draft.x, offset, w, *biases)


case("DeformConv2d", "square", _deform, "u2.0")
case("DeformConv2d", "without_bias", partial(_deform, bias=False), "u2.0", (7, 6, 2))
case("DeformConv2d", "beyond_the_image", partial(_deform, reach=5), "u3.0")
case("DeformConv2d", "reach_0", partial(_deform, reach=0), "u2.0")
case("DeformConv2d", "reach_1", partial(_deform, reach=1), "s3.0")
case("DeformConv2d", "signed_between_codes", partial(_deform, reach=3), "s5.1", (7, 6, 2))
case("DeformConv2d", "per_channel", partial(_deform, weight="s4.[1,3,-1]"), "u2.0")
case("DeformConv2d", "twohot", partial(_deform, digits="unsigned"), "u2.0")
case("DeformConv2d", "one_row", _deform, "u2.0", (1, 6, 2))


# ---------------------------------------------------------------------------------------------------------------------
# Dense, Affine


def _dense(draft: Draft, filters: int = 5, weight: str = "s4.2", bias: bool = True, digits: str = "") -> str:
    shape = (draft.builder.type(draft.x).channels, filters)
    w = draft.khot("w", shape, digits == "signed") if digits else draft.constant("w", shape, weight)
    return draft.add("y", Dense(), draft.x, w, *((draft.grid("b", draft.x, w),) if bias else ()))


case("Dense", "plain", _dense, shape=(6,))
case("Dense", "without_bias", partial(_dense, bias=False), shape=(6,))
case("Dense", "one_to_one", partial(_dense, filters=1), shape=(1,))
case("Dense", "per_channel", partial(_dense, weight="s4.[2,-1,4,0,3]"), "u4.0", (6,))
case("Dense", "twohot", partial(_dense, digits="unsigned"), shape=(6,))
case("Dense", "twohot_signed_digits", partial(_dense, digits="signed"), shape=(6,))
case("Dense", "beyond_float32", partial(_dense, weight="s12.4"), "s14.2", (6,))


def _affine(draft: Draft, scale: str = "s4.2", digits: str = "") -> str:
    channels = draft.builder.type(draft.x).channels
    s = draft.khot("s", (channels,), digits == "signed") if digits else draft.constant("s", (channels,), scale)
    return draft.add("y", Affine(), draft.x, s, draft.grid("t", draft.x, s))


def _affine_behind_conv(draft: Draft) -> str:
    """The fixed-point BatchNorm: it reads an accumulator that has a binary point for each channel."""
    y = convolved(draft, weight="s4.[2,-1,4,0]")
    s = draft.constant("s", (4,), "s5.[1,3,0,2]")
    return draft.add("z", Affine(), y, s, draft.grid("t", y, s))


case("Affine", "image", _affine)
case("Affine", "vector", _affine, shape=(6,))
case("Affine", "unsigned", _affine, "u5.0")
case("Affine", "per_channel", partial(_affine, scale="s4.[1,3,-2]"))
case("Affine", "behind_conv", _affine_behind_conv)
case("Affine", "twohot", partial(_affine, digits="unsigned"))
case("Affine", "twohot_signed_digits", partial(_affine, digits="signed"))
case("Affine", "scale_of_width_0", partial(_affine, scale="s0.0"))


# ---------------------------------------------------------------------------------------------------------------------
# Concat


def _concat(draft: Draft, a: str, b: str) -> str:
    first = draft.add("a", Requantize(Fixed.parse(a), Rounding.RND_CONV), draft.x)
    second = draft.add("b", Requantize(Fixed.parse(b), Rounding.TRN, Overflow.WRAP), draft.x)
    return draft.add("y", Concat(), first, second)


def _concat_shortcut(draft: Draft, filters: int) -> str:
    """A dense block: the input waits while the convolution works, which gives a binary point for each channel."""
    fracs = ",".join(str(channel % 5 - 1) for channel in range(filters))
    y = convolved(draft, filters=filters, weight=f"s4.[{fracs}]", **SAME)
    return draft.add("z", Concat(), y, draft.x)


def _concat_three(draft: Draft) -> str:
    pair = draft.add("pair", Concat(), draft.x, convolved(draft, filters=6, **SAME))
    return draft.add("z", Concat(), pair, draft.x)


case("Concat", "equal_formats", partial(_concat, a="s4.1", b="s4.1"), "s6.2")
case("Concat", "finer_second", partial(_concat, a="s3.-1", b="s6.4"), "s6.2")
case("Concat", "unsigned_first", partial(_concat, a="u5.1", b="s3.0"), "s6.2")
case("Concat", "unsigned_both", partial(_concat, a="u2.1", b="u5.1"), "s6.2")
case("Concat", "of_width_0", partial(_concat, a="s0.4", b="s5.2"), "s6.2")
case("Concat", "itself", lambda draft: draft.add("y", Concat(), draft.x, draft.x))
case("Concat", "vectors", partial(_concat, a="s5.3", b="u4.2"), "s6.2", (6,))
case("Concat", "shortcut", partial(_concat_shortcut, filters=4))
case("Concat", "shortcut_of_fewer_channels", partial(_concat_shortcut, filters=2), shape=(7, 6, 2))
case("Concat", "three", _concat_three)


# ---------------------------------------------------------------------------------------------------------------------
# Pooling

_POOLS = {
    "halves": ((2, 2), (2, 2)),
    "overlapping": ((3, 3), (2, 2), (1, 1, 1, 1)),
    "stride_1": ((2, 2), (1, 1), (0, 1, 0, 1)),
    "uneven": ((2, 3), (2, 1), (1, 0, 2, 0)),
    "global": ((5, 4), (1, 1)),
    "beyond_kernel": ((1, 1), (2, 3)),
    "leaves_a_rest": ((2, 2), (2, 2)),
}


def _pool(draft: Draft, op: type, window: tuple[object, ...]) -> str:
    return draft.add("y", op(*window), draft.x)


for (_name, _arguments), _op in product(_POOLS.items(), (MaxPool, SumPool)):
    _shape = (7, 6, 2) if _name == "leaves_a_rest" else (5, 4, 3)
    case(_op.__name__, _name, partial(_pool, op=_op, window=_arguments), "s4.1", _shape)
    if _name in ("overlapping", "global"):
        case(_op.__name__, f"{_name}_unsigned", partial(_pool, op=_op, window=_arguments), "u4.0", _shape)


# ---------------------------------------------------------------------------------------------------------------------
# Select


def _select(draft: Draft, channels: tuple[int, ...], behind_conv: bool = False) -> str:
    x = convolved(draft, filters=3, weight="s4.[2,-1,4]") if behind_conv else draft.x
    return draft.add("z", Select(channels), x)


case("Select", "reversed", partial(_select, channels=(2, 1, 0)))
case("Select", "slice", partial(_select, channels=(1, 2)), "u5.0")
case("Select", "zeros_around", partial(_select, channels=(-1, -1, 0, 1, 2, -1)))
case("Select", "one_to_many", partial(_select, channels=(0,) * 7), "s5.2", (3, 4, 1))
case("Select", "shuffle", partial(_select, channels=(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11)), "s3.0", (3, 3, 12))
case("Select", "vector", partial(_select, channels=(6, 0, 0, -1, 3)), "s5.2", (7,))
case("Select", "of_one_bit", partial(_select, channels=(1, -1, 0)), "s1.0", (4, 3, 2))
case("Select", "per_channel", partial(_select, channels=(-1, 2, 0, 2), behind_conv=True))
case("Select", "per_channel_to_one", partial(_select, channels=(1, -1), behind_conv=True))


# ---------------------------------------------------------------------------------------------------------------------
# Upsample


def _upsample(draft: Draft, factor: tuple[int, int], behind_conv: bool = False) -> str:
    x = convolved(draft, filters=3, weight="s4.[2,-1,4]") if behind_conv else draft.x
    return draft.add("z", Upsample(factor), x)


case("Upsample", "doubled", partial(_upsample, factor=(2, 2)))
case("Upsample", "rows", partial(_upsample, factor=(3, 1)), "u5.0")
case("Upsample", "columns", partial(_upsample, factor=(1, 2)))
case("Upsample", "by_one", partial(_upsample, factor=(1, 1)))
case("Upsample", "one_pixel", partial(_upsample, factor=(3, 2)), shape=(1, 1, 2))
case("Upsample", "one_row", partial(_upsample, factor=(2, 3)), "s1.0", (1, 6, 2))
case("Upsample", "many_channels", partial(_upsample, factor=(2, 2)), "s5.0", (3, 3, 13))
case("Upsample", "per_channel", partial(_upsample, factor=(2, 1), behind_conv=True))


# ---------------------------------------------------------------------------------------------------------------------
# DepthToSpace and Slice


def _depth(draft: Draft, block: tuple[int, int], behind_conv: bool = False) -> str:
    x = convolved(draft, filters=6, weight="s4.[2,-1,4,2,-1,4]") if behind_conv else draft.x
    return draft.add("z", DepthToSpace(block), x)


case("DepthToSpace", "doubled", partial(_depth, block=(2, 2)), "s4.1", (3, 4, 8))
case("DepthToSpace", "rows", partial(_depth, block=(3, 1)), "u5.0")
case("DepthToSpace", "columns", partial(_depth, block=(1, 3)))
case("DepthToSpace", "by_one", partial(_depth, block=(1, 1)))
case("DepthToSpace", "one_pixel", partial(_depth, block=(2, 3)), "s1.0", (1, 1, 12))
case("DepthToSpace", "per_channel", partial(_depth, block=(1, 2), behind_conv=True))


def _slice(draft: Draft, rows: tuple[int, int, int], columns: tuple[int, int, int], behind_conv: bool = False) -> str:
    x = convolved(draft, filters=3, weight="s4.[2,-1,4]", **SAME) if behind_conv else draft.x
    return draft.add("z", Slice(rows, columns), x)


case("Slice", "crop", partial(_slice, rows=(1, 4, 1), columns=(1, 3, 1)))
case("Slice", "strided", partial(_slice, rows=(0, 5, 2), columns=(1, 4, 2)), "u5.0")
case("Slice", "whole", partial(_slice, rows=(0, 5, 1), columns=(0, 4, 1)))
case("Slice", "last_pixel", partial(_slice, rows=(4, 5, 1), columns=(3, 4, 1)))
case("Slice", "first_pixel", partial(_slice, rows=(0, 2, 3), columns=(0, 1, 1)))
case("Slice", "many_channels", partial(_slice, rows=(0, 4, 3), columns=(1, 6, 2)), "s5.0", (4, 6, 13))
case("Slice", "one_row", partial(_slice, rows=(0, 1, 1), columns=(2, 9, 3)), "s1.0", (1, 9, 2))
case("Slice", "per_channel", partial(_slice, rows=(1, 5, 2), columns=(0, 3, 1), behind_conv=True))


# ---------------------------------------------------------------------------------------------------------------------
# Requantize: every code of the input, so every tie and every overflow


def _requantize(draft: Draft, to: str, rounding: Rounding = Rounding.RND, overflow: Overflow = Overflow.SAT) -> str:
    return draft.add("y", Requantize(Fixed.parse(to), rounding, overflow), draft.x)


def _every_code(fixed: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = Fixed.parse(fixed)
    every = np.arange(kind.min_code, kind.max_code + 1)
    images = -(-len(every) // int(np.prod(shape)))
    return np.resize(every, (images, *shape))


def _requantize_per_channel(draft: Draft, rounding: Rounding, overflow: Overflow) -> str:
    y = _affine(draft, scale="s3.[0,2,5]")
    return draft.add("z", Requantize(Fixed(4, 1), rounding, overflow), y)


for _rounding, _overflow, _to in product(Rounding, Overflow, ("s4.1", "u4.1")):
    case(
        "Requantize",
        f"{_rounding}_{_overflow}_{_to.replace('.', '_')}".lower(),
        partial(_requantize, to=_to, rounding=_rounding, overflow=_overflow),
        "s7.3",
        (4, 8, 1),
        partial(_every_code, "s7.3", (4, 8, 1)),
    )
for _index, _rounding in enumerate(Rounding):
    case(
        "Requantize",
        f"per_channel_{_rounding}".lower(),
        partial(_requantize_per_channel, rounding=_rounding, overflow=list(Overflow)[_index % 4]),
    )
for _name, _from, _to in (
    ("left", "s4.0", "s9.5"),
    ("left_and_saturate", "s4.0", "s5.3"),
    ("far_right", "s4.0", "s4.-30"),
    ("far_left", "s4.0", "s4.30"),
    ("to_one_bit", "s5.2", "u1.0"),
    ("to_one_signed_bit", "s5.2", "s1.0"),
    ("to_width_0", "s5.2", "s0.0"),
    ("unsigned", "u6.3", "u3.1"),
    ("wider", "u4.2", "s9.2"),
):
    case("Requantize", _name, partial(_requantize, to=_to), _from, (4, 8, 1), partial(_every_code, _from, (4, 8, 1)))
case("Requantize", "symmetric_same_format", partial(_requantize, to="s4.1", overflow=Overflow.SAT_SYM))
case("Requantize", "symmetric_one_bit", partial(_requantize, to="s1.1", overflow=Overflow.SAT_SYM))


# ---------------------------------------------------------------------------------------------------------------------
# Clamp, Lookup, Flatten


def _clamp(draft: Draft, low: int, high: int) -> str:
    return draft.add("y", Clamp(low, high), draft.x)


def _clamp_per_channel(draft: Draft) -> str:
    y = _affine(draft, scale="s3.[0,2,5]")
    return draft.add("z", Clamp(-3, 11), y)


case("Clamp", "relu", partial(_clamp, low=0, high=15), "s5.2")
case("Clamp", "relu6", partial(_clamp, low=0, high=6), "s5.0")
case("Clamp", "both_sides", partial(_clamp, low=-5, high=9), "s5.2")
case("Clamp", "negative_only", partial(_clamp, low=-9, high=-2), "s5.2")
case("Clamp", "to_one_code", partial(_clamp, low=3, high=3), "s5.2")
case("Clamp", "unsigned", partial(_clamp, low=2, high=20), "u5.2")
case("Clamp", "vector", partial(_clamp, low=-5, high=9), "s5.2", (6,))
case("Clamp", "per_channel", _clamp_per_channel)


def _lookup(draft: Draft, table: str = "s6.3", x: str | None = None) -> str:
    source = x or draft.x
    entries = (1 << draft.builder.type(source).fixed.width,)
    return draft.add("looked_up", Lookup(), source, draft.constant("table", entries, table))


def _lookup_behind_requantize(draft: Draft) -> str:
    """What a layer lowers to: its input's own format, then the table."""
    to = Requantize(Fixed(5, 1), Rounding.RND_CONV)
    return _lookup(draft, x=draft.add("q", to, convolved(draft, weight="s4.[2,-1,4,0]")))


def _lookup_of_reached_codes(draft: Draft) -> str:
    """Codes that the input cannot have; narrowing must leave it the format that the table is made for."""
    return _lookup(draft, "s9.4", draft.add("c", Clamp(-3, 2), draft.add("twice", Add(), draft.x, draft.x)))


for _width in range(1, 13):
    _fixed, _shape = f"{'us'[_width % 2]}{_width}.{_width // 2}", (4, 8, 1 if _width < 9 else 16)
    case("Lookup", f"width_{_width}", _lookup, _fixed, _shape, partial(_every_code, _fixed, _shape))
case("Lookup", "signed", partial(_lookup, table="u5.5"), "s6.2", (4, 8, 1), partial(_every_code, "s6.2", (4, 8, 1)))
case("Lookup", "unsigned", partial(_lookup, table="s3.7"), "u6.-2", (4, 8, 1), partial(_every_code, "u6.-2", (4, 8, 1)))
case("Lookup", "image", _lookup)
case("Lookup", "vector", _lookup, shape=(6,))
case("Lookup", "many_channels", _lookup, shape=(3, 3, 13))
case("Lookup", "one_bit_entries", partial(_lookup, table="u1.0"))
case("Lookup", "wide_entries", partial(_lookup, table="s24.9"))
case("Lookup", "entries_of_width_0", partial(_lookup, table="s0.2"))
case("Lookup", "of_width_0", lambda draft: _lookup(draft, x=draft.add("q", Requantize(Fixed(0, 1)), draft.x)))
case("Lookup", "behind_requantize", _lookup_behind_requantize)
case("Lookup", "of_reached_codes", _lookup_of_reached_codes)

case("Flatten", "image", lambda draft: draft.add("y", Flatten(), draft.x))
case("Flatten", "one_pixel", lambda draft: draft.add("y", Flatten(), draft.x), shape=(1, 1, 2))
case("Flatten", "vector", lambda draft: draft.add("y", Flatten(), draft.x), shape=(6,))

# Add, Multiply, ChannelMax, ChannelSum: a file of their own, which enters its cases as the last ones.
import tests.conformance.arithmetic_cases  # noqa: E402, F401
