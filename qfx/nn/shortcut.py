"""The shortcut without parameters of He et al., 2015 ("option A"): fewer pixels, more channels."""

import torch.nn.functional as F
from torch import Tensor, nn


class PadShortcut(nn.Module):
    """Every ``stride``-th pixel of each row and column, with ``before`` and ``after`` channels of zeros around them.

    Exact, on the codes as they are: one layer in float and in fixed point.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def chosen(self, channels: int) -> tuple[int, ...]:
        """Return which of ``channels`` stands in each place, -1 for zeros."""
        return (-1,) * self.before + tuple(range(channels)) + (-1,) * self.after

    def extra_repr(self) -> str:
        return f"stride={self.stride}, before={self.before}, after={self.after}"
