"""An optimizer that was built before convert: it would train nothing, and is refused at its first step."""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

from qfx.errors import TrainError

_converted = WeakTensorKeyDictionary()  # parameters of float models of which convert has made a copy


def remember(model: nn.Module) -> None:
    """Note the parameters of a float model that is converted: fixed-point training leaves them without gradients."""
    _watch()
    for parameter in model.parameters():
        _converted[parameter] = True


@cache
def _watch() -> None:
    register_optimizer_step_pre_hook(_refuse_idle)


def _refuse_idle(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Refuse a step of an optimizer all of whose parameters are those of float models, and have no gradient."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if held and all(parameter.grad is None and parameter in _converted for parameter in held):
        raise TrainError(
            f"the optimizer must hold parameters of the converted model, but all its {len(held)} are of the model "
            "before qfx.convert and have no gradient: build it after qfx.convert, from qfx.param_groups(model)"
        )
