"""Activations of binarised networks: odd levels of few bits, and the thermometer code of an input."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import Fixed, fixed_for_range, simplest_frac
from qfx.nn.constants import Codes

WIDEST_LEVELS = 8


class BinaryActivation(nn.Module):
    """``y = 2m + 1``, ``m = min(max(floor(x * n / 2), -2**(width-1)), 2**(width-1) - 1)``, ``n = 2**width - 1``.

    The odd integers ``-n .. n``, for x from -1 to 1 in even steps: in one bit the sign, with ``sign(0) = 1``; in two
    -3, -1, 1, 3. Exact: one layer in float and in fixed point. The gradient is ``n`` where ``|x| <= 1``, else 0.
    """

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        check_levels(width)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return with_slope(2 * levels(x, self.width) + 1, x, self.width)

    def constants(self) -> dict[str, Codes]:
        """Return ``half``, that is n / 2, and ``table``: what each ``m`` stands for, lowest first."""
        return {"half": half_of_largest(self.width), "table": odd_levels(self.width)}

    def extra_repr(self) -> str:
        return f"width={self.width}"


class Thermometer(nn.Module):
    """``y[c * L + j] = 1 if x[c] >= thresholds[j] else -1``: each channel as the L digits of a thermometer.

    Exact: one layer in float and in fixed point. Without a gradient.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        super().__init__()
        if not len(thresholds) or not np.isfinite(thresholds).all():
            raise LowerError(f"the thresholds of a Thermometer must be finite numbers, at least one, not {thresholds}")
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.thresholds.reshape(-1, *[1] * (x.dim() - 2))
        return torch.where(x.detach().unsqueeze(2) >= steps, 1.0, -1.0).to(x.dtype).flatten(1, 2)

    def constants(self, fracs: np.ndarray) -> dict[str, Codes]:
        """Return ``scale`` (1,), ``shift`` (channels * L,) and ``table`` for channels with these binary points.

        The sign of ``scale * x + shift`` is the digit.
        """
        real = np.ldexp(self.thresholds.double().cpu().numpy(), fracs[:, None])
        shift = -np.ceil(real).astype(np.int64).flatten()
        grid = simplest_frac(np.repeat(fracs, len(self.thresholds)))
        fixed = fixed_for_range(min(int(shift.min()), -1), max(int(shift.max()), 0), grid)
        one = Codes(np.ones(1, dtype=np.int64), Fixed(2, 0), 1)
        return {"scale": one, "shift": Codes(shift, fixed), "table": odd_levels(1)}

    def extra_repr(self) -> str:
        return f"{len(self.thresholds)} thresholds"


def levels(x: Tensor, width: int) -> Tensor:
    """Return the ``m`` of BinaryActivation, without a gradient."""
    half = 1 << (width - 1)
    return torch.floor(x.detach() * (half - 0.5)).clamp(-half, half - 1)


def with_slope(y: Tensor, x: Tensor, width: int) -> Tensor:
    """Return ``y`` with the gradient ``2**width - 1`` where ``|x| <= 1``."""
    smooth = x.clamp(-1, 1) * ((1 << width) - 1)
    return y + (smooth - smooth.detach())


def odd_levels(width: int) -> Codes:
    """Return the odd integers of ``width`` bits, lowest first, as a table."""
    half = 1 << (width - 1)
    return Codes(2 * np.arange(-half, half) + 1, Fixed(width + 1, 0))


def half_of_largest(width: int) -> Codes:
    """Return ``(2**width - 1) / 2``, shape (1,), of two digits at most."""
    return Codes(np.array([(1 << width) - 1]), Fixed(width + 2, 1), 2, signed_digits=True)


def check_levels(width: int) -> None:
    """Raise LowerError for an activation that is too wide for its table."""
    if not 1 <= width <= WIDEST_LEVELS:
        raise LowerError(f"the width of a binary activation must lie in 1..{WIDEST_LEVELS}, not {width}")
