"""Training within a budget of non-zero digits: K starts at an allocation of least error, and a price holds it there."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import limit_digits, nonzero_digits, quantizers
from qfx.nn.digits import khot_constants
from qfx.train.settings import DigitLimit
from qfx.train.together import same_digits

_FIRM = 4.0  # how strongly the price answers at once to a count off the budget
_PATIENCE = 80.0  # how far its logarithm moves in a training whose count stays off by the factor e
_QUICKEST = 0.5  # the largest such move in one step


def require_possible(model: nn.Module, asked: DigitLimit) -> None:
    """Raise TrainError where a model, calibrated or not, learns no K, or where layers would be left without digits."""
    known = quantizers(model)
    if not any(quantizer.learns_digits for quantizer in known.values()):
        raise TrainError(
            "a digit budget must find constants whose K is learned, but there are none: give weights digits like "
            "{k: 3, signed: true, learn: true} in the recipe"
        )
    layers = sum(_is_weight(name) and quantizer.spec.digits is not None for name, quantizer in known.items())
    if asked.budget is not None and asked.budget < layers:
        raise TrainError(
            f"a digit budget must be at least {layers:,}, a digit for each layer with K-hot weights, not "
            f"{asked.budget:,}"
        )


def without_digits(digits: Mapping[str, int]) -> list[str]:
    """Return the layers all of whose weights are 0, given the digits of each constant by its quantizer's path."""
    return [name.rpartition(".")[0] or name for name, count in digits.items() if _is_weight(name) and not count]


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] == "weight_quant"


class DigitBudget:
    """The price of a non-zero digit in training, so that all K-hot constants together keep a budget.

    The price is a multiplier of Lagrange's: it rises while the count is above the budget and falls while it is below,
    and answers at once to a part of the difference, which damps the swing (Platt and Barr, 1988),

        d = ln(count / budget),  ln price += rate * d,  gradient of k += price * e**(4 d) * d count / d k.

    It starts where it balances the gradients of the loss, so that it needs no tuning. What the price
    leaves above the budget when formats freeze, and what weights add after that, ``settle`` takes away.
    """

    def __init__(self, model: nn.Module, asked: DigitLimit, steps: int) -> None:
        require_possible(model, asked)
        self.budget = asked.of(sum(values.numel() for _, values in khot_constants(model).values()))
        self.rate = min(_PATIENCE / max(steps, 1), _QUICKEST)
        self.log_price: float | None = None
        self.settle(model)

    def press(self, model: nn.Module) -> None:
        """Add the price's part to the gradients of K, after the loss has given its own, the same on all ranks."""
        learned = [quantizer.k for quantizer in quantizers(model).values() if quantizer.learns_digits]
        ks = [k for k in learned if k is not None and k.requires_grad]
        if not ks:
            return
        count = nonzero_digits(model)
        slopes = torch.autograd.grad(count, ks)
        if self.log_price is None:
            worth, digits = _size([k.grad for k in ks]), _size(slopes)
            if not worth or not digits:
                return
            self.log_price = math.log(worth / digits)
        off = max(-1.0, min(1.0, math.log(max(count.item(), 1.0) / self.budget)))
        self.log_price += self.rate * off
        price = math.exp(self.log_price + _FIRM * off)
        for k, slope in zip(ks, slopes, strict=True):
            k.grad = slope * price if k.grad is None else k.grad + slope * price

    def settle(self, model: nn.Module) -> bool:
        """Lower K, on all ranks alike, where the count is above the budget, and return whether it was."""
        above = int(nonzero_digits(model)) > self.budget
        if above:
            limit_digits(model, self.budget)
            same_digits(model)
        return above

    def facts(self) -> dict[str, Any]:
        """What the next step depends on, as JSON holds it."""
        return {"log_price": self.log_price}

    def restore(self, facts: dict[str, Any]) -> None:
        """Take up what `facts` returned."""
        self.log_price = facts["log_price"]


def _size(gradients: Any) -> float:
    """The sum of the sizes of gradients, where there are any."""
    return sum(gradient.abs().sum().item() for gradient in gradients if isinstance(gradient, Tensor))
