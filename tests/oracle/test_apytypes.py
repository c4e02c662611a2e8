"""qfx.fixed against apytypes, which somebody else wrote: signed formats, all rounding modes, WRAP and SAT."""

from itertools import product

import apytypes
import numpy as np
import pytest

from qfx.fixed import Fixed, Overflow, Rounding, requantize

QUANTIZATION = {
    Rounding.TRN: apytypes.QuantizationMode.TO_NEG,
    Rounding.TRN_ZERO: apytypes.QuantizationMode.TO_ZERO,
    Rounding.RND: apytypes.QuantizationMode.TIES_POS,
    Rounding.RND_ZERO: apytypes.QuantizationMode.TIES_ZERO,
    Rounding.RND_INF: apytypes.QuantizationMode.TIES_AWAY,
    Rounding.RND_MIN_INF: apytypes.QuantizationMode.TIES_NEG,
    Rounding.RND_CONV: apytypes.QuantizationMode.TIES_EVEN,
}
OVERFLOW = {Overflow.WRAP: apytypes.OverflowMode.WRAP, Overflow.SAT: apytypes.OverflowMode.SAT}


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("overflow", OVERFLOW)
def test_requantize_is_what_apytypes_casts(rounding: Rounding, overflow: Overflow) -> None:
    """Every 7-bit code to every format of 1..9 bits, shifts from 5 to the left to 9 to the right."""
    codes = np.arange(-64, 64)
    for source_frac, width, shift in product((-4, 3, 12), (1, 2, 5, 9), range(-5, 10)):
        source, target = Fixed(7, source_frac), Fixed(width, source_frac - shift)
        assert np.array_equal(
            requantize(codes, source, target, rounding, overflow), cast(codes, source, target, rounding, overflow)
        ), f"{source} to {target}"


def test_a_planted_rounding_mode_shows() -> None:
    """Ties differ between RND and RND_CONV, so the comparison can fail."""
    codes, source, target = np.arange(-64, 64), Fixed(7, 3), Fixed(7, 1)
    ours = requantize(codes, source, target, Rounding.RND, Overflow.SAT)
    assert not np.array_equal(ours, cast(codes, source, target, Rounding.RND_CONV, Overflow.SAT))


def cast(codes: np.ndarray, source: Fixed, target: Fixed, rounding: Rounding, overflow: Overflow) -> np.ndarray:
    """Return the target codes that apytypes computes."""
    bits = np.where(codes < 0, codes + (1 << source.width), codes)
    values = apytypes.APyFixedArray(bits.tolist(), bits=source.width, int_bits=source.width - source.scalar_frac)
    result = values.cast(
        bits=target.width,
        int_bits=target.width - target.scalar_frac,
        quantization=QUANTIZATION[rounding],
        overflow=OVERFLOW[overflow],
    )
    bits = np.array(result.to_bits(), dtype=np.int64)
    return np.where(bits > target.max_code, bits - (1 << target.width), bits)
