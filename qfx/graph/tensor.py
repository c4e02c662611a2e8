"""What flows along the edges of a graph: tensors with a shape and a format, and constants with their codes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qfx.errors import GraphError
from qfx.fixed import Fixed, count_digits, fixed_for_range


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (channels last, without the batch axis) and format of a tensor."""

    shape: tuple[int, ...]
    fixed: Fixed

    @property
    def channels(self) -> int:
        """The length of the last axis."""
        return self.shape[-1]

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape))

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.fixed}"


@dataclass(frozen=True, eq=False)
class Constant:
    """Integer codes that a node reads besides its tensors: weights, biases, scales.

    ``max_digits`` promises that each code has at most so many non-zero digits (``qfx.fixed.digits_of``): the promise
    that lets an engine multiply by shifts and additions.
    """

    codes: np.ndarray  # int64, channels last
    fixed: Fixed
    max_digits: int | None = None
    signed_digits: bool = False

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes)
        if codes.dtype.kind not in "iu":
            raise GraphError(f"a constant's codes must be integers, not {codes.dtype}")
        if codes.dtype == np.uint64 and codes.size and codes.max() > np.iinfo(np.int64).max:
            raise GraphError(f"a constant's codes must fit 64 bits with sign, not {codes.max()}")
        codes = codes.astype(np.int64)
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)

    @property
    def type(self) -> TensorType:
        """Shape and format."""
        return TensorType(self.codes.shape, self.fixed)

    def keeps_digits(self) -> bool:
        """Whether every code has at most ``max_digits`` non-zero digits."""
        if self.max_digits is None:
            return True
        limit = (1 << max(self.fixed.width - 1, 0)) - 1
        if np.abs(self.codes).max(initial=0) > limit:
            return False
        return count_digits(self.codes, self.fixed.width, self.signed_digits) <= self.max_digits


Operand = TensorType | Constant


def operand_type(operand: Operand) -> TensorType:
    """The shape and format of a tensor or constant."""
    return operand.type if isinstance(operand, Constant) else operand


def largest_magnitude(fixed: Fixed) -> int:
    """The largest magnitude of any code of a format."""
    return max(-fixed.min_code, fixed.max_code)


def accumulator(bound: int, fracs: Iterable[int] | int) -> Fixed:
    """The signed format in which sums of magnitude up to ``bound`` are exact in any order of summation."""
    return fixed_for_range(-max(int(bound), 1), int(bound), fracs)
