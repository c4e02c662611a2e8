"""Softmax over channels in fixed point: two tables, a sum and a product."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from qfx.fixed import TABLE_WIDTH
from qfx.nn.integer import exact_times
from qfx.nn.quantizer import ELEMENTWISE, Quantizer, Spec
from qfx.nn.table import Table


class Softmax(nn.Module):
    """``y = output_quant(e * r)`` with ``e = exp(max(x) - x)`` and ``r = reciprocal(sum(e))``, ``x = input_quant(x)``.

    ``exp`` and ``reciprocal`` are tables, of ``2.718..**-d`` for how far a channel lies below the largest, and of
    ``1 / s``; maximum, difference, sum and product are exact. The table of the reciprocal, of which a pixel needs one
    entry, is as wide as a table may be: its input and its entries have TABLE_WIDTH bits.
    """

    def __init__(self, *, spec: Spec = ELEMENTWISE) -> None:
        super().__init__()
        unsigned = replace(spec, signed=False)
        wide = replace(unsigned, width=TABLE_WIDTH, frac=None, learn_width=False)
        self.input_quant = Quantizer(spec, axis=1)
        self.exp = Table(falling_exp, input_spec=unsigned, output_spec=unsigned)
        self.reciprocal = Table(reciprocal, input_spec=wide, output_spec=wide)
        self.output_quant = Quantizer(spec, axis=1)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quant(x)
        largest = x.amax(1, keepdim=True).detach()  # softmax does not depend on it
        e = self.exp(largest - x)
        r = self.reciprocal(e.sum(1, keepdim=True))
        if self.exact:
            return exact_times(e, r, self.exp.output_quant, self.reciprocal.output_quant, self.output_quant)
        return self.output_quant(e * r)


def falling_exp(x: Tensor) -> Tensor:
    """Return ``exp(-x)``."""
    return torch.exp(-x)


def reciprocal(x: Tensor) -> Tensor:
    """Return ``1 / x`` from 0.5 on, which no sum of exponentials reaches from below, whose largest is about 1."""
    return 1 / x.clamp_min(0.5)
