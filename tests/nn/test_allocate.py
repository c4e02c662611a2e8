"""Bit allocation: what the integer program chooses is the best of all choices, keeps the budget, and helps."""

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.errors import TrainError
from qfx.nn import relative_error, sensitivities
from qfx.nn.calibrate import floating, quantizers
from tests.nn.nets import Net, digits_like

WIDTHS = (2, 4, 8)
RECIPE = {"default": {"input": "u5.0", "elementwise": 12, "constant": 12, "output": 16}}


def small() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ).eval()


def measured(net: nn.Module, recipe: object, x: Tensor) -> float:
    """The relative error of the whole quantized network."""
    fixed = qfx.calibrate(qfx.convert(net, recipe, x).eval(), [x])
    with torch.no_grad():
        return relative_error(net(x), fixed(x))


def test_the_choice_is_the_best_of_all() -> None:
    net, x = small(), digits_like(32, 1)
    budget = {"weight_bits": 700.0, "bit_operations": 60_000.0}
    found = qfx.allocate(net, [x], budget, RECIPE, WIDTHS)
    fixed = qfx.calibrate(qfx.convert(net, RECIPE, x).eval(), [x])
    names = ("0.weight_quant", "2.weight_quant", "2.input_quant", "5.weight_quant", "5.input_quant")
    noise = sensitivities(fixed, names, WIDTHS, [x])
    weights, macs = (36, 72, 96), (36 * 36, 72 * 16, 96)
    best = min(
        (sum(noise[name][width] for name, width in zip(names, choice, strict=True)), choice)
        for choice in itertools.product(WIDTHS, repeat=5)
        if sum(w * n for w, n in zip(weights, (choice[0], choice[1], choice[3]), strict=True)) <= 700
        and macs[0] * choice[0] * 5 + macs[1] * choice[1] * choice[2] + macs[2] * choice[3] * choice[4] <= 60_000
    )
    assert found.noise == pytest.approx(best[0], rel=1e-9)
    (a, b, c, d, e) = best[1]
    chosen = {"0": (a, 5), "2": (b, c), "5": (d, e)}
    assert found.widths == {path: dict(zip(("weight", "activation"), w, strict=True)) for path, w in chosen.items()}
    assert found.cost["weight_bits"] <= 700 and found.cost["bit_operations"] <= 60_000


def test_mixed_widths_disturb_less_than_one_width_of_the_same_cost() -> None:
    torch.manual_seed(5)
    net, x = Net().eval(), digits_like(64, 2)
    fixed = qfx.convert(net, RECIPE, x)
    layers = [layer for layer in fixed.modules() if hasattr(layer, "weight_quant")]
    bits = 4 * sum(layer.weight.numel() for layer in layers)
    found = qfx.allocate(net, [x], {"weight_bits": bits}, RECIPE, (2, 3, 4, 5, 6, 8))
    assert found.cost["weight_bits"] <= bits
    same = {**RECIPE, "default": {**RECIPE["default"], "weight": 4}}
    assert measured(net, found.recipe, x) < measured(net, same, x)
    more = qfx.allocate(net, [x], {"weight_bits": 2 * bits}, RECIPE, (2, 3, 4, 5, 6, 8))
    assert more.noise < found.noise


def test_a_recipe_keeps_what_it_fixes_and_its_modes() -> None:
    net, x = small(), digits_like(16, 1)
    recipe = {
        "default": {"input": "u5.0", "activation": {"width": 8, "rounding": "RND_CONV"}},
        "layers": {"*": {"weight": 6}, "2": {"weight": {"width": 8, "digits": {"k": 2}}}},
    }
    found = qfx.allocate(net, [x], {"weight_bits": 1000}, recipe, (2, 4))
    assert found.widths["2"]["weight"] == 8 and found.widths["0"]["activation"] == 5
    assert found.widths["0"]["weight"] in (2, 4)
    assert list(found.recipe["layers"])[0] == "*"
    fixed = qfx.calibrate(qfx.convert(net, found.recipe, x).eval(), [x])
    known = quantizers(fixed)
    assert known["2.weight_quant"].spec.digits is not None and known["2.input_quant"].spec.rounding == "RND_CONV"
    for path, by in found.widths.items():
        layer = fixed.get_submodule(path)
        assert (layer.weight_quant.width, layer.input_quant.width) == (by["weight"], by["activation"])
    assert recipe["layers"]["*"] == {"weight": 6}  # as it was given


def test_another_budget_needs_no_other_measurement() -> None:
    net, x = small(), digits_like(16, 1)
    first = qfx.allocate(net, [x], {"weight_bits": 700}, RECIPE, WIDTHS)

    def never(real: Tensor, found: Tensor) -> float:
        raise AssertionError("nothing is to be measured")

    again = qfx.allocate(net, [x], {"weight_bits": 1200}, RECIPE, WIDTHS, metrics=never, measured=first.measured)
    assert again == qfx.allocate(net, [x], {"weight_bits": 1200}, RECIPE, WIDTHS) != first
    said = (
        "measured must have the noise of '0.weight_quant' at each width to choose from: it must come from an allocation"
    )
    with pytest.raises(TrainError, match=re.escape(said)):
        qfx.allocate(net, [x], {"weight_bits": 1200}, RECIPE, (2, 6), measured=first.measured)


def test_a_later_pattern_still_holds_where_widths_are_chosen() -> None:
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)).eval(), digits_like(16, 1)
    layers = {"2": {"weight": 7, "activation": 9}, "*": {"activation": {"width": 6, "frac": 2}}}
    found = qfx.allocate(net, [x], {"weight_bits": 150}, {"default": {"input": "u5.0"}, "layers": layers}, (2, 4))
    known = quantizers(qfx.convert(net, found.recipe, x))
    assert known["2.input_quant"].spec.width == found.widths["2"]["activation"] == 6
    assert known["2.weight_quant"].spec.width == found.widths["2"]["weight"] in (2, 4)


def test_learned_widths_start_from_those_chosen_and_one_width_is_a_choice_too() -> None:
    net, x = small(), digits_like(16, 1)
    learned = {"width": 8, "learn_width": True}
    recipe = {"default": {"input": "u5.0", "weight": learned, "activation": 6}}
    found = qfx.allocate(net, [x], {"weight_bits": 700}, recipe, (2, 4))
    fixed = qfx.calibrate(qfx.convert(net, found.recipe, x).eval(), [x])
    for path, by in found.widths.items():
        layer = fixed.get_submodule(path)
        assert layer.weight_quant.bits is not None
        assert (layer.weight_quant.width, layer.input_quant.width) == (by["weight"], by["activation"])
    assert sum(found.widths[path]["weight"] * n for path, n in (("0", 36), ("2", 72), ("5", 96))) <= 700
    only = qfx.allocate(net, [x], {"weight_bits": 700}, recipe, (2,)).recipe
    assert {points["weight"]["width"] for points in only["layers"].values()} == {2}


def test_outputs_have_metrics_of_their_own_and_the_model_stays() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    x = digits_like(8, 4)
    fixed = qfx.calibrate(qfx.convert(Two().eval(), RECIPE, x).eval(), [x])
    before = {name: str(quantizer.format()) for name, quantizer in quantizers(fixed).items()}
    only_b = {"0": lambda real, found: 0.0, "1": relative_error}
    noise = sensitivities(fixed, ("a.weight_quant", "b.weight_quant"), (2, 8), [x], only_b)
    assert noise["a.weight_quant"] == {2: 0.0, 8: 0.0}
    assert noise["b.weight_quant"][2] > 10 * noise["b.weight_quant"][8] > 0
    assert {name: str(quantizer.format()) for name, quantizer in quantizers(fixed).items()} == before
    with floating(fixed), torch.no_grad():
        assert torch.equal(fixed(x)[1], Two()(x)[1])
    with pytest.raises(
        TrainError, match="metrics must have the keys of all outputs, '0', '1', not '0': a single output"
    ):
        sensitivities(fixed, ("a.weight_quant",), (2,), [x], {"0": relative_error})


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"9": relative_error},
            "metrics must have the keys of all outputs, '', not '9': a single output is '', those of",
        ),
        (lambda real, found: float("nan"), "the metric of output '' must return one finite number, not nan"),
        (lambda real, found: found - real, "the metric of output '' must return one finite number, not Tensor"),
    ],
)
def test_metrics_that_cannot_be_are_refused(metrics: Any, said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        qfx.allocate(small(), [digits_like(4, 0)], {"weight_bits": 1000}, RECIPE, metrics=metrics)


@pytest.mark.parametrize(
    ("budget", "widths", "said"),
    [
        ({}, WIDTHS, "budget must give numbers above 0 for weight_bits or bit_operations, not {}"),
        ({"luts": 5}, WIDTHS, "budget must give numbers above 0 for weight_bits or bit_operations, not {'luts': 5}"),
        ({"weight_bits": 0}, WIDTHS, "budget must give numbers above 0"),
        ({"weight_bits": 100}, (0, 4), "widths must be integers in 1..16, not (0, 4)"),
        ({"weight_bits": 1000}, (2.5, 4), "widths must be integers in 1..16, not (2.5, 4)"),
        ({"weight_bits": 100}, WIDTHS, "2 bits wherever they are chosen, which need 408 of 100 weight_bits: allow"),
    ],
)
def test_an_impossible_budget_is_refused(budget: dict[str, float], widths: tuple[int, ...], said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        qfx.allocate(small(), [digits_like(4, 0)], budget, RECIPE, widths)
