"""Exact sums of products: in float32, float64 or int64, as a layer's static bound asks for it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qfx.errors import TrainError
from qfx.fixed import Fixed, decode, requantize
from qfx.nn.arithmetic import FLOAT32_BITS, FLOAT64_BITS, INT64_BITS
from qfx.nn.quantizer import Quantizer

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def exact_product(
    product: Product,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    input_quant: Quantizer,
    weight_quant: Quantizer,
) -> Tensor:
    """Return ``product(x, weight) + bias`` without any rounding, all in float64, channels on axis 1.

    The static bound ``sum|w| * max|x| + |b|``, in codes, decides: below 2**24 float32 is exact, since every partial sum
    is an integer that it holds, in whatever order it is added; below 2**53 float64 is. Beyond, the codes of ``x`` are
    split into digits so narrow that each digit's product is exact in float64, and the digits are summed in int64.

    Raises:
        TrainError: the bound leaves int64, or a result does not fit float64.
    """
    form = input_quant.format()
    frac = input_quant.frac_now.long() + weight_quant.frac_now.long()
    largest = max(form.max_code, -form.min_code, 1)
    codes = torch.ldexp(weight, _rows(weight_quant.frac_now, weight))
    sums = codes.abs().flatten(1).sum(1)
    bound = sums.max().item() * largest + (0 if bias is None else torch.ldexp(bias, frac).abs().max().item())
    if bound < 2.0**FLOAT32_BITS:
        return product(x.float(), weight.float(), None if bias is None else bias.float()).double()
    if bound < 2.0**FLOAT64_BITS:
        return product(x, weight, bias)
    digit = FLOAT64_BITS - 1 - int(sums.max().item()).bit_length()
    if bound >= 2.0**INT64_BITS or digit < 1:
        raise TrainError(f"the static bound of layer '{weight_quant.owner}' must stay below 2**62, not {bound:.3g}")
    x = torch.ldexp(x, input_quant.frac_now)
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    for place in range(0, form.width + 1, digit):
        rest = torch.floor(x * 2.0**-digit)
        last = place + digit > form.width  # the top digit keeps the sign
        low = x if last else x - rest * 2.0**digit
        total = total + (product(low, codes, None).long() << place)
        x = rest
    shape = [1, -1, *[1] * (total.dim() - 2)]
    if bias is not None:
        total = total + torch.ldexp(bias, frac).long().reshape(shape)
    if total.abs().max() >= 1 << FLOAT64_BITS:
        raise TrainError(f"results of layer '{weight_quant.owner}' must stay below 2**53 codes: narrow its operands")
    return torch.ldexp(total.double(), -(frac.reshape(shape) if frac.dim() else frac))


def exact_affine(x: Tensor, scale: Tensor, shift: Tensor, output_quant: Quantizer) -> Tensor:
    """Return ``output_quant(x * scale[c] + shift[c])`` with a single rounding; channels on axis 1, all float64.

    Factors of 24 bits have a product that float64 holds; where its sum with ``shift`` is not rounded either, that is
    all. Elsewhere the grids of the values tell whether float64 or int64 holds the result.
    """
    scale, shift = scale.double(), shift.double()
    rows = x.movedim(1, -1)
    if _in_float32(scale) and _in_float32(rows):
        product = rows * scale
        total = product + shift
        if not _rounded(product, shift, total):
            return output_quant(total.movedim(-1, 1))
    f_x, f_scale, f_shift = grid_of(rows), grid_of(scale[None]), grid_of(shift[None])
    frac = torch.maximum(f_x + f_scale, f_shift)
    peak = rows.abs().flatten(0, -2).amax(0) * scale.abs() + shift.abs()
    bits = (torch.log2(peak.clamp_min(2.0**-200)) + frac).max().item() + 1
    if bits < FLOAT64_BITS:
        return output_quant((rows * scale + shift).movedim(-1, 1))
    fracs = tuple(int(f) for f in frac)
    if bits >= INT64_BITS or max(map(abs, fracs)) > 64:
        raise TrainError(f"the result in '{output_quant.owner}' must stay below 2**62 codes, not 2**{bits:.0f}")
    product = torch.ldexp(rows, f_x).long() * torch.ldexp(scale, f_scale).long() << (frac - f_x - f_scale)
    total = product + (torch.ldexp(shift, f_shift).long() << (frac - f_shift))
    target, spec = output_quant.format(), output_quant.spec
    codes = requantize(total.cpu().numpy(), Fixed(INT64_BITS, fracs), target, spec.rounding, spec.overflow)
    return torch.from_numpy(np.ascontiguousarray(decode(codes, target))).to(x.device).movedim(-1, 1)


def exact_sum(a: Tensor, b: Tensor, path: str) -> Tensor:
    """Return ``a + b`` in float64, or refuse if it was rounded."""
    total = a + b
    if _rounded(a, b, total):
        raise TrainError(f"the operands of '{path}' must span fewer than 53 bits together: bring their frac closer")
    return total


def _rounded(a: Tensor, b: Tensor, total: Tensor) -> bool:
    """Whether ``total``, which is ``a + b`` as computed, differs from it: the error term of Knuth's two-sum."""
    part = total - a
    return bool(((a - (total - part)) + (b - part)).any())


def _in_float32(x: Tensor) -> bool:
    return torch.equal(x.float().double(), x)


def grid_of(x: Tensor) -> Tensor:
    """Return, per channel (last axis), the fewest fraction bits with which every value is an integer (int64)."""
    mantissa, exponent = torch.frexp(x.double())
    integer = torch.ldexp(mantissa, torch.tensor(FLOAT64_BITS)).long()
    lowest = (integer & -integer).double()  # the lowest bit that is set
    frac = FLOAT64_BITS - exponent.long() - torch.log2(lowest.clamp_min(1)).long()
    frac = torch.where(integer == 0, -64, frac)
    return frac.flatten(0, -2).amax(0) if x.dim() > 1 else frac


def _rows(frac: Tensor, weight: Tensor) -> Tensor:
    return frac.reshape(-1, *[1] * (weight.dim() - 1)) if frac.dim() else frac
