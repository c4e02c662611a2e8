"""Everything that the next step of training depends on, as tensors and as JSON."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qfx.nn import freeze_bn, freeze_formats, param_groups
from qfx.nn.inputs import home
from qfx.nn.ranks import rank
from qfx.train.average import Average, format_names
from qfx.train.budget import Budget
from qfx.train.digit_budget import DigitBudget
from qfx.train.schedule import scheduler
from qfx.train.settings import Settings

Tensors = dict[str, Tensor]


@dataclass
class State:
    """A network in training after ``step`` steps, and the sums of the epoch that it is in."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Any
    average: Average | None
    order: Tensor  # of the generator that shuffles, at the start of the epoch
    freeze_bn_at: int  # the step from which BatchNorm statistics stand still
    freeze_formats_at: int  # and binary points
    digits: DigitBudget | None = None
    step: int = 0
    loss: float = 0.0  # of this rank, over the steps of the epoch so far
    score: float = 0.0  # likewise, of the figure that is logged
    budget: Budget | None = None  # of hardware, which learned widths pay for

    @classmethod
    def start(cls, model: nn.Module, settings: Settings, per_epoch: int) -> "State":
        """Return the state before the first step; torch's random numbers start from the seed."""
        torch.manual_seed(settings.seed + rank())  # augmentation, dropout
        if settings.formats == "frozen":
            freeze_formats(model)
        steps = settings.epochs * per_epoch
        freeze_at = int(steps * (1 - settings.freeze.formats))
        digits = DigitBudget(model, settings.digits, freeze_at) if settings.digits else None
        optimizer = torch.optim.AdamW(param_groups(model, settings.lr, settings.weight_decay, settings.frac_lr, steps))
        return cls(
            model,
            optimizer,
            scheduler(optimizer, settings.schedule, settings.epochs, per_epoch),
            Average(model, settings.ema) if settings.ema else None,
            torch.Generator().manual_seed(settings.seed).get_state(),
            int(steps * (1 - settings.freeze.bn)),
            freeze_at,
            digits,
        )

    def freeze(self) -> bool:
        """Let stand still what is to from this step on, and return whether anything is.

        Binary points stay at their average, if there is one.
        """
        if self.step == self.freeze_bn_at:
            freeze_bn(self.model)
        if self.step == self.freeze_formats_at:
            names = format_names(self.model)
            if self.average:
                self.average.give(self.model, names)
            if self.budget:
                self.budget.settle()
            freeze_formats(self.model)
            self.settle()
            if self.average:
                self.average.take(self.model, names)
        return self.step in (self.freeze_bn_at, self.freeze_formats_at)

    def settle(self) -> None:
        """Keep the budget of digits, if there is one, in frozen formats."""
        if self.digits and self.digits.settle(self.model) and self.average:
            self.average.take(self.model, format_names(self.model))

    def tensors(self) -> Tensors:
        """Model, average and optimizer; names are ``model.<key>``, ``average.<key>``, ``optimizer.<number>.<key>``."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        found |= {f"average.{name}": tensor for name, tensor in (self.average.tensors if self.average else {}).items()}
        slots = self.optimizer.state_dict()["state"]
        found |= {f"optimizer.{number}.{key}": t for number, slot in slots.items() for key, t in slot.items()}
        return found | {"order": self.order}

    def facts(self) -> dict[str, Any]:
        """The rest, as JSON holds it."""
        groups = self.optimizer.state_dict()["param_groups"]
        digits = self.digits.facts() if self.digits else None
        budget = self.budget.facts() if self.budget else None
        schedule = self.schedule.state_dict()
        return {"step": self.step, "groups": groups, "schedule": schedule, "digits": digits, "hardware": budget}

    def restore(self, tensors: Tensors, facts: dict[str, Any]) -> None:
        """Take up a saved state, in the same process of training."""
        parts: dict[str, Tensors] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            if part in parts:
                parts[part][rest] = tensor
        slots: dict[int, Tensors] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, key = name.partition(".")
            slots.setdefault(int(number), {})[key] = tensor
        groups = [{**group, "betas": tuple(group["betas"])} for group in facts["groups"]]
        self.model.load_state_dict(parts["model"], strict=True)
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.schedule.load_state_dict(facts["schedule"])
        if self.average:
            self.average.tensors = {name: parts["average"][name].to(t) for name, t in self.average.tensors.items()}
        if self.budget:
            self.budget.restore(facts["hardware"])
        self.order, self.step = tensors["order"], facts["step"]
        if self.digits:
            self.digits.restore(facts["digits"])
        if self.step > self.freeze_bn_at:
            freeze_bn(self.model)
        if self.step > self.freeze_formats_at:
            freeze_formats(self.model)

    def own(self) -> dict[str, Any]:
        """What each rank has of its own: sums of the epoch, and the random numbers of torch, numpy and Python."""
        kind, keys, *rest = np.random.get_state(legacy=True)
        return {
            "loss": self.loss,
            "score": self.score,
            "random": {"cpu": torch.get_rng_state(), **self._device_random()},
            "numpy": [kind, np.asarray(keys).tolist(), *rest],
            "python": random.getstate(),
        }

    def restore_own(self, own: dict[str, Any]) -> None:
        """Take up what `own` returned."""
        self.loss, self.score = own["loss"], own["score"]
        torch.set_rng_state(own["random"]["cpu"])
        device = home(self.model)
        if device.type in own["random"] and device.type != "cpu":  # else it was trained elsewhere until now
            torch.get_device_module(device).set_rng_state(own["random"][device.type], device)
        kind, keys, *rest = own["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        version, words, following = own["python"]
        random.setstate((version, tuple(words), following))

    def _device_random(self) -> Tensors:
        """The random numbers of the network's device, by its type, where they are not those of the CPU."""
        device = home(self.model)
        return {} if device.type == "cpu" else {device.type: torch.get_device_module(device).get_rng_state(device)}
