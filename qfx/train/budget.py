"""Training within a hardware budget: where learned widths and K start, what they pay, that they end within it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from qfx.arguments import counted
from qfx.errors import TrainError
from qfx.nn import calibrate, correct
from qfx.nn.ranks import gather
from qfx.nn.sensitivity import sensitivities
from qfx.plan.limits import RESOURCES, excess
from qfx.train.cost import HardwareCost
from qfx.train.sizes import hold, learned_sizes, least, restore, size_now, state
from qfx.train.together import same_digits

_REFRESHES = 50  # of the estimate in a training, at most
_PACE = 8.0  # what a price gains in a whole training in which its resource is exceeded by as much as the budget
_TOGETHER = 8  # one in so many quantizers is narrowed between two plans

Noise = Mapping[str, Mapping[int, float]]  # what a quantizer alone does to the outputs, by its path and its width or K


@dataclass
class Budget:
    """The price of hardware in a loss: an augmented Lagrangian of what learned sizes exceed a budget by.

    ``sum over r of prices[r] * g[r] + max(0, g[r])**2 / 2``, ``g[r] = cost[r] / budget[r] - 1``, for each resource. A
    price grows in each step by what its resource exceeds the budget, and falls, not below 0, by what is free.

    Source: Hestenes (1969), multiplier and gradient methods.
    """

    cost: HardwareCost  # with the budget
    steps: int  # of the training
    noise: Noise
    prices: dict[str, float] = field(default_factory=lambda: dict.fromkeys(RESOURCES, 0.0))
    refreshed: int = 0  # the step before which the cost was last refreshed

    def charge(self) -> None:
        """Add the price's gradient to those of learned widths and K."""
        price = self.price()
        if price.requires_grad:
            price.backward()

    def price(self) -> Tensor:
        """Return what widths and K cost now, in units of the loss."""
        found = self.cost()
        total = torch.zeros((), dtype=torch.float64)
        for name, price in self.prices.items():
            over = found[name] / self._most(name) - 1
            total = total + price * over + over.clamp(min=0) ** 2 / 2
        return total

    @torch.no_grad()
    def step(self, number: int) -> None:
        """Hold widths within their range, and let prices follow, after step ``number`` of the optimizer."""
        for quantizer in learned_sizes(self.cost.model).values():
            if quantizer.bits is not None:
                quantizer.bits.clamp_(min=least(quantizer))
        if self.cost.stale and number - self.refreshed >= self.steps / _REFRESHES:
            self.cost.refresh()
            self.refreshed = number
        found = self.cost()
        for name, price in self.prices.items():
            over = found[name].item() / self._most(name) - 1
            self.prices[name] = max(0.0, price + over * _PACE / self.steps)

    @torch.no_grad()
    def settle(self) -> None:
        """Lower widths and K, ranges unchanged, until the plan fits: first what disturbs least for what it saves."""
        while over := self._over():
            known = learned_sizes(self.cost.model)
            free = (name for name, quantizer in known.items() if size_now(quantizer) > least(quantizer))
            ranked = sorted(free, key=lambda name: self._worth(name, over))
            if not ranked:
                raise impossible(self.cost)
            for name in ranked[-max(1, len(known) // _TOGETHER) :]:
                hold(self.cost.model, name, size_now(known[name]) - 1)
                if not any(self.cost()[resource] > self._most(resource) for resource in over):
                    break
            same_digits(self.cost.model)

    def _over(self) -> dict[str, str]:
        self.cost.refresh()
        return excess(_resources(self.cost), self.cost.budget)

    def _worth(self, name: str, over: Mapping[str, str]) -> float:
        """What a bit or a digit less saves of what is exceeded, for the noise that it adds."""
        size, noise = size_now(learned_sizes(self.cost.model)[name]), self.noise[name]
        slopes = self.cost.local.slopes
        saved = sum(slopes[resource].get(name, 0.0) / self._most(resource) for resource in over)
        return saved / max(noise.get(size - 1, 0.0) - noise.get(size, 0.0), 1e-12)

    def _most(self, name: str) -> int:
        return max(int(getattr(self.cost.budget, name)), 1)

    @property
    def asked(self) -> dict[str, Any]:
        """The board, the rate and the limits: what makes it another training."""
        return {"board": self.cost.board.name, "cycles": self.cost.cycles, **asdict(self.cost.budget)}

    def facts(self) -> dict[str, Any]:
        """What a checkpoint must hold for training to go on in the same bits."""
        return {"prices": self.prices, "refreshed": self.refreshed, "local": asdict(self.cost.local)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Take up what `facts` returned."""
        self.prices, self.refreshed = dict(facts["prices"]), int(facts["refreshed"])
        self.cost.local = type(self.cost.local)(**facts["local"])


def reached(cost: HardwareCost) -> dict[str, Any]:
    """Return what the plan of the model as it is takes, beside the budget."""
    cost.refresh()
    needed = _resources(cost)
    return {
        "asked": {**asdict(cost.budget), "cycles": cost.cycles},
        "reached": {**asdict(needed), "cycles": int(cost.local.values["cycles"])},
        "fits": not excess(needed, cost.budget),
    }


def start(cost: HardwareCost, batches: Iterable[Tensor], steps: int) -> Budget:
    """Lower a calibrated model's learned widths and K until it fits, calibrate it again, and return the prices.

    The noise of each quantizer at each width, or K, is measured as `qfx.allocate` does it.

    Raises:
        TrainError: no width and no K is learned, or the smallest do not fit.
    """
    require_possible(cost)
    model, inputs = cost.model, list(batches)
    sizes = {name: tuple(range(least(q), size_now(q) + 1)) for name, q in learned_sizes(model).items()}
    every = gather(sensitivities(model, tuple(sizes), sizes, inputs))
    noise = {name: {s: sum(each[name][s] for each in every) / len(every) for s in sizes[name]} for name in sizes}
    budget = Budget(cost, steps, noise)
    budget.settle()
    correct(calibrate(model, inputs), inputs)
    budget.settle()
    return budget


@torch.no_grad()
def require_possible(cost: HardwareCost) -> None:
    """Refuse a budget that the model exceeds at the smallest widths and K, and a model that learns none."""
    known = learned_sizes(cost.model)
    if not known:
        raise TrainError(
            "a budget must have widths to choose, but the recipe states all of them: give its points learn_width: "
            "true, or K-hot weights digits with learn: true, or let training.allocate choose widths"
        )
    before = {name: state(quantizer) for name, quantizer in known.items()}
    for name, quantizer in known.items():
        hold(cost.model, name, least(quantizer))
    try:
        cost.refresh()
        if excess(_resources(cost), cost.budget):
            raise impossible(cost)
    finally:
        for name, quantizer in known.items():
            restore(quantizer, before[name])
    cost.refresh()


def impossible(cost: HardwareCost) -> TrainError:
    """The error that the smallest widths exceed a budget."""
    over = ", ".join(excess(_resources(cost), cost.budget).values())
    at = f" at {counted(cost.cycles, 'cycle')} a frame" if cost.cycles is not None else ""
    return TrainError(
        f"a budget must allow the smallest widths, 2 bits (of K-hot constants one digit) wherever they are learned, "
        f"which need {over} on {cost.board.name}{at}: allow more, or more cycles a frame, or let more widths be learned"
    )


def _resources(cost: HardwareCost) -> Any:
    return type(cost.budget)(**{name: int(cost.local.values[name]) for name in RESOURCES})
