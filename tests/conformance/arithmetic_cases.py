"""The cases of the operations that add or multiply tensors, or reduce channels, for the list in cases.py."""

from functools import partial

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph.ops import (
    Add,
    Affine,
    ChannelMax,
    ChannelSum,
    Multiply,
    Requantize,
    Select,
    SumPool,
    Upsample,
)
from tests.conformance.cases import SAME, Draft, case, convolved

# ---------------------------------------------------------------------------------------------------------------------
# Add


def _add(draft: Draft, a: str, b: str) -> str:
    first = draft.add("a", Requantize(Fixed.parse(a), Rounding.RND_CONV), draft.x)
    second = draft.add("b", Requantize(Fixed.parse(b), Rounding.TRN, Overflow.WRAP), draft.x)
    return draft.add("y", Add(), first, second)


def _add_shortcut(draft: Draft) -> str:
    """A residual block: the input waits while the convolution works."""
    y = draft.add("r", Requantize(Fixed(5, 2)), convolved(draft, filters=3, **SAME))
    return draft.add("z", Add(), y, draft.x)


case("Add", "equal_formats", partial(_add, a="s4.1", b="s4.1"), "s6.2")
case("Add", "finer_first", partial(_add, a="s5.3", b="s4.-1"), "s6.2")
case("Add", "finer_second", partial(_add, a="u3.0", b="s6.4"), "s6.2")
case("Add", "of_width_0", partial(_add, a="s0.4", b="s5.2"), "s6.2")
case("Add", "itself", lambda draft: draft.add("y", Add(), draft.x, draft.x))
case("Add", "vectors", partial(_add, a="s5.3", b="u4.2"), "s6.2", (6,))
case("Add", "shortcut", _add_shortcut)


# ---------------------------------------------------------------------------------------------------------------------
# Multiply


def _multiply(draft: Draft, a: str, b: str) -> str:
    first = draft.add("a", Requantize(Fixed.parse(a), Rounding.RND_CONV), draft.x)
    second = draft.add("b", Requantize(Fixed.parse(b), Rounding.TRN, Overflow.WRAP), draft.x)
    return draft.add("y", Multiply(), first, second)


def _gate(draft: Draft) -> str:
    """The input waits while a convolution works, whose exact result has a binary point for each channel."""
    return draft.add("z", Multiply(), draft.x, convolved(draft, filters=3, weight="s4.[2,-1,4]", **SAME))


def _excite(draft: Draft) -> str:
    """Squeeze and excitation: each channel times what its whole image has become."""
    mean = draft.add("sum", SumPool((5, 4), (1, 1)), draft.x)
    gate = draft.add("gate", Requantize(Fixed(4, 2, signed=False)), mean)
    return draft.add("z", Multiply(), draft.x, draft.add("everywhere", Upsample((5, 4)), gate))


case("Multiply", "equal_formats", partial(_multiply, a="s4.1", b="s4.1"), "s6.2")
case("Multiply", "wider_second", partial(_multiply, a="s3.-1", b="s6.4"), "s6.2")
case("Multiply", "unsigned_first", partial(_multiply, a="u5.1", b="s3.0"), "s6.2")
case("Multiply", "unsigned_both", partial(_multiply, a="u2.1", b="u5.1"), "s6.2")
case("Multiply", "of_one_bit", partial(_multiply, a="s1.0", b="s1.2"), "s6.2")
case("Multiply", "of_width_0", partial(_multiply, a="s0.4", b="s5.2"), "s6.2")
case("Multiply", "square", lambda draft: draft.add("y", Multiply(), draft.x, draft.x))
case("Multiply", "vectors", partial(_multiply, a="s5.3", b="u4.2"), "s6.2", (6,))
case("Multiply", "many_channels", partial(_multiply, a="s5.3", b="u4.2"), "s6.2", (3, 3, 13))
case("Multiply", "wide", partial(_multiply, a="s18.9", b="s14.2"), "s18.9", (7, 6, 2))
case("Multiply", "gate", _gate)
case("Multiply", "excite", _excite)


# ---------------------------------------------------------------------------------------------------------------------
# ChannelMax, ChannelSum


def _reduced(draft: Draft, op: type) -> str:
    return draft.add("y", op(), draft.x)


def _softmax(draft: Draft) -> str:
    """How far each channel lies below the largest: the input waits until all of a pixel is known."""
    top = draft.add("everywhere", Select((0,) * 3), draft.add("top", ChannelMax(), draft.x))
    draft.builder.constant("minus", -np.ones(3, dtype=np.int64), Fixed(2, 0), max_digits=1)
    draft.builder.constant("none", np.zeros(3, dtype=np.int64), Fixed(1, draft.builder.type(draft.x).fixed.scalar_frac))
    negative = draft.add("negative", Affine(), draft.x, "minus", "none")
    return draft.add("z", ChannelSum(), draft.add("below", Add(), negative, top))


for _op in (ChannelMax, ChannelSum):
    case(_op.__name__, "image", partial(_reduced, op=_op))
    case(_op.__name__, "unsigned", partial(_reduced, op=_op), "u5.0")
    case(_op.__name__, "vector", partial(_reduced, op=_op), "s5.2", (6,))
    case(_op.__name__, "of_one", partial(_reduced, op=_op), "s1.0", (4, 8, 1))
    case(_op.__name__, "many_channels", partial(_reduced, op=_op), "s6.1", (3, 3, 13))
case("ChannelSum", "of_what_is_below_the_largest", _softmax)
