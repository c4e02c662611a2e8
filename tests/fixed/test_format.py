"""The format itself: ranges, printed form, refusals."""

import pytest

from qfx.errors import FormatError
from qfx.fixed import Fixed, fixed_for_range


@pytest.mark.parametrize(
    ("text", "low", "high"), [("s8.3", -128, 127), ("u8.0", 0, 255), ("s0.5", 0, 0), ("u0.0", 0, 0), ("s1.-2", -1, 0)]
)
def test_printed_form_and_range_agree(text: str, low: int, high: int) -> None:
    fixed = Fixed.parse(text)
    assert str(fixed) == text
    assert (fixed.min_code, fixed.max_code) == (low, high)


def test_per_channel_format_prints_every_binary_point() -> None:
    assert str(Fixed.parse("s8.[3,-4]")) == "s8.[3,-4]"
    assert Fixed(8, (3, -4)).fracs(2).tolist() == [3, -4]


def test_ap_type_counts_the_sign_in_both_widths() -> None:
    assert Fixed(8, 3).ap_type == "ap_fixed<8,5>"
    assert Fixed(5, 0, signed=False).ap_type == "ap_ufixed<5,5>"


@pytest.mark.parametrize(
    ("width", "frac", "message"),
    [
        (-1, 0, r"Fixed width must lie in 0\.\.62, not -1"),
        (63, 0, r"Fixed width must lie in 0\.\.62, not 63"),
        (8, 65, r"Fixed frac must lie in -64\.\.64, not 65"),
        (8.0, 0, r"Fixed width must be an integer, not 8\.0"),
        (8, (), r"Fixed frac must name at least one channel, not \(\)"),
    ],
)
def test_an_illegal_format_is_refused_in_a_sentence(width: int, frac: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Fixed(width, frac)


def test_an_unreadable_format_is_refused() -> None:
    with pytest.raises(FormatError, match=r"a format must look like 's8\.3' or 'u5\.0' \(width\.frac\), not '8\.3'"):
        Fixed.parse("8.3")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 0, "u0.1"), (0, 255, "u8.1"), (-1, 0, "s1.1"), (-4, -4, "s3.1"), (-128, 127, "s8.1"), (-129, 0, "s9.1")],
)
def test_the_smallest_format_holds_a_range(low: int, high: int, text: str) -> None:
    assert str(fixed_for_range(low, high, 1)) == text


def test_a_range_beyond_the_widest_format_is_refused() -> None:
    with pytest.raises(FormatError, match="need 63 bits, but at most 62 are allowed"):
        fixed_for_range(0, 1 << 62, 0)
