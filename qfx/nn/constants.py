"""Integer constants of a layer, as evaluation, exact evaluation and lowering all use them."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qfx.fixed import Fixed, fixed_for_range
from qfx.nn.quantizer import Quantizer


@dataclass(frozen=True, slots=True)
class Codes:
    """Integer codes and their format; channels are the last axis, as in the graph."""

    codes: np.ndarray
    fixed: Fixed
    max_digits: int | None = None
    signed_digits: bool = False


def quantized_codes(quantizer: Quantizer, values: Tensor, axes: tuple[int, ...]) -> Codes:
    """Return the codes of ``values``, with the torch ``axes`` brought into the graph's order."""
    digits = quantizer.spec.digits
    codes = np.ascontiguousarray(np.transpose(quantizer.codes(values), axes))
    return Codes(codes, quantizer.format(), quantizer.max_digits, bool(digits and digits.signed))


def grid_codes(values: Tensor, fracs: np.ndarray) -> Codes:
    """Return the codes of ``values`` (channels,) that are multiples of ``2**-fracs``, in the smallest format."""
    codes = np.ldexp(values.detach().double().cpu().numpy(), fracs).astype(np.int64)
    low, high = min(int(codes.min()), -1), int(codes.max())
    frac = tuple(int(f) for f in fracs)
    return Codes(codes, fixed_for_range(low, max(high, 0), frac[0] if len(set(frac)) == 1 else frac))
