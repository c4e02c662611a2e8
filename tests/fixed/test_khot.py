"""K-hot constants against brute force over all digit strings."""

from itertools import combinations, product

import numpy as np
import pytest

from qfx.errors import FormatError
from qfx.fixed import count_digits, digits_of, nearest_khot


def brute_force(width: int, max_digits: int, signed_digits: bool) -> np.ndarray:
    limit, found = (1 << (width - 1)) - 1, {0}
    for used in range(1, max_digits + 1):
        for positions in combinations(range(width - 1), used):
            for signs in product((1, -1) if signed_digits else (1,), repeat=used):
                value = sum(sign << position for sign, position in zip(signs, positions, strict=True))
                found |= {value} if 0 < value <= limit else set()
    return np.array(sorted(found))


@pytest.mark.parametrize("signed_digits", [False, True])
@pytest.mark.parametrize("max_digits", [1, 2, 3])
@pytest.mark.parametrize("width", [2, 3, 4, 6, 8])
def test_nearest_value_is_the_brute_force_one_and_ties_go_to_the_smaller_magnitude(
    width: int, max_digits: int, signed_digits: bool
) -> None:
    legal = brute_force(width, max_digits, signed_digits)
    values = np.arange(-(2 << width), 2 << width) / 8
    distance = np.abs(np.abs(values)[:, None] - legal)
    expected = legal[distance.argmin(axis=1)]  # argmin takes the first, the smaller, of equals
    np.testing.assert_array_equal(np.abs(nearest_khot(values, width, max_digits, signed_digits)), expected)
    assert count_digits(nearest_khot(values, width, max_digits, signed_digits), width, signed_digits) <= max_digits


@pytest.mark.parametrize("signed_digits", [False, True])
def test_digits_sum_to_the_code_inside_the_word(signed_digits: bool) -> None:
    for code in range(-127, 128):
        digits = digits_of(code, 8, signed_digits)
        assert sum(sign * 2**position for sign, position in digits) == code
        assert all(position <= 6 for _, position in digits)
        assert len({position for _, position in digits}) == len(digits)


def test_signed_digits_are_as_few_as_brute_force_finds() -> None:
    for max_digits in (1, 2, 3):
        reachable = set(brute_force(8, max_digits, True).tolist())
        counted = {code for code in range(128) if len(digits_of(code, 8, True)) <= max_digits}
        assert counted == reachable


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(FormatError, match="values to encode must be finite"):
        nearest_khot(np.array([np.nan]), 8, 2, False)


def test_a_code_outside_the_word_is_refused() -> None:
    with pytest.raises(FormatError, match=r"a K-hot code of width 4 must lie within \+-7, not 8"):
        digits_of(8, 4, False)
