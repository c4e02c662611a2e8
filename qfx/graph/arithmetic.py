"""The operations that compute with several tensors, or with all channels, of data: products, sums, maxima."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qfx.errors import GraphError
from qfx.fixed import simplest_frac
from qfx.graph.op import Op, at_least_one_bit, require_scalar
from qfx.graph.tensor import Operand, TensorType, operand_type


@dataclass(frozen=True)
class Multiply(Op):
    """``out[..., c] = a[..., c] * b[..., c]``: a gate, an attention."""

    arity: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        a, b = map(operand_type, operands)
        if a.shape != b.shape:
            raise GraphError(f"the operands of Multiply must have one shape, not {a.shape} and {b.shape}")
        ends = [p * q for p in (a.fixed.min_code, a.fixed.max_code) for q in (b.fixed.min_code, b.fixed.max_code)]
        fracs = a.fixed.fracs(a.channels) + b.fixed.fracs(b.channels)
        return TensorType(a.shape, at_least_one_bit(min(ends), max(ends), simplest_frac(fracs)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0] * codes[1]


@dataclass(frozen=True)
class ChannelMax(Op):
    """``out[..., 0] = max over c of in[..., c]``."""

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_scalar(x, "the input of ChannelMax")
        return TensorType((*x.shape[:-1], 1), x.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0].max(axis=-1, keepdims=True)


@dataclass(frozen=True)
class ChannelSum(Op):
    """``out[..., 0] = sum over c of in[..., c]``."""

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_scalar(x, "the input of ChannelSum")
        low, high = x.fixed.min_code * x.channels, x.fixed.max_code * x.channels
        return TensorType((*x.shape[:-1], 1), at_least_one_bit(low, high, x.fixed.scalar_frac))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0].sum(axis=-1, keepdims=True)
