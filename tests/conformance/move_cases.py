"""The cases of the operations that only move codes."""

from functools import partial

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.ops import Concat, DepthToSpace, Requantize, Select, Slice, Upsample
from tests.conformance.draft import SAME, Draft, case, conv

# ---------------------------------------------------------------------------------------------------------------------
# Concat


def _concat(draft: Draft, a: str, b: str) -> str:
    first = draft.add("a", Requantize(Fixed.parse(a), Rounding.RND_CONV), draft.x)
    second = draft.add("b", Requantize(Fixed.parse(b), Rounding.TRN, Overflow.WRAP), draft.x)
    return draft.add("y", Concat(), first, second)


def _concat_shortcut(draft: Draft, filters: int) -> str:
    """A dense block: the input waits while the convolution works, which gives a binary point for each channel."""
    fracs = ",".join(str(channel % 5 - 1) for channel in range(filters))
    y = conv(draft, filters=filters, weight=f"s4.[{fracs}]", **SAME)
    return draft.add("z", Concat(), y, draft.x)


def _concat_three(draft: Draft) -> str:
    pair = draft.add("pair", Concat(), draft.x, conv(draft, filters=6, **SAME))
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
# Select


def _select(draft: Draft, channels: tuple[int, ...], behind_conv: bool = False) -> str:
    x = conv(draft, filters=3, weight="s4.[2,-1,4]") if behind_conv else draft.x
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
    x = conv(draft, filters=3, weight="s4.[2,-1,4]") if behind_conv else draft.x
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
    x = conv(draft, filters=6, weight="s4.[2,-1,4,2,-1,4]") if behind_conv else draft.x
    return draft.add("z", DepthToSpace(block), x)


case("DepthToSpace", "doubled", partial(_depth, block=(2, 2)), "s4.1", (3, 4, 8))
case("DepthToSpace", "rows", partial(_depth, block=(3, 1)), "u5.0")
case("DepthToSpace", "columns", partial(_depth, block=(1, 3)))
case("DepthToSpace", "by_one", partial(_depth, block=(1, 1)))
case("DepthToSpace", "one_pixel", partial(_depth, block=(2, 3)), "s1.0", (1, 1, 12))
case("DepthToSpace", "per_channel", partial(_depth, block=(1, 2), behind_conv=True))


def _slice(draft: Draft, rows: tuple[int, int, int], columns: tuple[int, int, int], behind_conv: bool = False) -> str:
    x = conv(draft, filters=3, weight="s4.[2,-1,4]", **SAME) if behind_conv else draft.x
    return draft.add("z", Slice(rows, columns), x)


case("Slice", "crop", partial(_slice, rows=(1, 4, 1), columns=(1, 3, 1)))
case("Slice", "strided", partial(_slice, rows=(0, 5, 2), columns=(1, 4, 2)), "u5.0")
case("Slice", "whole", partial(_slice, rows=(0, 5, 1), columns=(0, 4, 1)))
case("Slice", "last_pixel", partial(_slice, rows=(4, 5, 1), columns=(3, 4, 1)))
case("Slice", "first_pixel", partial(_slice, rows=(0, 2, 3), columns=(0, 1, 1)))
case("Slice", "many_channels", partial(_slice, rows=(0, 4, 3), columns=(1, 6, 2)), "s5.0", (4, 6, 13))
case("Slice", "one_row", partial(_slice, rows=(0, 1, 1), columns=(2, 9, 3)), "s1.0", (1, 9, 2))
case("Slice", "per_channel", partial(_slice, rows=(1, 5, 2), columns=(0, 3, 1), behind_conv=True))
