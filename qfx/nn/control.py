"""What a training loop does with a fixed-point model: parameter groups, freezing, and the log of moves."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qfx.arguments import require_kind, require_number
from qfx.errors import TrainError
from qfx.nn.affine import BatchNorm2d
from qfx.nn.calibrate import quantizers
from qfx.nn.inputs import require_model
from qfx.nn.learned_width import round_width

_WALK, _WAY = 0.35, 8.0  # bits; see `param_groups`


def param_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    frac_lr: float | None = None,
    steps: int | None = None,
) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups: weights and other parameters; binary points; learned widths and K.

    Formats have no weight decay and rates of their own, in bits a step under Adam: ``frac_lr``, by default 10 times
    ``lr`` and at most 0.02. Where the number of ``steps`` is known, that of binary points is by default the smaller of
    ``0.35 / sqrt(steps)`` and ``8 / steps``. With a cosine, gradients of random signs then leave a binary point within
    some 0.2 bits of its start, and one that keeps its sign takes it four bits away (in 500 steps or more, else
    ``0.17 * sqrt(steps)``), so that a wrong start mends for the most part. A quicker one turns again and again, by a
    factor of two each time, and the weights with it.
    """
    require_model(model)
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("frac_lr", 0.0 if frac_lr is None else frac_lr)):
        require_number(TrainError, name, value)
    if steps is not None:
        require_number(TrainError, "steps", steps, 1)
    found = quantizers(model).values()
    points = [quantizer.frac for quantizer in found]
    sizes = [size for quantizer in found for size in (quantizer.bits, quantizer.k) if size is not None]
    known = {id(parameter) for parameter in (*points, *sizes)}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    quick = min(10 * lr, 0.02) if frac_lr is None else frac_lr
    slow = min(_WALK * steps**-0.5, _WAY / steps) if steps and frac_lr is None else quick
    groups = ((others, lr, weight_decay), (points, slow, 0.0), (sizes, quick, 0.0))
    kept = [([each for each in held if each.requires_grad], rate, decay) for held, rate, decay in groups]
    return [{"params": held, "lr": rate, "weight_decay": decay} for held, rate, decay in kept if held]


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that holds parameters which are not the model's, such as those of the model before convert.

    Raises:
        TrainError: with the number of such parameters, and what to do.
    """
    require_kind(TrainError, "optimizer", optimizer, torch.optim.Optimizer, "an optimizer of torch")
    require_model(model)
    known = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if strange := sum(id(parameter) not in known for parameter in held):
        idle = [n for n, p in model.named_parameters() if p.requires_grad and all(p is not other for other in held)]
        without = f", and {len(idle)} of the model's are not among them ('{idle[0]}', ...)" if idle else ""
        raise TrainError(
            f"the optimizer must hold parameters of the converted model only, but {strange} of its {len(held)} are of "
            f"another{without}: build it after qfx.convert, from qfx.param_groups(model)"
        )


def scale_format_gradients(model: nn.Module, parts: int) -> None:
    """Make the gradients of activations' formats what they are where a batch does not come in ``parts``.

    LSQ's factor counts the values of one part; to be called before the optimizer's step, gradients averaged.
    """
    if parts > 1:
        for quantizer in quantizers(model).values():
            for parameter in quantizer.parameters() if quantizer.axis == 1 else ():
                if parameter.grad is not None:
                    parameter.grad.mul_(parts**-0.5)


def freeze_bn(model: nn.Module, frozen: bool = True) -> None:
    """Let BatchNorm use its running statistics, in training too, and learn them no further."""
    require_model(model)
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.frozen = frozen


@torch.no_grad()
def freeze_formats(model: nn.Module, frozen: bool = True) -> None:
    """Stop learning binary points, widths and K: they stay at the integers they stand for now."""
    require_model(model)
    for quantizer in quantizers(model).values():
        learned = [(quantizer.frac, quantizer.frac_now)] if quantizer.learned else []
        learned += [(quantizer.bits, round_width(quantizer.bits))] if quantizer.bits is not None else []
        learned += [(quantizer.k, quantizer.k_now)] if quantizer.k is not None and quantizer.learns_digits else []
        for parameter, now in learned:
            if frozen:
                parameter.copy_(now)
                parameter.grad = None
            parameter.requires_grad_(not frozen)


@dataclass(frozen=True, slots=True)
class Move:
    """The binary points of one quantizer when it was calibrated, and now: one, or one per channel."""

    before: tuple[int, ...]
    now: tuple[int, ...]

    @property
    def moved(self) -> int:
        """How many of them differ."""
        return sum(a != b for a, b in zip(self.before, self.now, strict=True))


def moves(model: nn.Module) -> dict[str, Move]:
    """Return where the learned binary points of each quantizer were, and where they are."""
    found = {}
    for name, quantizer in quantizers(model).items():
        if quantizer.learned:
            before = quantizer.initial.round().reshape(-1).tolist()
            now = quantizer.frac_now.reshape(-1).tolist()
            found[name] = Move(tuple(int(f) for f in before), tuple(int(f) for f in now))
    return found
