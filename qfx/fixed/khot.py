"""K-hot constants: integers with few non-zero binary digits, so that a product is a sum of shifts."""

from functools import lru_cache

import numpy as np

from qfx.errors import FormatError


@lru_cache(maxsize=1 << 16)
def digits_of(code: int, width: int, signed_digits: bool) -> tuple[tuple[int, int], ...]:
    """Return the canonical digits of ``code`` as ``(sign, position)``, highest position first.

    ``code`` is the sum of ``sign * 2**position``, in the sign-magnitude form of a signed word of ``width`` bits: all
    positions lie in 0 .. width-2. With digits {0,1} these are the ones of the magnitude, all under the code's sign;
    with signed digits it is the form with the fewest digits: the non-adjacent form (Reitwiesner, 1960), after the
    leading digit has been taken off where that form would leave the word.
    """
    magnitude, sign, top = abs(code), -1 if code < 0 else 1, width - 2
    digits: list[tuple[int, int]] = []
    if magnitude >> max(width - 1, 0):
        raise FormatError(f"a K-hot code of width {width} must lie within +-{(1 << max(width - 1, 0)) - 1}, not {code}")
    while True:
        rest = _non_adjacent(magnitude) if signed_digits else _ones(magnitude)
        if not rest or rest[0][1] <= top:
            return tuple((sign * digit, position) for digit, position in (*digits, *rest))
        digits.append((1, top))
        magnitude -= 1 << top
        top -= 1


@lru_cache(maxsize=64)
def magnitudes(width: int, max_digits: int, signed_digits: bool) -> np.ndarray:
    """Return the sorted magnitudes that a signed word of ``width`` bits holds with at most ``max_digits`` digits.

    Zero is always among them.
    """
    if not 1 <= width <= 20:
        raise FormatError(f"the width of a K-hot word must lie in 1..20, not {width}")
    if max_digits < 1:
        raise FormatError(f"the number of K-hot digits must be at least 1, not {max_digits}")
    found = np.array(
        [code for code in range(1 << (width - 1)) if len(digits_of(code, width, signed_digits)) <= max_digits]
    )
    found.setflags(write=False)
    return found


@lru_cache(maxsize=16)
def nested_magnitudes(width: int, signed_digits: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest magnitudes for every number of digits at once, from 0 to as many as a word can have.

    Returns:
        edges, levels, digits: a size in ``(edges[i-1], edges[i]]`` is nearest to the magnitude ``levels[k, i]`` of
        those with at most ``k`` digits, which has ``digits[k, i]``. A tie goes to the smaller magnitude.
    """
    counts = digit_counts(width, signed_digits)
    tables = [np.zeros(1, dtype=np.int64), *(magnitudes(width, k, signed_digits) for k in range(1, counts.max() + 1))]
    midpoints = [(table[1:] + table[:-1]) / 2 for table in tables]
    edges = np.unique(np.concatenate(midpoints))
    last = np.append(edges, np.inf)  # of each interval; all of it lies between the same two magnitudes of any table
    levels = np.stack([table[np.searchsorted(own, last)] for table, own in zip(tables, midpoints, strict=True)])
    return edges, levels, counts[levels]


@lru_cache(maxsize=16)
def digit_counts(width: int, signed_digits: bool) -> np.ndarray:
    """Return the number of non-zero digits of each magnitude of a signed word of ``width`` bits, from 0 on."""
    return np.array([len(digits_of(code, width, signed_digits)) for code in range(1 << (width - 1))])


def nearest_khot(values: np.ndarray, width: int, max_digits: int, signed_digits: bool) -> np.ndarray:
    """Return the code with at most ``max_digits`` digits that is nearest to each real number.

    The numbers are on the code's scale (already multiplied by ``2**frac``). Nearest to the number itself, not to its
    rounded code; a tie goes to the smaller magnitude; the magnitude is at most ``2**(width-1) - 1``.

    Returns:
        int64 codes of the shape of ``values``.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise FormatError("values to encode must be finite, but NaN or infinity is among them")
    table = magnitudes(width, max_digits, signed_digits)
    size = np.abs(values)
    above = np.minimum(np.searchsorted(table, size), len(table) - 1)
    below = np.maximum(above - 1, 0)
    nearest = np.where(table[above] - size < size - table[below], table[above], table[below])
    return np.where(values < 0, -nearest, nearest).astype(np.int64)


def count_digits(codes: np.ndarray, width: int, signed_digits: bool) -> int:
    """Return the largest number of non-zero digits of any of ``codes``."""
    sizes = np.unique(np.abs(codes))
    return max((len(digits_of(int(size), width, signed_digits)) for size in sizes), default=0)


def _ones(magnitude: int) -> list[tuple[int, int]]:
    return [(1, position) for position in reversed(range(magnitude.bit_length())) if magnitude >> position & 1]


def _non_adjacent(magnitude: int) -> list[tuple[int, int]]:
    """The non-adjacent form; a leading ``4 - 1`` is written ``2 + 1``, which is as short and one position lower."""
    digits, position = [], 0
    while magnitude:
        if magnitude & 1:
            digit = 2 - (magnitude & 3)
            magnitude -= digit
            digits.append((digit, position))
        magnitude >>= 1
        position += 1
    digits.reverse()
    if len(digits) > 1 and digits[1] == (-1, digits[0][1] - 2):
        digits[:2] = [(1, digits[0][1] - 1), (1, digits[0][1] - 2)]
    return digits
