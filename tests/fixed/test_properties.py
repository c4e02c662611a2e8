"""Properties that hold for every format up to the widest, where no table of examples reaches."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.fixed import (
    MAX_FRAC,
    MAX_WIDTH,
    Fixed,
    Overflow,
    Rounding,
    decode,
    encode,
    fixed_for_range,
    overflow_codes,
    requantize,
)
from tests.graph import loops

FORMATS = st.builds(Fixed, st.integers(0, MAX_WIDTH), st.integers(-MAX_FRAC, MAX_FRAC), st.booleans())
NARROW = st.builds(Fixed, st.integers(0, 53), st.integers(-MAX_FRAC, MAX_FRAC), st.booleans())
MODES = st.tuples(st.sampled_from(Rounding), st.sampled_from(Overflow))
PARTS = st.lists(st.integers(0, 2**64), min_size=1, max_size=6)


def codes_of(fixed: Fixed, parts: list[int]) -> np.ndarray:
    """Codes of a format: both ends, those beside zero, and some between."""
    low, high = fixed.min_code, fixed.max_code
    between = [low + part % (high - low + 1) for part in parts]
    return np.array([low, high, *(code for code in (-1, 0, 1) if low <= code <= high), *between], dtype=np.int64)


@settings(max_examples=400, deadline=None)
@given(FORMATS, FORMATS, MODES, PARTS)
def test_requantize_rounds_the_exact_value_once(
    source: Fixed, target: Fixed, modes: tuple[Rounding, Overflow], parts: list[int]
) -> None:
    codes = codes_of(source, parts)
    scale = Fraction(2) ** (target.scalar_frac - source.scalar_frac)
    expected = [loops.overflowed(loops.rounded(int(code) * scale, modes[0]), target, modes[1]) for code in codes]
    np.testing.assert_array_equal(requantize(codes, source, target, *modes), np.array(expected, dtype=np.int64))


@settings(max_examples=200, deadline=None)
@given(NARROW, MODES, PARTS)
def test_a_code_survives_being_decoded_and_encoded(
    fixed: Fixed, modes: tuple[Rounding, Overflow], parts: list[int]
) -> None:
    codes = codes_of(fixed, parts)
    expected = overflow_codes(codes, fixed, modes[1])  # SAT_SYM moves the lowest code
    np.testing.assert_array_equal(encode(decode(codes, fixed), fixed, *modes), expected)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(Fixed, st.integers(0, 53), st.integers(-20, 20), st.booleans()),
    MODES,
)
def test_encode_rounds_the_exact_value_of_any_float(
    value: float, fixed: Fixed, modes: tuple[Rounding, Overflow]
) -> None:
    exact = Fraction(value) * Fraction(2) ** fixed.scalar_frac
    expected = loops.overflowed(loops.rounded(exact, modes[0]), fixed, modes[1])
    assert encode(np.array([value]), fixed, *modes)[0] == expected


@given(st.integers(-(2**61), 2**61), st.integers(0, 2**61))
def test_the_format_of_a_range_holds_it_and_one_bit_less_does_not(low: int, size: int) -> None:
    high = min(low + size, 2**61 - 1)
    low = min(low, high)
    fixed = fixed_for_range(low, high, 0)
    assert fixed.min_code <= low and high <= fixed.max_code
    if fixed.width:
        smaller = Fixed(fixed.width - 1, 0, fixed.signed)
        assert low < smaller.min_code or smaller.max_code < high
