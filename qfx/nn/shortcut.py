"""The shortcut without parameters of He et al., 2015 ("option A"): fewer pixels, more channels."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.fixed import Fixed
from qfx.nn.constants import Codes


class PadShortcut(nn.Module):
    """Every ``stride``-th pixel of each row and column, with ``before`` and ``after`` channels of zeros around them.

    Exact, on the codes as they are: one layer in float and in fixed point. In the graph it is a 1x1 convolution with a
    weight of zeros and ones.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def constants(self, channels: int) -> dict[str, Codes]:
        """Return ``weight`` (1, 1, channels, before + channels + after)."""
        weight = np.zeros((channels, self.before + channels + self.after), dtype=np.int64)
        np.fill_diagonal(weight[:, self.before :], 1)
        return {"weight": Codes(weight[None, None], Fixed(2, 0), 1)}

    def extra_repr(self) -> str:
        return f"stride={self.stride}, before={self.before}, after={self.after}"
