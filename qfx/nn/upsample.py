"""Upsampling to the nearest neighbour, of images and of signals (N, C, L)."""

from torch import Tensor, nn

from qfx.nn.geometry import Pair, pair


class Upsample(nn.Module):
    """Each pixel ``factor`` times below each other and side by side: the nearest neighbour, exact, on the codes."""

    def __init__(self, factor: int | Pair) -> None:
        super().__init__()
        self.factor = pair(factor)

    def forward(self, x: Tensor) -> Tensor:
        rows = x if x.dim() == 3 else x.repeat_interleave(self.factor[0], 2)
        return rows.repeat_interleave(self.factor[1], -1)

    @classmethod
    def from_float(cls, layer: nn.Upsample) -> "Upsample | str":
        """Return the layer, or why it cannot be: any other than the nearest neighbour by whole factors."""
        if layer.mode not in ("nearest", "nearest-exact"):
            return f"its mode must be 'nearest', not '{layer.mode}': use that, or an nn.ConvTranspose2d"
        scale = layer.scale_factor
        factors = scale if isinstance(scale, tuple) else (scale, scale)
        if len(factors) > 2 or not all(isinstance(f, int | float) and f >= 1 and f == int(f) for f in factors):
            given = f"size {layer.size}" if scale is None else scale
            return f"its scale_factor must be a whole number, not {given}"
        return cls((int(factors[0]), int(factors[-1])))
