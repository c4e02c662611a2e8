"""Codes against exact rational arithmetic, written a second way."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest

from qfx.errors import FormatError
from qfx.fixed import Fixed, Overflow, Rounding, decode, encode, requantize


def round_exactly(value: Fraction, rounding: Rounding) -> int:
    half, down, up = Fraction(1, 2), floor(value), ceil(value)
    nearest = {
        Rounding.TRN: down,
        Rounding.TRN_ZERO: up if value < 0 else down,
        Rounding.RND: floor(value + half),
        Rounding.RND_MIN_INF: ceil(value - half),
        Rounding.RND_INF: ceil(value - half) if value < 0 else floor(value + half),
        Rounding.RND_ZERO: floor(value + half) if value < 0 else ceil(value - half),
        Rounding.RND_CONV: round(value),
    }
    return nearest[rounding]


def bring_in_range(code: int, fixed: Fixed, overflow: Overflow) -> int:
    low, high = fixed.min_code, fixed.max_code
    if overflow is Overflow.WRAP:
        return (code - low) % (1 << fixed.width) + low
    if overflow is Overflow.SAT_SYM and fixed.signed and fixed.width > 1:
        low = -high
    if low <= code <= high:
        return code
    return 0 if overflow is Overflow.SAT_ZERO else (low if code < low else high)


@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("rounding", Rounding)
def test_requantize_is_round_then_overflow_for_every_shift(rounding: Rounding, overflow: Overflow) -> None:
    source = Fixed(7, 3)
    codes = np.arange(source.min_code, source.max_code + 1)
    for target in (Fixed(4, 1), Fixed(4, 1, False), Fixed(1, 0), Fixed(0, 2), Fixed(9, 6), Fixed(3, -4), Fixed(5, 60)):
        shift = Fraction(2) ** (target.scalar_frac - 3)
        expected = [bring_in_range(round_exactly(int(c) * shift, rounding), target, overflow) for c in codes]
        np.testing.assert_array_equal(requantize(codes, source, target, rounding, overflow), expected)


@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("rounding", Rounding)
def test_encode_is_exact_at_ties_and_beyond_the_range(rounding: Rounding, overflow: Overflow) -> None:
    tiny = np.array([5e-324, -5e-324, np.nextafter(0.5, 0), -np.nextafter(0.5, 0), np.nextafter(0.5, 1), 1e300, -1e300])
    values = np.concatenate([np.arange(-80, 80) / 8, tiny])
    for fixed in (Fixed(4, 0), Fixed(4, 2, False), Fixed(6, -1)):
        scale = Fraction(2) ** fixed.scalar_frac
        expected = [bring_in_range(round_exactly(Fraction(v) * scale, rounding), fixed, overflow) for v in values]
        np.testing.assert_array_equal(encode(values, fixed, rounding, overflow), expected)


def test_per_channel_binary_points_belong_to_the_last_axis() -> None:
    source = Fixed(8, (0, 2, 4))
    codes = np.array([[16, 16, 16], [-16, -16, -16]])
    assert decode(codes, source).tolist() == [[16, 4, 1], [-16, -4, -1]]
    assert requantize(codes, source, Fixed(8, 1)).tolist() == [[32, 8, 2], [-32, -8, -2]]


def test_extreme_shifts_stay_exact() -> None:
    codes = np.array([-(2**62) + 1, -1, 0, 1, 2**62 - 1])
    assert requantize(codes, Fixed(62, 64), Fixed(8, -64), Rounding.TRN).tolist() == [-1, -1, 0, 0, 0]
    assert requantize(codes, Fixed(62, -64), Fixed(8, 64), overflow=Overflow.SAT).tolist() == [-128, -128, 0, 127, 127]


def test_the_oracle_sees_a_wrong_rounding_mode() -> None:
    codes = np.arange(-64, 64)
    right = requantize(codes, Fixed(7, 3), Fixed(4, 0), Rounding.RND)
    assert (right != requantize(codes, Fixed(7, 3), Fixed(4, 0), Rounding.RND_CONV)).any()


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(FormatError, match="values to encode must be finite"):
        encode(np.array([np.inf]), Fixed(8, 0))
