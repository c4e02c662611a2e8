"""ReLU, Hardtanh, addition, concatenation and flatten in fixed point, of signals (N, C, L) too."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import Overflow
from qfx.nn.geometry import Pair
from qfx.nn.integer import exact_sum
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec

SATURATING = (Overflow.SAT, Overflow.SAT_SYM)


class ReLU(nn.Module):
    """``y = max(x, 0)``: exact, on the codes as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Hardtanh(nn.Module):
    """``y = quant(min(max(x, low), high))``: ReLU6 and its like, bounded at the codes of the bounds.

    Rounding and saturation keep order, so that this is ``min(max(quant(x), quant(low)), quant(high))``, which the graph
    computes; an overflow mode that does not saturate is refused by ``bounds``.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0, *, spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        if low > high:
            raise LowerError(f"the bounds of a Hardtanh must be in order, not {low}, {high}")
        self.low, self.high = low, high
        self.quant = Quantizer(spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.quant(x.clamp(self.low, self.high))

    def bounds(self) -> Pair:
        """Return the codes of the bounds."""
        if self.quant.spec.overflow not in SATURATING:
            raise LowerError(
                f"the result of '{self.quant.owner}' must have overflow SAT or SAT_SYM, not "
                f"{self.quant.spec.overflow}: values beyond its bounds reach it"
            )
        low, high = self.quant.codes(torch.tensor([self.low, self.high], device=self.quant.frac.device))
        return int(low), int(high)


class Flatten(nn.Module):
    """Everything but the batch in one axis, in torch's order (channel, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Joint(nn.Module):
    """What joins two tensors: the operands keep binary points of their own.

    An axis of length 1 stands for as many equal values as the other operand has there.
    An operand that has just left its own quantizer, as ``settled`` says, is not quantized again in training: that would
    change neither value nor gradient.
    """

    def __init__(self, *, operand_spec: Spec = ELEMENTWISE, output_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.a_quant = Quantizer(operand_spec, axis=1)
        self.b_quant = Quantizer(operand_spec, axis=1)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.settled: frozenset[str] = frozenset()  # names of operand quantizers, told by convert
        self.exact = False

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        require_alike(a, b, self.output_quant.owner)
        return self.join(operand(self, "a_quant", a), operand(self, "b_quant", b))

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the result for operands in their formats."""
        raise NotImplementedError


class Add(Joint):
    """``y = output_quant(a_quant(a) + b_quant(b))``."""

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return self.output_quant(exact_sum(a, b, self.output_quant.owner) if self.exact else a + b)


def broadcast(a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes have as many axes, of one length or of length 1."""
    return len(a) == len(b) and all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))


def require_alike(a: Tensor, b: Tensor, where: str) -> None:
    """Raise LowerError unless two operands have one shape, but for axes of length 1."""
    if a.shape[:1] != b.shape[:1] or not broadcast(a.shape[1:], b.shape[1:]):
        raise LowerError(
            f"the operands at '{where}' must have one shape, or axes of length 1, not {[*a.shape]} and {[*b.shape]}"
        )


def operand(layer: nn.Module, name: str, x: Tensor) -> Tensor:
    """Return an operand of ``layer`` in its quantizer's format; in training one that is ``settled`` has it already."""
    quantizer: Quantizer = getattr(layer, name)
    needless = name in layer.settled and layer.training and quantizer.observer is None
    return x if needless else quantizer(x)


class Concat(nn.Module):
    """The channels of all operands, one behind the other: exact, on the codes as they are.

    Each operand keeps its binary points; what reads the result rounds each value once, to one format.
    """

    def forward(self, *operands: Tensor) -> Tensor:
        return torch.cat(operands, 1)
