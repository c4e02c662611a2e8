"""Products of two tensors in fixed point."""

from torch import Tensor, nn

from qfx.nn.elementwise import operand, require_alike
from qfx.nn.integer import exact_times
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec


class Multiply(nn.Module):
    """``y = output_quant(a_quant(a) * b_quant(b))``: a gate, an attention.

    Axes of length 1 and ``settled`` are as in Add.
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
        a, b = operand(self, "a_quant", a), operand(self, "b_quant", b)
        if self.exact:
            return exact_times(a, b, self.a_quant, self.b_quant, self.output_quant)
        return self.output_quant(a * b)
