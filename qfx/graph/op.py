"""What every operation of a graph is, and what several of them ask of their operands."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from qfx.errors import GraphError
from qfx.fixed import Fixed, fixed_for_range
from qfx.graph.tensor import Operand, TensorType


class Op(ABC):
    """An operation: formats in, format out; integer codes in, integer codes out."""

    arity: ClassVar[tuple[int, ...]] = (1,)  # how many operands it may have
    constants: ClassVar[tuple[int, ...]] = ()  # which of them must be constants

    @abstractmethod
    def infer(self, operands: Sequence[Operand]) -> TensorType:
        """Return the exact result's shape and format, or raise GraphError for operands that are not legal."""

    @abstractmethod
    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        """Return the result's int64 codes; tensors carry a leading batch axis, constants do not."""


def require_image(x: TensorType) -> None:
    """Refuse all but an image."""
    if len(x.shape) != 3:
        raise GraphError(f"the input must be (height, width, channels), not shape {x.shape}")


def require_scalar(x: TensorType, what: str) -> None:
    """Refuse a tensor whose channels have binary points of their own."""
    if x.fixed.per_channel:
        raise GraphError(f"{what} must have one binary point, not {x.fixed}: put a Requantize before it")


def at_least_one_bit(low: int, high: int, frac: int | tuple[int, ...]) -> Fixed:
    """Return the smallest format that holds both codes, of width 1 where both are 0."""
    fixed = fixed_for_range(low, high, frac)
    return fixed if fixed.width else Fixed(1, frac, signed=False)
