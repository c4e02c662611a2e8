"""PReLU with a slope for each channel; one slope for all is a Table."""

from dataclasses import replace
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.arithmetic import FLOAT64_BITS
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer, Spec
from qfx.nn.sharing import take


class PReLU(nn.Module):
    """``y = output_quant(max(x, 0) + slope_quant(slope[c]) * min(x, 0))``, ``x = input_quant(x)``.

    The slopes have one binary point, so that the sum is exact without another rounding.
    """

    def __init__(
        self,
        num_parameters: int,
        init: float = 0.25,
        *,
        constant_spec: Spec = CONSTANT,
        input_spec: Spec = ELEMENTWISE,
        output_spec: Spec = ELEMENTWISE,
    ) -> None:
        super().__init__()
        take(self, "weight", nn.PReLU(num_parameters, init))
        self.slope_quant = Quantizer(replace(constant_spec, per_channel=False), constant=True)
        self.input_quant = Quantizer(input_spec, axis=1)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    @classmethod
    def from_float(cls, layer: nn.PReLU, constant: Spec, elementwise: Spec) -> Self:
        """Return the fixed-point layer that shares ``layer``'s slopes."""
        new = cls(layer.weight.numel(), constant_spec=constant, input_spec=elementwise, output_spec=elementwise)
        take(new, "weight", layer)
        return new

    def forward(self, x: Tensor) -> Tensor:
        bits = self.input_quant.spec.width + self.slope_quant.spec.width
        if self.exact and bits > FLOAT64_BITS:
            raise TrainError(
                f"the input and the slopes of '{self.output_quant.owner}' must have at most {FLOAT64_BITS} bits "
                f"together, not {bits}"
            )
        x = self.input_quant(x)
        return self.output_quant(F.prelu(x, self.slope_quant(self.weight).to(x)))

    def constants(self) -> dict[str, Codes]:
        """Return ``slope`` (channels,)."""
        return {"slope": quantized_codes(self.slope_quant, self.weight, (0,))}
