"""Widths without training: the least noise at the outputs that a budget allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.calibrate import Method, calibrate, quantizers
from qfx.nn.choices import BITS, COMPUTE, Choice, choices, require_points
from qfx.nn.convert import convert
from qfx.nn.correct import correct
from qfx.nn.program import Cost, Widths, least_noise
from qfx.nn.quantizer import Spec
from qfx.nn.ranks import gather
from qfx.nn.recipe import POINTS, Recipe
from qfx.nn.sensitivity import Metric, relative_error, sensitivities
from qfx.nn.transposed import ConvTranspose2d

WIDTHS = (2, 3, 4, 5, 6, 8)
COSTS = ("weight_bits", "bit_operations")
_ROUNDS = 20  # plans that are tried for one budget
_MORE = 0.1  # of a budget, by which the estimate of a plan that fits may differ from it
_STEP = 0.01  # of a budget, by which the program may spend more where it finds nothing better

Noise = Mapping[str, Mapping[int, float]]  # of each quantizer, by width


class Hardware(Protocol):
    """What a network takes of a board (`qfx.train.Hardware`)."""

    @property
    def place(self) -> str:
        """The board and the rate, in words."""

    def limits(self, budget: Mapping[str, float]) -> dict[str, int]:
        """Return the budget of every resource as a count, or refuse it."""

    def costs(
        self, model: nn.Module, example: Tensor, limits: Mapping[str, int], choices: Sequence[Choice]
    ) -> dict[str, Cost]:
        """Return what widths cost of each resource: those of ``model`` exactly what the plan says, others about."""


@dataclass(frozen=True)
class Allocation:
    """What `allocate` chose."""

    recipe: dict[str, Any]  # for convert
    widths: dict[str, dict[str, int]]  # by layer and point
    noise: float  # expected at the outputs: the sum of what each choice alone would do
    cost: dict[str, float]
    """weight_bits, of all weights; bit_operations, the sum of MACs x weight bits x activation bits; with ``hardware``
    what the plan takes of lut, ff, bram18, dsp."""
    measured: Noise  # of each choice that was to be made, by width


@dataclass(frozen=True)
class _Layer:
    """A layer with weights, as the integer program sees it."""

    weights: int
    macs: int  # a frame
    weight: Choice
    activation: Choice


def allocate(
    model: nn.Module,
    batches: Iterable[Tensor],
    budget: Mapping[str, float],
    recipe: Mapping[str, Any] | None = None,
    widths: Sequence[int] = WIDTHS,
    metrics: Mapping[str, Metric] | Metric = relative_error,
    hardware: Hardware | None = None,
    looked_at: int | None = None,
    method: Method = "error",
    percentile: float = 99.9,
    points: Sequence[str] = BITS,
    measured: Noise | None = None,
) -> Allocation:
    """Choose the width of each layer at ``points``: the least noise at the outputs within ``budget``.

    The noise of each choice is measured alone, the sum of all is minimised by an integer program (HiGHS). What
    ``recipe`` fixes stays: K-hot constants, binary points, the formats of the network's input and output. Its other
    widths at ``points`` are replaced; where it lets training learn them, learning starts from those chosen. Layers that
    share a format get one width. Where several ranks train together, each brings its own batches, and all get the same
    widths.

    With ``hardware``, the program's costs are the plan's own numbers around the widths of the last plan; the next
    widths are planned in turn, until the program finds nothing better. The network of the result, calibrated and
    corrected on ``batches``, was planned, and is within the budget.

    Args:
        model: a float network.
        batches: inputs for calibration, (N, ...) each; they are kept in memory.
        budget: the most ``weight_bits`` (of all weights together), ``bit_operations`` (MACs a frame x weight bits x
            activation bits), and with ``hardware`` ``lut``, ``ff``, ``bram18``, ``dsp`` (as `qfx.plan.limits` takes
            them); any of them together.
        widths: to choose from.
        metrics: see `sensitivities`.
        hardware: the board and the rate at which the network is planned: ``qfx.train.Hardware(board, cycles)``.
        looked_at: inputs on which the noise is measured, the first of ``batches``, and which stand for all where only a
            plan is looked for; None: all.
        method, percentile: of the calibration, as for `calibrate`.
        points: of ``weight``, ``activation``, and with ``hardware``, which alone counts them, ``elementwise`` (results
            of BatchNorm, sums, pooling, tables) and ``constant`` (of BatchNorm, slopes).
        measured: the noise that an allocation of this network within another budget has measured; None: measure it.

    Raises:
        TrainError: the budget or the points name something else, the smallest widths exceed the budget, or ``measured``
            is of other choices.

    Source: MixDQ (Zhao et al., 2024), section 4.
    """
    task = _Task(model, list(batches), budget, recipe, widths, hardware, method, percentile, points)
    least = task.require_possible()
    looked = _first(task.inputs, looked_at)
    noise = task.noise(metrics, looked) if measured is None else task.known(measured)
    chosen, cost = task.planned(noise, looked, least) if hardware else (task.solved(noise), {})
    return Allocation(
        task.recipe(chosen),
        task.by_layer(chosen),
        _total(noise, chosen),
        {**{name: task.bits[name].of(chosen) for name in COSTS}, **cost},
        noise,
    )


def require_possible(
    model: nn.Module,
    batches: Iterable[Tensor],
    budget: Mapping[str, float],
    recipe: Mapping[str, Any] | None,
    widths: Sequence[int],
    hardware: Hardware | None,
    points: Sequence[str],
) -> None:
    """Refuse what `allocate` would refuse, as far as can be known before noise is measured."""
    _Task(model, list(batches), budget, recipe, widths, hardware, points=points).require_possible()


class _Task:
    """A network whose widths are to be chosen: its choices, and what they may cost."""

    def __init__(
        self,
        model: nn.Module,
        inputs: list[Tensor],
        budget: Mapping[str, float],
        recipe: Mapping[str, Any] | None,
        widths: Sequence[int],
        hardware: Hardware | None,
        method: Method = "error",
        percentile: float = 99.9,
        points: Sequence[str] = BITS,
    ) -> None:
        widths = tuple(widths)
        if not widths or not all(isinstance(width, int) and 1 <= width <= 16 for width in widths):
            raise TrainError(f"widths must be integers in 1..16, not {widths}")
        require_points(points, hardware is not None)
        self.model, self.inputs, self.base, self.hardware = model, inputs, recipe, hardware
        self.budget, self.most = _checked(budget, hardware)
        self.method, self.percentile = method, percentile
        self.fixed = self._calibrated(recipe)
        self.choices = choices(self.fixed, recipe, points, sorted(set(widths)))
        self.free = [choice for choice in self.choices if choice.free]
        self.bits = {name: _cost(_layers(self.fixed, inputs[0][:1], self.choices), name) for name in COSTS}

    @property
    def smallest(self) -> dict[str, int]:
        """The smallest width of each choice."""
        return {choice.name: choice.widths[0] for choice in self.choices}

    def noise(self, metrics: Mapping[str, Metric] | Metric, looked: Sequence[Tensor]) -> Noise:
        """The noise of each choice that is to be made, by width: the mean of all ranks."""
        groups = {choice.name: choice.quantizers for choice in self.free}
        widths = {choice.name: choice.widths for choice in self.free}
        every = gather(sensitivities(self.fixed, groups, widths, looked, metrics))
        return {name: {w: sum(each[name][w] for each in every) / len(every) for w in widths[name]} for name in groups}

    def known(self, measured: Noise) -> Noise:
        """The noise that was measured before, of the choices that are to be made now."""
        if missing := [c.name for c in self.free if not set(c.widths) <= set(measured.get(c.name, ()))]:
            raise TrainError(
                f"measured must have the noise of '{missing[0]}' at each width to choose from: it must come from an "
                "allocation of this network with this recipe, these widths and points"
            )
        return {choice.name: {w: measured[choice.name][w] for w in choice.widths} for choice in self.free}

    def solved(
        self, noise: Noise, more: Sequence[tuple[Cost, float]] = (), wide: Sequence[Widths] = ()
    ) -> dict[str, int]:
        """The widths of least noise within the budget of bits, and within ``more``; the smallest if there are none."""
        limits = [(self.bits[name], most) for name, most in self.budget.items()]
        widths = {choice.name: choice.widths for choice in self.choices}
        return least_noise(widths, noise, [*limits, *more], wide) or self.smallest

    def planned(
        self, noise: Noise, looked: Sequence[Tensor], least: dict[str, float]
    ) -> tuple[dict[str, int], dict[str, float]]:
        """The widths of least noise whose plan is within the budget, and what the plan takes.

        Plan what the program finds, and let it look on from there, until it finds nothing better. Its costs are
        estimates: what a plan took beyond the last one is left out of what the next may spend, and what it took less
        is added. What does not fit is cut off, too: something must be narrower than it is there. Plans are of the
        network corrected on ``looked``; those that fit are planned again as the network will be.
        """
        some = any(gather(sum(map(len, looked)) < sum(map(len, self.inputs))))
        best, needs, costs = self.smallest, least, self._costs(self.smallest, looked)
        tried, wide, aims = [best], list[Widths](), {name: float(most) for name, most in self.most.items()}
        while len(tried) < _ROUNDS:
            chosen = self.solved(noise, [(cost, aims[name]) for name, cost in costs.items()], wide)
            if chosen in tried or _total(noise, chosen) >= _total(noise, best):
                if all(aims[name] >= most * (1 + _MORE) for name, most in self.most.items()):
                    break
                aims = {name: min(aims[name] + most * _STEP, most * (1 + _MORE)) for name, most in self.most.items()}
                continue
            tried.append(chosen)
            guessed = _of(costs, chosen)
            costs = self._costs(chosen, looked)
            reached = _of(costs, chosen)
            if some and self._within(reached):
                reached = _of(self._costs(chosen, self.inputs), chosen)
            if self._within(reached):
                best, needs = chosen, reached
            else:
                wide.append(chosen)
            aims = {name: _aim(most, reached[name] - guessed[name]) for name, most in self.most.items()}
        return best, needs

    def _within(self, reached: Mapping[str, float]) -> bool:
        return all(reached[name] <= most for name, most in self.most.items())

    def require_possible(self) -> dict[str, float]:
        """Refuse a budget that the smallest widths exceed; return what they take of a board."""
        smallest = self.smallest
        self._require_within({name: self.bits[name].of(smallest) for name in self.budget}, self.budget)
        needs = _of(self._costs(smallest, self.inputs), smallest)
        self._require_within(needs, self.most)
        return needs

    def _require_within(self, needs: Mapping[str, float], most: Mapping[str, float]) -> None:
        over = {name: need for name, need in needs.items() if need > most[name]}
        if not over:
            return
        said = ", ".join(f"{need:,.0f} of {most[name]:,.0f} {name}" for name, need in over.items())
        where = f" on {self.hardware.place}" if self.hardware and most is self.most else ""
        least = min((choice.widths[0] for choice in self.free), default=0)
        raise TrainError(
            f"budget must allow the smallest widths, {least} bits wherever they are chosen, which need {said}{where}: "
            "allow more, or give smaller widths to choose from"
        )

    def _costs(self, chosen: Widths, inputs: Sequence[Tensor]) -> dict[str, Cost]:
        """What the board says of the network with these widths, corrected on ``inputs``, and of others near it."""
        if self.hardware is None:
            return {}
        network = correct(self._calibrated(self.recipe(chosen)), inputs)
        return self.hardware.costs(network, self.inputs[0][:1], self.most, self.choices)

    def _calibrated(self, recipe: Mapping[str, Any] | None) -> nn.Module:
        example = self.inputs[0] if self.inputs else None
        return calibrate(convert(self.model, recipe, example).eval(), self.inputs, self.method, self.percentile)

    def by_layer(self, chosen: Widths) -> dict[str, dict[str, int]]:
        """The width at each point of each layer, those that are not free too."""
        found: dict[str, dict[str, int]] = {}
        for choice in self.choices:
            for path, point in choice.places:
                found.setdefault(path, {})[point] = chosen[choice.name]
        return found

    def recipe(self, chosen: Widths) -> dict[str, Any]:
        """The recipe with the chosen widths, each layer by its own path, behind all patterns."""
        given = Recipe(self.base)
        content = {key: dict(value) for key, value in (self.base or {}).items()}
        patterns = content.setdefault("layers", {})
        own: dict[str, dict[str, Any]] = {}
        for choice in self.free:
            for path, point in choice.places:
                spec = _spec(given.spec(path, point), POINTS[point], chosen[choice.name])
                own.setdefault(path, _taken(patterns, path))[point] = spec
        patterns |= own
        return content


def _taken(patterns: dict[str, Any], path: str) -> dict[str, Any]:
    """Take out the pattern ``path``; return what no later one that matches overrides."""
    later = list(patterns)[list(patterns).index(path) + 1 :] if path in patterns else []
    others = {point for pattern in later if fnmatchcase(path, pattern) for point in patterns[pattern]}
    return {point: spec for point, spec in patterns.pop(path, {}).items() if point not in others}


def _checked(budget: Mapping[str, float], hardware: Hardware | None) -> tuple[dict[str, float], dict[str, int]]:
    """A budget as what it says of bits, and what it says of a board."""
    bits = {name: most for name, most in budget.items() if name in COSTS}
    others = {name: most for name, most in budget.items() if name not in COSTS}
    if not budget or (others and hardware is None) or (bits and min(bits.values()) <= 0):
        of_board = ": what a board has comes with hardware=qfx.train.Hardware(board, cycles)" if others else ""
        raise TrainError(f"budget must give numbers above 0 for {' or '.join(COSTS)}, not {dict(budget)}{of_board}")
    return bits, hardware.limits(others) if hardware else {}


def _first(inputs: Sequence[Tensor], count: int | None) -> list[Tensor]:
    """The first ``count`` inputs, in batches."""
    if count is None:
        return list(inputs)
    found, left = [], count
    for batch in inputs:
        if left > 0:
            found.append(batch[:left])
        left -= len(batch)
    return found


def _aim(most: int, beyond: float) -> float:
    """What an estimate may say of a budget, where the last plan took ``beyond`` more of it than was estimated."""
    return most - max(-_MORE * most, min(beyond, _MORE * most))


def _of(costs: Mapping[str, Cost], chosen: Widths) -> dict[str, float]:
    return {name: cost.of(chosen) for name, cost in costs.items()}


def _total(noise: Noise, chosen: Widths) -> float:
    return sum(by[chosen[name]] for name, by in noise.items())


@torch.no_grad()
def _layers(model: nn.Module, example: Tensor, given: Sequence[Choice]) -> list[_Layer]:
    """The layers with weights, in the order of the forward."""
    known = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    of = {name: choice for choice in given for name in choice.quantizers}
    found: list[_Layer] = []

    def note(layer: nn.Module, read: Tensor, result: Tensor) -> None:
        # Each result of a convolution, and each input of a transposed one, meets the kernel once.
        places = read if isinstance(layer, ConvTranspose2d) else result
        macs = places[0].numel() * layer.weight[0].numel()
        weight, activation = (of[known[id(each)]] for each in (layer.weight_quant, layer.input_quant))
        found.append(_Layer(layer.weight.numel(), macs, weight, activation))

    hooks = [
        layer.register_forward_hook(lambda module, read, result: note(module, read[0], result))
        for layer in model.modules()
        if isinstance(layer, COMPUTE)
    ]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _cost(layers: Sequence[_Layer], name: str) -> Cost:
    """The weight bits or the bit operations of all layers."""
    single: dict[str, dict[int, float]] = {}
    pairs: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for layer in layers:
        weight, activation = layer.weight, layer.activation
        if name == "weight_bits":
            costs = single.setdefault(weight.name, dict.fromkeys(weight.widths, 0.0))
            for w in weight.widths:
                costs[w] += layer.weights * w
        else:
            every = product(weight.widths, activation.widths)
            both = pairs.setdefault((weight.name, activation.name), dict.fromkeys(every, 0.0))
            for w, a in both:
                both[w, a] += layer.macs * w * a
    return Cost(single=single, pairs=pairs)


def _spec(spec: Spec, usual: Spec, width: int) -> dict[str, Any]:
    """A width, and what else is not usual for its point, as a recipe says it."""
    found: dict[str, Any] = {"width": width}
    if spec.signed != usual.signed:
        found["signed"] = spec.signed
    if spec.rounding != usual.rounding:
        found["rounding"] = str(spec.rounding)
    if spec.overflow != usual.overflow:
        found["overflow"] = str(spec.overflow)
    if spec.per_channel != usual.per_channel:
        found["granularity"] = "channel" if spec.per_channel else "tensor"
    if spec.learn_width:
        found["learn_width"] = True
    return found
