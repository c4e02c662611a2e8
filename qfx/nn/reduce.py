"""Sum, mean and largest value over the channels in fixed point, of images, signals and features."""

import torch
from torch import Tensor, nn

from qfx.nn.constants import Codes
from qfx.nn.pool import Average
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec


class ChannelMean(Average):
    """The Average of the channels, one channel."""

    def forward(self, x: Tensor) -> Tensor:
        return self.average(self.input_quant(x).sum(1, keepdim=True), x.shape[1])

    def constants(self, channels: int) -> dict[str, Codes]:
        """Return ``scale`` for an input of that many channels: the reciprocal, shape (1,)."""
        return self.scale(channels)


class ChannelMax(nn.Module):
    """``y = max(channels of input_quant(x))``, one channel: exact."""

    def __init__(self, *, input_spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        self.input_quant = Quantizer(input_spec, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(self.input_quant(x), 1, keepdim=True)
