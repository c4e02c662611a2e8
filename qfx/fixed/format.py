"""Fixed-point formats: what a code means, its range, and how formats are written."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from qfx.errors import FormatError

MAX_FRAC = 64  # |frac| of any format
MAX_WIDTH = 62  # codes and static bounds stay inside int64 with a bit to spare
TABLE_WIDTH = 12  # bits of the widest input of a table
WIDEST = 32  # bits of a format that a network states or learns
FRAC_RANGE = (-21, 21)  # where its frac is held, so that a product of three factors stays within |frac| <= 64


class Rounding(StrEnum):
    """How a value between two codes is rounded; the meaning is that of ``ap_fixed``'s mode of that name."""

    TRN = "TRN"  # towards minus infinity
    TRN_ZERO = "TRN_ZERO"  # towards zero
    RND = "RND"  # to nearest, ties towards plus infinity
    RND_ZERO = "RND_ZERO"  # to nearest, ties towards zero
    RND_INF = "RND_INF"  # to nearest, ties away from zero
    RND_MIN_INF = "RND_MIN_INF"  # to nearest, ties towards minus infinity
    RND_CONV = "RND_CONV"  # to nearest, ties to even


class Overflow(StrEnum):
    """What becomes of a code outside the range; the meaning is that of ``ap_fixed``'s mode of that name."""

    WRAP = "WRAP"  # keep the low bits
    SAT = "SAT"  # the nearest end of the range
    SAT_ZERO = "SAT_ZERO"  # zero
    SAT_SYM = "SAT_SYM"  # like SAT, in the range -max..max if signed


@dataclass(frozen=True, slots=True)
class Fixed:
    """Two's-complement fixed point: an integer code stands for ``code * 2**-frac``.

    ``frac`` is one number, or a tuple with one number per channel (the last axis of the tensor). Width and sign hold
    for the whole tensor. Width 0 is legal and has the single code 0.
    """

    width: int  # bits, sign included
    frac: int | tuple[int, ...]  # may be negative or exceed width
    signed: bool = True

    def __post_init__(self) -> None:
        _require_int("width", self.width)
        if not 0 <= self.width <= MAX_WIDTH:
            raise FormatError(f"Fixed width must lie in 0..{MAX_WIDTH}, not {self.width}")
        if isinstance(self.frac, tuple) and not self.frac:
            raise FormatError("Fixed frac must name at least one channel, not ()")
        for frac in self.frac if isinstance(self.frac, tuple) else (self.frac,):
            _require_int("frac", frac)
            if abs(frac) > MAX_FRAC:
                raise FormatError(f"Fixed frac must lie in -{MAX_FRAC}..{MAX_FRAC}, not {frac}")
        if not isinstance(self.signed, bool):
            raise FormatError(f"Fixed signed must be True or False, not {self.signed!r}")

    @property
    def min_code(self) -> int:
        """The smallest code."""
        return -(1 << (self.width - 1)) if self.signed and self.width else 0

    @property
    def max_code(self) -> int:
        """The largest code."""
        return (1 << (self.width - self.signed)) - 1 if self.width else 0

    @property
    def per_channel(self) -> bool:
        """Whether each channel has its own binary point."""
        return isinstance(self.frac, tuple)

    @property
    def scalar_frac(self) -> int:
        """The one binary point; an error if each channel has its own."""
        if isinstance(self.frac, tuple):
            raise FormatError(f"the format must have one binary point, not one per channel as {self} has")
        return self.frac

    def fracs(self, channels: int) -> np.ndarray:
        """Return the binary points of ``channels`` channels, int64 of shape (channels,)."""
        if isinstance(self.frac, tuple) and len(self.frac) != channels:
            raise FormatError(
                f"a format for {channels} channels must have {channels} binary points, not {len(self.frac)}"
            )
        return np.broadcast_to(np.asarray(self.frac, dtype=np.int64), (channels,)).copy()

    @property
    def ap_type(self) -> str:
        """The C++ type, as ``ap_fixed`` counts: total width and integer width, the sign included in both."""
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.scalar_frac}>"

    @classmethod
    def parse(cls, text: str) -> "Fixed":
        """Read the printed form: ``s8.3``, ``u5.0``, ``s8.-2`` or ``s8.[3,4]``."""
        match = isinstance(text, str) and re.fullmatch(r"([su])(\d+)\.(-?\d+|\[-?\d+(?:,-?\d+)*\])", text.strip())
        if not match:
            raise FormatError(f"a format must look like 's8.3' or 'u5.0' (width.frac), not {text!r}")
        sign, width, frac = match.groups()
        fracs = tuple(int(part) for part in frac.strip("[]").split(","))
        return cls(int(width), fracs if frac.startswith("[") else fracs[0], sign == "s")

    def __str__(self) -> str:
        frac = "[" + ",".join(map(str, self.frac)) + "]" if isinstance(self.frac, tuple) else str(self.frac)
        return f"{'s' if self.signed else 'u'}{self.width}.{frac}"


def require_input_format(text: str) -> str:
    """Return ``text`` if it is a format of codes that a host may send; raise a ValueError with the condition if not."""
    try:
        fixed = Fixed.parse(text)
    except FormatError:
        fixed = None
    if fixed is None or fixed.per_channel:
        raise ValueError("must be a format with one binary point, such as u8.0")
    low, high = FRAC_RANGE
    if not 1 <= fixed.width <= WIDEST or not low <= fixed.scalar_frac <= high:
        raise ValueError(f"must have 1 to {WIDEST} bits and a frac of {low} to {high}")
    return text


def fixed_for_range(low: int, high: int, frac: int | Iterable[int]) -> Fixed:
    """Return the smallest format whose codes include ``low..high``; it is unsigned if ``low`` is not negative."""
    if low > high:
        raise FormatError(f"a range must not be empty, but {low} is above {high}")
    if low >= 0:
        width = int(high).bit_length()
    else:
        width = max(int(max(high, 0)).bit_length(), int(-low - 1).bit_length()) + 1
    if width > MAX_WIDTH:
        raise FormatError(
            f"codes {low}..{high} need {width} bits, but at most {MAX_WIDTH} are allowed: narrow the operands"
        )
    return Fixed(width, frac if isinstance(frac, int) else simplest_frac(frac), signed=low < 0)


def simplest_frac(fracs: Iterable[int]) -> int | tuple[int, ...]:
    """Return the binary points of the channels as a Fixed takes them: one number where all are equal."""
    values = tuple(int(frac) for frac in fracs)
    return values[0] if len(set(values)) == 1 else values


def _require_int(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FormatError(f"Fixed {field} must be an integer, not {value!r}")
