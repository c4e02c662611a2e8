"""Widths for each layer without training: the least noise at the outputs that a budget allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.calibrate import Method, calibrate, quantizers
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.convert import convert
from qfx.nn.correct import correct
from qfx.nn.deform import DeformConv2d
from qfx.nn.program import Cost, Widths, least_noise
from qfx.nn.quantizer import Quantizer, Spec
from qfx.nn.ranks import gather
from qfx.nn.recipe import POINTS
from qfx.nn.sensitivity import Metric, relative_error, sensitivities
from qfx.nn.transposed import ConvTranspose2d

WIDTHS = (2, 3, 4, 5, 6, 8)
COSTS = ("weight_bits", "bit_operations")
_ROUNDS = 20  # plans that are tried for one budget
_MORE = 0.1  # of a budget, by which the estimate of a plan that fits may exceed it

Noise = Mapping[str, Mapping[int, float]]  # of each quantizer, by width


class Hardware(Protocol):
    """What a network takes of a board (`qfx.train.Hardware`)."""

    @property
    def place(self) -> str:
        """The board and the rate, in words."""

    def limits(self, budget: Mapping[str, float]) -> dict[str, int]:
        """Return the budget of every resource as a count, or refuse it."""

    def costs(
        self, model: nn.Module, example: Tensor, limits: Mapping[str, int], choices: Mapping[str, Sequence[int]]
    ) -> dict[str, Cost]:
        """Return what widths cost of each resource: those of ``model`` exactly what the plan says, others about."""


@dataclass(frozen=True)
class Allocation:
    """What `allocate` chose."""

    recipe: dict[str, Any]  # for convert
    widths: dict[str, tuple[int, int]]  # weight and activation by layer
    noise: float  # expected at the outputs: the sum of what each quantizer alone would do
    cost: dict[str, float]
    """weight_bits, of all weights; bit_operations, the sum of MACs x weight bits x activation bits; with ``hardware``
    what the plan takes of lut, ff, bram18, dsp."""


@dataclass(frozen=True)
class _Layer:
    """A layer with weights, as the integer program sees it."""

    path: str
    weights: int
    macs: int  # a frame
    weight: tuple[str, tuple[int, ...]]  # its quantizer, and the widths to choose from
    activation: tuple[str, tuple[int, ...]]


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
) -> Allocation:
    """Choose the width of each layer's weights and input: the least noise at the outputs within ``budget``.

    Each quantizer's noise is measured alone, the sum of all is minimised by an integer program (HiGHS). What ``recipe``
    fixes stays: K-hot constants, binary points, an input that the host sends. Its other widths are replaced; where it
    lets training learn them, learning starts from those chosen. Where several ranks train together, each brings its own
    batches, and all get the same widths.

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
        looked_at: inputs on which the noise is measured, the first of ``batches``; None: all.
        method, percentile: of the calibration, as for `calibrate`.

    Raises:
        TrainError: the budget names something else, or the smallest widths exceed it.

    Source: MixDQ (Zhao et al., 2024), section 4.
    """
    task = _Task(model, list(batches), budget, recipe, tuple(widths), hardware, method, percentile)
    task.require_possible()
    noise = task.noise(metrics, looked_at)
    chosen, cost = task.planned(noise) if hardware else (task.solved(noise), {})
    return Allocation(
        task.recipe(chosen),
        {layer.path: (chosen[layer.weight[0]], chosen[layer.activation[0]]) for layer in task.layers},
        _total(noise, chosen),
        {**{name: task.bits[name].of(chosen) for name in COSTS}, **cost},
    )


def require_possible(
    model: nn.Module,
    batches: Iterable[Tensor],
    budget: Mapping[str, float],
    recipe: Mapping[str, Any] | None,
    widths: Sequence[int],
    hardware: Hardware | None,
) -> None:
    """Refuse what `allocate` would refuse, as far as can be known before noise is measured."""
    _Task(model, list(batches), budget, recipe, tuple(widths), hardware).require_possible()


class _Task:
    """A network whose widths are to be chosen: its layers, their choices, and what they may cost."""

    def __init__(
        self,
        model: nn.Module,
        inputs: list[Tensor],
        budget: Mapping[str, float],
        recipe: Mapping[str, Any] | None,
        widths: tuple[int, ...],
        hardware: Hardware | None,
        method: Method = "error",
        percentile: float = 99.9,
    ) -> None:
        if not widths or not all(isinstance(width, int) and 1 <= width <= 16 for width in widths):
            raise TrainError(f"widths must be integers in 1..16, not {widths}")
        self.model, self.inputs, self.base, self.hardware = model, inputs, recipe, hardware
        self.budget, self.most = _checked(budget, hardware)
        self.method, self.percentile = method, percentile
        self.fixed = self._calibrated(recipe)
        self.layers = _layers(self.fixed, inputs[0][:1], tuple(sorted(set(widths))))
        self.choices = dict(choice for layer in self.layers for choice in (layer.weight, layer.activation))
        known = quantizers(self.fixed)
        self.free = tuple(name for name in self.choices if _is_free(name, known[name]))
        self.bits = {name: _cost(self.layers, name) for name in COSTS}

    @property
    def smallest(self) -> dict[str, int]:
        """The smallest width of each quantizer."""
        return {name: given[0] for name, given in self.choices.items()}

    def noise(self, metrics: Mapping[str, Metric] | Metric, looked_at: int | None) -> Noise:
        """The noise of each quantizer that has a choice, by width: the mean of all ranks."""
        widths = sorted({width for name in self.free for width in self.choices[name]})
        looked = _first(self.inputs, looked_at)
        every = gather(sensitivities(self.fixed, self.free, widths, looked, metrics))
        return {name: {w: sum(each[name][w] for each in every) / len(every) for w in widths} for name in self.free}

    def solved(
        self, noise: Noise, more: Sequence[tuple[Cost, float]] = (), wide: Sequence[Widths] = ()
    ) -> dict[str, int]:
        """The widths of least noise within the budget of bits, and within ``more``; the smallest if there are none."""
        limits = [(self.bits[name], most) for name, most in self.budget.items()]
        return least_noise(self.choices, noise, [*limits, *more], wide) or self.smallest

    def planned(self, noise: Noise) -> tuple[dict[str, int], dict[str, float]]:
        """The widths of least noise whose plan is within the budget, and what the plan takes.

        Plan what the program finds, and let it look on from there, until it finds nothing better. What does not fit is
        cut off: something must be narrower than it is there. In the end the program may spend a little more than there
        is, since its costs are estimates; less and less each time.
        """
        best = chosen = self.smallest
        needs: dict[str, float] = {}
        tried: list[Widths] = []
        wide: list[Widths] = []
        more = _MORE
        while len(tried) < _ROUNDS:
            costs = self._costs(chosen)
            reached = {name: cost.of(chosen) for name, cost in costs.items()}
            if any(reached[name] > most for name, most in self.most.items()):
                wide.append(chosen)
            elif not needs or _total(noise, chosen) < _total(noise, best):
                best, needs = chosen, reached
            tried.append(chosen)
            for share in (0.0, more):
                limits = [(cost, self.most[name] * (1 + share)) for name, cost in costs.items()]
                chosen = self.solved(noise, limits, wide)
                if chosen not in tried and _total(noise, chosen) < _total(noise, best):
                    more = more / 2 if share else more
                    break
            else:
                break
        return best, needs

    def require_possible(self) -> None:
        """Refuse a budget that the smallest widths exceed."""
        smallest = self.smallest
        self._require_within({name: self.bits[name].of(smallest) for name in self.budget}, self.budget)
        self._require_within({name: cost.of(smallest) for name, cost in self._costs(smallest).items()}, self.most)

    def _require_within(self, needs: Mapping[str, float], most: Mapping[str, float]) -> None:
        over = {name: need for name, need in needs.items() if need > most[name]}
        if not over:
            return
        said = ", ".join(f"{need:,.0f} of {most[name]:,.0f} {name}" for name, need in over.items())
        where = f" on {self.hardware.place}" if self.hardware and most is self.most else ""
        least = min((self.choices[name][0] for name in self.free), default=0)
        raise TrainError(
            f"budget must allow the smallest widths, {least} bits wherever they are chosen, which need {said}{where}: "
            "allow more, or give smaller widths to choose from"
        )

    def _costs(self, chosen: Widths) -> dict[str, Cost]:
        """What the board says of the network with these widths, as it will be, and of others near it."""
        if self.hardware is None:
            return {}
        network = correct(self._calibrated(self.recipe(chosen)), self.inputs)
        return self.hardware.costs(network, self.inputs[0][:1], self.most, self.choices)

    def _calibrated(self, recipe: Mapping[str, Any] | None) -> nn.Module:
        example = self.inputs[0] if self.inputs else None
        return calibrate(convert(self.model, recipe, example).eval(), self.inputs, self.method, self.percentile)

    def recipe(self, chosen: Widths) -> dict[str, Any]:
        """The recipe with the chosen widths, each layer by its own path, behind all patterns."""
        known = quantizers(self.fixed)
        content = {key: dict(value) for key, value in (self.base or {}).items()}
        patterns = content.setdefault("layers", {})
        for layer in self.layers:
            own = patterns.pop(layer.path, {})
            for point, (name, _) in (("weight", layer.weight), ("activation", layer.activation)):
                inner = layer.path.startswith(f"{name.rpartition('.')[0]}.")  # it takes its parent's quantizer
                if name in self.free and not inner:
                    own = {**own, point: _spec(known[name].spec, POINTS[point], chosen[name])}
            if own:
                patterns[layer.path] = own
        return content


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


def _total(noise: Noise, chosen: Widths) -> float:
    return sum(by[chosen[name]] for name, by in noise.items())


@torch.no_grad()
def _layers(model: nn.Module, example: Tensor, widths: tuple[int, ...]) -> list[_Layer]:
    """The layers with weights, in the order of the model."""
    known = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    found: list[_Layer] = []

    def note(path: str, layer: nn.Module, given: Tensor, result: Tensor) -> None:
        choices = []
        for quantizer in (layer.weight_quant, layer.input_quant):
            name = known[id(quantizer)]
            choices.append((name, widths if _is_free(name, quantizer) else (quantizer.width,)))
        # Each result of a convolution, and each input of a transposed one, meets the kernel once.
        places = given if isinstance(layer, ConvTranspose2d) else result
        macs = places[0].numel() * layer.weight[0].numel()
        found.append(_Layer(path, layer.weight.numel(), macs, choices[0], choices[1]))

    hooks = [
        layer.register_forward_hook(lambda module, given, result, path=path: note(path, module, given[0], result))
        for path, layer in model.named_modules()
        if isinstance(layer, Conv2d | ConvTranspose2d | Linear | DeformConv2d)
    ]
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _is_free(name: str, quantizer: Quantizer) -> bool:
    """Whether the width of a quantizer is to be chosen."""
    return quantizer.learned and not quantizer.spec.digits and name != "input"


def _cost(layers: Sequence[_Layer], name: str) -> Cost:
    """The weight bits or the bit operations of all layers."""
    single: dict[str, dict[int, float]] = {}
    pairs: dict[tuple[str, str], dict[tuple[int, int], float]] = {}
    for layer in layers:
        (weight, widths), (activation, others) = layer.weight, layer.activation
        if name == "weight_bits":
            costs = single.setdefault(weight, dict.fromkeys(widths, 0.0))
            for w in widths:
                costs[w] += layer.weights * w
        else:
            both = pairs.setdefault((weight, activation), dict.fromkeys(product(widths, others), 0.0))
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
