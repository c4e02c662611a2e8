"""Sum, mean and largest value over the channels in fixed point, of images, signals and features."""

import torch
from torch import Tensor, nn

from qfx.nn.constants import Codes
from qfx.nn.elementwise import of_one, reciprocal, times_reciprocal
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer, Spec


class ChannelMean(nn.Module):
    """``y = output_quant(sum(channels of input_quant(x)) * code(1 / divisor))``, one channel: as AvgPool2d of pixels.

    Args:
        divisor: what the sum is divided by; by default the number of channels.
    """

    def __init__(
        self,
        divisor: int | None = None,
        *,
        constant_spec: Spec = CONSTANT,
        input_spec: Spec = ELEMENTWISE,
        output_spec: Spec = ELEMENTWISE,
    ) -> None:
        super().__init__()
        self.divisor = divisor
        self.constant_spec = of_one(constant_spec)
        self.input_quant = Quantizer(input_spec, axis=1)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        total = self.input_quant(x).sum(1, keepdim=True)
        return times_reciprocal(self, total, self.divisor or x.shape[1])

    def constants(self, channels: int) -> dict[str, Codes]:
        """Return ``scale`` for an input of that many channels: the reciprocal, shape (1,)."""
        return {"scale": reciprocal(self.divisor or channels, self.constant_spec)}


class ChannelMax(nn.Module):
    """``y = max(channels of input_quant(x))``, one channel: exact."""

    def __init__(self, *, input_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.input_quant = Quantizer(input_spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(self.input_quant(x), 1, keepdim=True)
