"""Integer codes: encoding real values, decoding them, and moving codes from one format to another."""

import numpy as np

from qfx.arguments import require_kind
from qfx.errors import FormatError, QfxError
from qfx.fixed.format import Fixed, Overflow, Rounding

_BEYOND = np.int64(1 << 62)  # stands for "out of every range": no format is that wide


def encode(
    values: np.ndarray, fixed: Fixed, rounding: Rounding = Rounding.RND, overflow: Overflow = Overflow.SAT
) -> np.ndarray:
    """Return the codes of real ``values``: ``overflow(round(values * 2**frac))``.

    Args:
        values: real numbers, any shape; the last axis is the channel axis if ``fixed`` is per channel.

    Returns:
        int64 codes of the same shape.

    Raises:
        FormatError: a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise FormatError("values to encode must be finite, but NaN or infinity is among them")
    rounded = _round_real(_scale(values, _frac_axis(fixed, values.shape)), Rounding(rounding))
    if Overflow(overflow) is Overflow.WRAP:
        codes = np.fmod(rounded, 2.0**fixed.width).astype(np.int64)
    else:
        codes = np.clip(rounded, -float(_BEYOND), float(_BEYOND)).astype(np.int64)
    return overflow_codes(codes, fixed, overflow)


def decode(codes: np.ndarray, fixed: Fixed) -> np.ndarray:
    """Return the real values of ``codes``: float64, ``codes * 2**-frac``; exact for codes below 2**53."""
    codes = np.asarray(codes)
    return np.ldexp(codes.astype(np.float64), -_frac_axis(fixed, codes.shape))


def requantize(
    codes: np.ndarray,
    source: Fixed,
    target: Fixed,
    rounding: Rounding = Rounding.RND,
    overflow: Overflow = Overflow.SAT,
) -> np.ndarray:
    """Move ``codes`` from ``source`` to ``target``: ``overflow(round(codes * 2**(f_target - f_source)))``.

    The inner value has unlimited precision: rounding comes first, overflow second, and left shifts are exact.

    Args:
        codes: integers below 2**62 in magnitude, channels last if a format is per channel.

    Returns:
        int64 codes of the same shape.
    """
    codes = np.asarray(codes, dtype=np.int64)
    shift = _frac_axis(target, codes.shape) - _frac_axis(source, codes.shape)
    if shift.min(initial=0) >= 0:
        shifted = _shift_left(codes, shift, Overflow(overflow))
    elif shift.max(initial=-1) < 0:
        shifted = _shift_right(codes, -shift, Rounding(rounding))
    else:
        left = _shift_left(codes, np.maximum(shift, 0), Overflow(overflow))
        shifted = np.where(shift >= 0, left, _shift_right(codes, np.maximum(-shift, 1), Rounding(rounding)))
    return overflow_codes(shifted, target, overflow)


def overflow_codes(codes: np.ndarray, fixed: Fixed, overflow: Overflow) -> np.ndarray:
    """Bring integers into the range of ``fixed`` by an overflow mode; the integers are on its grid already."""
    codes = np.asarray(codes, dtype=np.int64)
    low, high = fixed.min_code, fixed.max_code
    match Overflow(overflow):
        case Overflow.SAT:
            return np.clip(codes, low, high)
        case Overflow.SAT_SYM:  # ap_fixed: one bit has no symmetric range, so -1 stays
            return np.clip(codes, low + 1 if fixed.signed and fixed.width > 1 else low, high)
        case Overflow.SAT_ZERO:
            return np.where((codes < low) | (codes > high), 0, codes)
        case Overflow.WRAP:
            span = np.int64(1 << fixed.width)
            low_bits = codes & (span - 1)
            return np.where(low_bits > high, low_bits - span, low_bits)


def require_codes(error: type[QfxError], name: str, codes: np.ndarray, shape: tuple[int, ...], fixed: Fixed) -> None:
    """Raise ``error`` unless ``codes`` are codes of ``fixed``, of at least one frame: (N, *shape)."""
    require_kind(error, name, codes, np.ndarray, "a numpy array of integers")
    if codes.dtype.kind not in "iu":
        raise error(f"{name} must be integers, not {codes.dtype}: Graph.encode makes them from real values")
    if codes.shape[1:] != shape or codes.ndim != len(shape) + 1 or not len(codes):
        raise error(f"{name} must have shape (N, {', '.join(map(str, shape))}), N at least 1, not {codes.shape}")
    if codes.min() < fixed.min_code or codes.max() > fixed.max_code:
        raise error(
            f"{name} must lie in {fixed.min_code}..{fixed.max_code} ({fixed}), not {codes.min()}..{codes.max()}"
        )


def _frac_axis(fixed: Fixed, shape: tuple[int, ...]) -> np.ndarray:
    """The binary point, shaped to broadcast against an array of ``shape``."""
    if not fixed.per_channel:
        return np.asarray(fixed.frac, dtype=np.int64)
    if not shape:
        raise FormatError(f"a per-channel format must meet an array with a channel axis, not a scalar, in {fixed}")
    return fixed.fracs(shape[-1])


def _scale(values: np.ndarray, frac: np.ndarray) -> np.ndarray:
    """``values * 2**frac`` that neither overflows to infinity nor underflows to zero; no result changes by that."""
    scaled = np.ldexp(np.clip(values, -(2.0**900), 2.0**900), frac)
    return np.where((scaled == 0) & (values != 0), np.copysign(5e-324, values), scaled)


def _shift_left(codes: np.ndarray, shift: np.ndarray, overflow: Overflow) -> np.ndarray:
    """``codes << shift``; what leaves int64 keeps its low bits for WRAP, and its sign for the other modes."""
    if not shift.any():
        return codes
    kept = np.where(shift < 63, codes << np.minimum(shift, 62), 0)
    if overflow is Overflow.WRAP:
        return kept
    lost = np.abs(codes) >= (_BEYOND >> np.minimum(shift, 62))
    return np.where(lost & (codes != 0), np.sign(codes) * _BEYOND, kept)


def _shift_right(codes: np.ndarray, shift: np.ndarray, rounding: Rounding) -> np.ndarray:
    """``codes / 2**shift`` rounded, for shifts of at least 1: a number is added, then the floor taken."""
    shift = np.minimum(shift, 63)  # codes are below 2**62: from there on they count as less than one half
    half = np.int64(1) << (shift - 1)
    match rounding:
        case Rounding.TRN:
            return codes >> shift
        case Rounding.TRN_ZERO:
            return (codes + np.where(codes < 0, half + (half - 1), 0)) >> shift
        case Rounding.RND:
            return (codes + half) >> shift
        case Rounding.RND_ZERO:
            return (codes + (half - 1) + (codes < 0)) >> shift
        case Rounding.RND_INF:
            return (codes + half - (codes < 0)) >> shift
        case Rounding.RND_MIN_INF:
            return (codes + (half - 1)) >> shift
        case Rounding.RND_CONV:
            return (codes + (half - 1) + ((codes >> shift) & 1)) >> shift


def _round_real(scaled: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Round float64 numbers to integers, exactly."""
    floor, ceiling = np.floor(scaled), np.ceil(scaled)
    side = np.sign((scaled - floor) - (ceiling - scaled))  # the smaller distance has no rounding error
    above, tie = side > 0, (side == 0) & (floor != ceiling)
    match rounding:
        case Rounding.TRN:
            return floor
        case Rounding.TRN_ZERO:
            return np.trunc(scaled)
        case Rounding.RND:
            up = above | tie
        case Rounding.RND_ZERO:
            up = above | (tie & (scaled < 0))
        case Rounding.RND_INF:
            up = above | (tie & (scaled > 0))
        case Rounding.RND_MIN_INF:
            up = above
        case Rounding.RND_CONV:
            up = above | (tie & (np.fmod(floor, 2.0) != 0))
    return floor + up
