"""Widths for each layer without training: the least noise at the outputs that a budget allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.calibrate import calibrate, quantizers
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.convert import convert
from qfx.nn.deform import DeformConv2d
from qfx.nn.quantizer import Quantizer, Spec
from qfx.nn.recipe import POINTS
from qfx.nn.sensitivity import Metric, relative_error, sensitivities
from qfx.nn.transposed import ConvTranspose2d

WIDTHS = (2, 3, 4, 5, 6, 8)
COSTS = ("weight_bits", "bit_operations")


@dataclass(frozen=True)
class Allocation:
    """What `allocate` chose."""

    recipe: dict[str, Any]  # for convert
    widths: dict[str, tuple[int, int]]  # weight and activation by layer
    noise: float  # expected at the outputs: the sum of what each quantizer alone would do
    cost: dict[str, float]  # weight_bits: of all weights; bit_operations: sum of MACs x weight bits x activation bits


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
) -> Allocation:
    """Choose the width of each layer's weights and input: the least noise at the outputs within ``budget``.

    Each quantizer's noise is measured alone, the sum of all is minimised by an integer program (HiGHS). What ``recipe``
    fixes stays: K-hot constants, binary points, an input that the host sends. Its other widths are replaced.

    Args:
        model: a float network.
        batches: inputs for calibration, (N, ...) each; they are kept in memory.
        budget: the most ``weight_bits`` (of all weights together), ``bit_operations`` (MACs a frame x weight bits x
            activation bits), or both.
        widths: to choose from.
        metrics: see `sensitivities`.

    Raises:
        TrainError: the budget names something else, or the smallest widths exceed it.

    Source: MixDQ (Zhao et al., 2024), section 4.
    """
    inputs = list(batches)
    if not budget or not set(budget) <= set(COSTS) or min(budget.values()) <= 0:
        raise TrainError(f"budget must give numbers above 0 for {' or '.join(COSTS)}, not {dict(budget)}")
    if not widths or not all(1 <= width <= 16 for width in widths):
        raise TrainError(f"widths must be integers in 1..16, not {tuple(widths)}")
    fixed = convert(model, recipe, inputs[0] if inputs else None).eval()
    calibrate(fixed, inputs)
    layers = _layers(fixed, inputs[0][:1], tuple(sorted(widths)))
    asked = dict.fromkeys(
        name for layer in layers for name, given in (layer.weight, layer.activation) if len(given) > 1
    )
    noise = sensitivities(fixed, tuple(asked), widths, inputs, metrics)
    chosen = _solve(layers, noise, budget)
    return Allocation(
        _recipe(recipe, layers, chosen, quantizers(fixed)),
        {layer.path: (chosen[layer.weight[0]], chosen[layer.activation[0]]) for layer in layers},
        sum(noise[name][width] for name, width in chosen.items() if name in noise),
        {name: sum(_cost(layer, chosen, name) for layer in layers) for name in COSTS},
    )


@torch.no_grad()
def _layers(model: nn.Module, example: Tensor, widths: tuple[int, ...]) -> list[_Layer]:
    """The layers with weights, in the order of the model."""
    known = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    found: list[_Layer] = []

    def note(path: str, layer: nn.Module, given: Tensor, result: Tensor) -> None:
        choices = []
        for quantizer in (layer.weight_quant, layer.input_quant):
            spec, name = quantizer.spec, known[id(quantizer)]
            free = quantizer.learned and not spec.digits and not spec.learn_width and name != "input"
            choices.append((name, widths if free else (quantizer.width,)))
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


def _cost(layer: _Layer, chosen: Mapping[str, int], name: str) -> float:
    weight, activation = chosen[layer.weight[0]], chosen[layer.activation[0]]
    return layer.weights * weight if name == "weight_bits" else layer.macs * weight * activation


def _solve(
    layers: Sequence[_Layer], noise: Mapping[str, Mapping[int, float]], budget: Mapping[str, float]
) -> dict[str, int]:
    """Choose a width for every quantizer: least noise, costs within the budget.

    Binary variables: one for each width of each quantizer, and one for each pair of widths of each layer, which holds
    the layer to the widths of its two quantizers and carries its cost.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and used here alone

    points = dict(choice for layer in layers for choice in (layer.weight, layer.activation))
    single = [(name, width) for name, given in points.items() for width in given]
    pairs = [(n, pair) for n, layer in enumerate(layers) for pair in product(layer.weight[1], layer.activation[1])]
    column = {key: number for number, key in enumerate([*single, *pairs])}
    rows, low, high = [], [], []

    def constrain(terms: Mapping[Any, float], least: float, most: float) -> None:
        row = np.zeros(len(column))
        for key, factor in terms.items():
            row[column[key]] = factor
        rows.append(row)
        low.append(least)
        high.append(most)

    for name, given in points.items():
        constrain({(name, width): 1.0 for width in given}, 1, 1)
    for number, layer in enumerate(layers):
        for side, (name, given) in enumerate((layer.weight, layer.activation)):
            for width in given:
                same = {key: 1.0 for key in pairs if key[0] == number and key[1][side] == width}
                constrain({**same, (name, width): -1.0}, 0, 0)
    for name, most in budget.items():
        costs = {}
        for key in pairs:
            layer = layers[key[0]]
            widths = {layer.weight[0]: key[1][0], layer.activation[0]: key[1][1]}
            costs[key] = _cost(layer, widths, name) / most
        constrain(costs, 0, 1)
    scale = max((value for each in noise.values() for value in each.values()), default=1.0) or 1.0
    objective = np.zeros(len(column))
    for name, width in single:
        objective[column[name, width]] = noise[name][width] / scale if name in noise else 0.0
    solved = milp(
        objective, integrality=np.ones(len(column)), bounds=Bounds(0, 1), constraints=LinearConstraint(rows, low, high)
    )
    if solved.x is None:
        least = {
            layer_choice[0]: min(layer_choice[1])
            for layer in layers
            for layer_choice in (layer.weight, layer.activation)
        }
        needed = {name: sum(_cost(layer, least, name) for layer in layers) for name in budget}
        raise TrainError(
            "budget must allow the smallest widths, which need "
            f"{', '.join(f'{value:,.0f} {name}' for name, value in needed.items())}, not "
            f"{', '.join(f'{value:,.0f} {name}' for name, value in budget.items())}"
        )
    return {name: width for name, width in single if solved.x[column[name, width]] > 0.5}


def _recipe(
    base: Mapping[str, Any] | None, layers: Sequence[_Layer], chosen: Mapping[str, int], known: Mapping[str, Quantizer]
) -> dict[str, Any]:
    """The recipe with the chosen widths, each layer by its own path, behind all patterns."""
    content = {key: dict(value) for key, value in (base or {}).items()}
    patterns = content.setdefault("layers", {})
    for layer in layers:
        own = patterns.pop(layer.path, {})
        for point, (name, given) in (("weight", layer.weight), ("activation", layer.activation)):
            inner = layer.path.startswith(f"{name.rpartition('.')[0]}.")  # it takes its parent's quantizer
            if len(given) > 1 and not inner:
                own = {**own, point: _spec(known[name].spec, POINTS[point], chosen[name])}
        if own:
            patterns[layer.path] = own
    return content


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
    return found
