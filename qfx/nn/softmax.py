"""Softmax over channels in fixed point: two tables, a sum and a product."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from qfx.fixed import TABLE_WIDTH
from qfx.nn.integer import exact_times
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec
from qfx.nn.table import Table


class Softmax(nn.Module):
    """``y = output_quant(e * r)`` with ``e = exp(max(x) - x)`` and ``r = reciprocal(sum(e))``, ``x = input_quant(x)``.

    ``exp`` is a table of how far a channel lies below the largest, ``reciprocal`` one of the sum; maximum, difference,
    sum and product are exact. A pixel needs one entry of the reciprocal's, which is therefore as wide as a table may
    be: its input and its entries have TABLE_WIDTH bits. The binary points of both tables are learned. ``y`` has the
    gradient of softmax at x itself, so that no value that a table clips is lost to training.
    """

    def __init__(self, *, spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        unsigned = replace(spec, frac=None, signed=False)
        wide = replace(unsigned, width=TABLE_WIDTH, learn_width=False)
        self.input_quant = Quantizer(spec, axis=1)
        exp = partial(falling_exp, one=1 - 2.0**-spec.width)
        self.exp = Table(exp, input_spec=unsigned, output_spec=unsigned).fixed()
        self.reciprocal = Table(reciprocal, input_spec=wide, output_spec=wide).fixed()
        self.output_quant = Quantizer(spec, axis=1)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quant(x)
        codes = x.detach()
        e = self.exp(codes.amax(1, keepdim=True) - codes)
        r = self.reciprocal(e.sum(1, keepdim=True))
        if self.exact:
            return exact_times(e, r, self.exp.output_quant, self.reciprocal.output_quant, self.output_quant)
        y = e * r
        if x.requires_grad:
            smooth = x.softmax(1)
            y = y + (smooth - smooth.detach())
        return self.output_quant(y)


def falling_exp(x: Tensor, one: float) -> Tensor:
    """Return ``one * exp(-x)``; with ``one = 1 - 2**-width`` the largest value is the largest code below 1."""
    return one * torch.exp(-x)


def reciprocal(x: Tensor) -> Tensor:
    """Return ``1 / x``, and 2 below 0.5: a sum of exponentials, of which the largest is about 1, is never so small."""
    return 1 / x.clamp_min(0.5)
