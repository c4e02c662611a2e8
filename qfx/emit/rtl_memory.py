"""Words of the .mem files that the RTL parts read: how constants are cut into folds, lanes and fields."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qfx.errors import EmitError
from qfx.fixed.khot import digits_of


@dataclass(frozen=True, slots=True)
class CodeField:
    """A constant stored as its code: ``width`` bits, two's complement if negative."""

    width: int

    @property
    def bits(self) -> int:
        """Bits of one field."""
        return self.width

    def encode(self, code: int) -> int:
        """Return the field of ``code``."""
        return code & ((1 << self.width) - 1)


@dataclass(frozen=True, slots=True)
class DigitField:
    """A K-hot constant stored as its digits ``{enable, negative, shift}``, first digit low: what qfx_mul_khot reads."""

    width: int  # of the code
    digits: int
    signed_digits: bool

    @property
    def shift_width(self) -> int:
        """Bits of a digit's shift: positions 0 .. width-2 (parameter ShiftWidth)."""
        return max(1, (max(self.width - 2, 1)).bit_length())

    @property
    def bits(self) -> int:
        """Bits of one field."""
        return self.digits * (self.shift_width + 2)

    def encode(self, code: int) -> int:
        """Return the field of ``code``, whose canonical form must fit in ``digits`` digits."""
        found = digits_of(code, self.width, self.signed_digits)
        if len(found) > self.digits:
            raise EmitError(f"a constant must have at most {self.digits} K-hot digits, not {len(found)} as {code} has")
        field, size = 0, self.shift_width + 2
        for index, (sign, position) in enumerate(found):
            digit = 1 << (self.shift_width + 1) | (sign < 0) << self.shift_width | position
            field |= digit << (index * size)
        return field


Field = CodeField | DigitField


def conv_words(
    codes: np.ndarray, *, groups: int, ci_lanes: int, co_lanes: int, tap_lanes: int, field: Field
) -> list[int]:
    """Return the weight words of qfx_conv for ``codes`` of shape (KH, KW, CI/groups, CO).

    Address ``((cofold*KyFolds + ky)*KxFolds + kx)*CiFolds + cifold``; in a word the ci lane is fastest, then the tap
    lane, then the co lane. Idle lanes hold 0.
    """
    kh, kw, ci, co = codes.shape
    if groups > 1 and (ci % ci_lanes or (co // groups) % co_lanes):
        raise EmitError(
            f"lanes must divide the channels of a group ({ci} and {co // groups}), not be {ci_lanes} and {co_lanes}"
        )
    tap_h, tap_w = _tap_lanes(kh, kw, tap_lanes)
    padded = _pad(_pad(codes, 2, ci_lanes), 3, co_lanes)
    ci_folds, co_folds = padded.shape[2] // ci_lanes, padded.shape[3] // co_lanes
    cut = padded.reshape(kh // tap_h, tap_h, kw // tap_w, tap_w, ci_folds, ci_lanes, co_folds, co_lanes)
    return _pack(cut.transpose(6, 0, 2, 4, 7, 1, 3, 5), fields=co_lanes * tap_lanes * ci_lanes, field=field)


def depthwise_words(codes: np.ndarray, *, lanes: int, tap_lanes: int, field: Field) -> list[int]:
    """Return the weight words of qfx_depthwise (and qfx_deform, ``tap_lanes`` 1) for ``codes`` of shape (KH, KW, C).

    Address ``(fold*KyFolds + ky)*KxFolds + kx``; in a word the tap lane is fastest, then the channel lane.
    """
    kh, kw, _ = codes.shape
    tap_h, tap_w = _tap_lanes(kh, kw, tap_lanes)
    padded = _pad(codes, 2, lanes)
    cut = padded.reshape(kh // tap_h, tap_h, kw // tap_w, tap_w, padded.shape[2] // lanes, lanes)
    return _pack(cut.transpose(4, 0, 2, 5, 1, 3), fields=lanes * tap_lanes, field=field)


def channel_words(codes: np.ndarray, *, lanes: int, field: Field) -> list[int]:
    """Return one word a channel group for ``codes`` of shape (C,): biases, scales, shifts; lane 0 low."""
    return _pack(_pad(codes, 0, lanes), fields=lanes, field=field)


def shift_words(shifts: Sequence[int], *, lanes: int) -> list[int]:
    """Return the words of qfx_requant's ShiftFile for the shift of each channel; idle lanes hold 0."""
    low = min(shifts)
    codes = np.asarray(shifts, dtype=np.int64) - low
    return channel_words(codes, lanes=lanes, field=CodeField(shift_field_width(shifts)))


def table_words(codes: np.ndarray, *, signed: bool, field: Field) -> list[int]:
    """Return the words of qfx_lookup's TableFile for a table in the order of its input's values.

    The address is the input's code as an unsigned number, which for signed ones begins with the upper half.
    """
    return _pack(np.roll(codes, len(codes) // 2) if signed else codes, fields=1, field=field)


def shift_field_width(shifts: Sequence[int]) -> int:
    """Return qfx_requant's ShiftWidth: the bits of the difference between the largest and the smallest shift."""
    return max(1, (max(shifts) - min(shifts)).bit_length())


def mem_text(words: Sequence[int], bits: int) -> str:
    """Return the text of a .mem file: one hexadecimal word of ``bits`` bits a line."""
    digits = (bits + 3) // 4
    return "".join(f"{word:0{digits}x}\n" for word in words)


def _tap_lanes(kh: int, kw: int, tap_lanes: int) -> tuple[int, int]:
    """Parallel taps over the kernel's rows and columns."""
    if tap_lanes not in (1, kw, kh * kw):
        raise EmitError(f"tap lanes of a {kh}x{kw} kernel must be 1, {kw} or {kh * kw}, not {tap_lanes}")
    rows = kh if tap_lanes == kh * kw else 1
    return rows, tap_lanes // rows


def _pad(codes: np.ndarray, axis: int, lanes: int) -> np.ndarray:
    """Fill ``axis`` with zeros up to a multiple of ``lanes``."""
    widths = [(0, 0)] * codes.ndim
    widths[axis] = (0, -codes.shape[axis] % lanes)
    return np.pad(codes, widths)


def _pack(codes: np.ndarray, *, fields: int, field: Field) -> list[int]:
    """Pack each run of ``fields`` codes into a word, the first in the low bits."""
    unique, place = np.unique(codes, return_inverse=True)
    encoded = [format(field.encode(int(code)), f"0{field.bits}b") for code in unique]
    rows = place.reshape(-1, fields)[:, ::-1]
    return [int("".join(encoded[index] for index in row), 2) for row in rows]
