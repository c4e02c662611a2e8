"""Products of two tensors in fixed point."""

from torch import Tensor

from qfx.nn.elementwise import Joint
from qfx.nn.integer import exact_times


class Multiply(Joint):
    """``y = output_quant(a_quant(a) * b_quant(b))``: a gate, an attention."""

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        if self.exact:
            return exact_times(a, b, self.a_quant, self.b_quant, self.output_quant)
        return self.output_quant(a * b)
