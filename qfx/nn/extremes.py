"""The larger and the smaller of two tensors in fixed point."""

import numpy as np
import torch
from torch import Tensor

from qfx.fixed import Fixed
from qfx.nn.constants import Codes
from qfx.nn.elementwise import Joint


class _Extreme(Joint):
    largest: bool

    def constants(self) -> dict[str, Codes]:
        """Return ``minus``: -1, shape (1,)."""
        return {"minus": Codes(np.array([-1]), Fixed(2, 0), 1)}


class Maximum(_Extreme):
    """``y = output_quant(max(a_quant(a), b_quant(b)))``: maxout. The graph computes ``a + max(b - a, 0)``."""

    largest = True

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return self.output_quant(torch.maximum(a, b))


class Minimum(_Extreme):
    """``y = output_quant(min(a_quant(a), b_quant(b)))``. The graph computes ``a + min(b - a, 0)``."""

    largest = False

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        return self.output_quant(torch.minimum(a, b))
