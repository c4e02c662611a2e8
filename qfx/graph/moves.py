"""The operations that only move codes: into one tensor, to other channels, to other places of the image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qfx.errors import GraphError
from qfx.fixed import simplest_frac
from qfx.graph.op import Op, at_least_one_bit, require_image, require_scalar
from qfx.graph.tensor import Operand, TensorType, operand_type
from qfx.graph.window import Pair

Steps = tuple[int, int, int]  # start, stop, step


@dataclass(frozen=True)
class Concat(Op):
    """The channels of a, then those of b, their codes and binary points as they are."""

    arity: ClassVar[tuple[int, ...]] = (2,)

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        a, b = (operand_type(operand) for operand in operands)
        if a.shape[:-1] != b.shape[:-1]:
            raise GraphError(f"the operands of Concat must differ in channels only, not be {a.shape} and {b.shape}")
        fracs = np.concatenate([kind.fixed.fracs(kind.channels) for kind in (a, b)])
        low, high = min(a.fixed.min_code, b.fixed.min_code), max(a.fixed.max_code, b.fixed.max_code)
        shape = (*a.shape[:-1], a.channels + b.channels)
        return TensorType(shape, at_least_one_bit(low, high, simplest_frac(fracs)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return np.concatenate(codes, axis=-1)


@dataclass(frozen=True)
class Select(Op):
    """``out[..., i] = in[..., channels[i]]``, and 0 where ``channels[i]`` is -1."""

    channels: tuple[int, ...]

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        if not all(-1 <= channel < x.channels for channel in self.channels):
            raise GraphError(f"channels must lie in 0..{x.channels - 1}, or be -1 for zeros, not be {self.channels}")
        taken = [channel for channel in self.channels if channel >= 0]
        if not taken:
            raise GraphError(f"channels must hold at least one that is not -1, not be {self.channels}")
        fracs = x.fixed.fracs(x.channels)[[channel if channel >= 0 else taken[0] for channel in self.channels]]
        return TensorType((*x.shape[:-1], len(self.channels)), replace(x.fixed, frac=simplest_frac(fracs)))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        index = np.array(self.channels)
        return np.where(index >= 0, codes[0][..., index], 0)


@dataclass(frozen=True)
class Upsample(Op):
    """``out[y, x] = in[y // factor[0], x // factor[1]]``: each pixel several times, the nearest neighbour."""

    factor: Pair

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_image(x)
        if min(self.factor) < 1:
            raise GraphError(f"factor must be at least 1 in each direction, not {self.factor}")
        return TensorType((x.shape[0] * self.factor[0], x.shape[1] * self.factor[1], x.channels), x.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0].repeat(self.factor[0], axis=1).repeat(self.factor[1], axis=2)


@dataclass(frozen=True)
class DepthToSpace(Op):
    """``out[y*bh + i, x*bw + j, c] = in[y, x, (i*bw + j)*C + c]``: the channels of a pixel become a block of pixels."""

    block: Pair

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_image(x)
        if min(self.block) < 1:
            raise GraphError(f"block must be at least 1 in each direction, not {self.block}")
        pixels = self.block[0] * self.block[1]
        if x.channels % pixels:
            raise GraphError(f"the channels of DepthToSpace must divide into {pixels} pixels, not be {x.channels}")
        fracs = x.fixed.fracs(x.channels).reshape(pixels, -1)
        if (fracs != fracs[0]).any():
            raise GraphError(f"the {pixels} pixels of a block must have the same binary points, not {x.fixed}")
        shape = (x.shape[0] * self.block[0], x.shape[1] * self.block[1], x.channels // pixels)
        return TensorType(shape, replace(x.fixed, frac=simplest_frac(fracs[0])))

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        count, height, width, channels = codes[0].shape
        rows, columns = self.block
        blocks = codes[0].reshape(count, height, width, rows, columns, channels // (rows * columns))
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, height * rows, width * columns, -1)


@dataclass(frozen=True)
class Slice(Op):
    """``out[y, x] = in[start + y*step, ...]`` of ``(start, stop, step)`` along rows and columns, as in Python."""

    rows: Steps
    columns: Steps

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_image(x)
        sizes = []
        for name, (start, stop, step), size in zip(
            ("rows", "columns"), (self.rows, self.columns), x.shape, strict=False
        ):
            if not (0 <= start < stop <= size and step >= 1):
                raise GraphError(
                    f"{name} must be (start, stop, step) with 0 <= start < stop <= {size} and step at least 1, "
                    f"not {(start, stop, step)}"
                )
            sizes.append(len(range(start, stop, step)))
        return TensorType((*sizes, x.channels), x.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0][:, slice(*self.rows), slice(*self.columns)]


@dataclass(frozen=True)
class Flatten(Op):
    """All elements in the order height, width, channel."""

    def infer(self, operands: Sequence[Operand]) -> TensorType:
        x = operand_type(operands[0])
        require_scalar(x, "the input of Flatten")
        return TensorType((x.size,), x.fixed)

    def evaluate(self, codes: Sequence[np.ndarray], operands: Sequence[Operand]) -> np.ndarray:
        return codes[0].reshape(len(codes[0]), operand_type(operands[0]).size)
