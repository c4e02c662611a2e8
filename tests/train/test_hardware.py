"""Widths allocated within what a board has: costs are the plan's, and the result is the best that the plan lets fit."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.boards import Board
from qfx.errors import PlanError, TrainError
from qfx.nn.calibrate import quantizers
from qfx.nn.choices import Choice
from qfx.nn.program import Cost, least_noise
from qfx.nn.sensitivity import sensitivities
from qfx.plan import limits, plan
from qfx.plan.limits import RESOURCES
from qfx.train import Hardware, hardware
from tests.nn.nets import digits_like, settled

BOARD = Board.load("ultra96v2")
CYCLES = 400
WIDTHS = (2, 4, 8)
SIGNED = {"width": 8, "signed": True}  # unsigned, in the format of the layer behind, there would be one node for both
RECIPE = {"default": {"input": "u5.0", "elementwise": SIGNED, "constant": 8, "output": 16}}
FREE = ("0.weight_quant", "3.weight_quant", "3.input_quant")


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 6), nn.Flatten()).eval()


def built(recipe: object, x: Tensor) -> nn.Module:
    return qfx.correct(qfx.calibrate(qfx.convert(net(), recipe, x).eval(), [x]), [x])


def at(widths: Sequence[int], x: Tensor) -> nn.Module:
    """The network at a width of each of FREE."""
    first, second, activation = widths
    layers = {"0": {"weight": first}, "3": {"weight": second, "activation": activation}}
    return built({**RECIPE, "layers": layers}, x)


def planned(model: nn.Module, x: Tensor, budget: Mapping[str, float]) -> dict[str, int]:
    """What `qfx.plan.plan` says of the lowered network; it is not refused, whatever it takes."""
    made = plan(qfx.lower(model, x[:1]), BOARD, CYCLES, budget=limits(BOARD, budget))
    return {name: getattr(made.resources, name) for name in RESOURCES}


def estimated(model: nn.Module, x: Tensor) -> dict[str, Cost]:
    asked = Hardware(BOARD, CYCLES)
    return asked.costs(model, x[:1], asked.limits({"dsp": 0}), choices(model, FREE, WIDTHS))


def choices(model: nn.Module, free: Sequence[str], widths: Sequence[int]) -> list[Choice]:
    """A choice for each quantizer."""
    return [
        Choice((), (name,), name in free, tuple(widths) if name in free else (q.width,))
        for name, q in quantizers(model).items()
    ]


def now(model: nn.Module) -> dict[str, int]:
    return {name: quantizer.width for name, quantizer in quantizers(model).items()}


@pytest.mark.parametrize("widths", [(8, 8, 8), (4, 2, 8)])
def test_costs_are_the_plans_at_the_widths_in_use_and_nearly_so_elsewhere(
    widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = digits_like(16, 1)
    model = at(widths, x)
    costs, other = estimated(model, x), at((*widths[:2], 4), x)
    assert {name: cost.of(now(model)) for name, cost in costs.items()} == planned(model, x, {"dsp": 0})
    real = planned(other, x, {"dsp": 0})
    for name in ("lut", "ff"):
        assert costs[name].of(now(other)) == pytest.approx(real[name], abs=4)
    followed = hardware.followed

    def wrong(*given: Any) -> Any:  # what a convolution reads does not count
        return [{key: by for key, by in each.items() if key != "InWidth"} for each in followed(*given)]

    monkeypatch.setattr(hardware, "followed", wrong)
    assert abs(estimated(model, x)["lut"].of(now(other)) - real["lut"]) > 4


def test_a_planted_part_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    x = digits_like(16, 1)
    model = at((4, 4, 4), x)
    real, whole = planned(model, x, {"dsp": 0}), hardware.planned

    def wrong(*given: Any) -> Any:
        made = whole(*given)
        return replace(made, network=replace(made.network, parts=made.network.parts[:-1]))

    monkeypatch.setattr(hardware, "planned", wrong)
    assert {name: cost.of(now(model)) for name, cost in estimated(model, x).items()} != real


def test_the_widths_are_the_best_of_all_that_the_plan_lets_fit() -> None:
    x = digits_like(16, 1)
    every = {w: planned(at(w, x), x, {"dsp": 0})["lut"] for w in itertools.product(WIDTHS, repeat=3)}
    fixed = qfx.calibrate(qfx.convert(net(), RECIPE, x).eval(), [x])
    noise = sensitivities(fixed, FREE, WIDTHS, [x])
    for most in sorted(every.values())[6:-1:13]:
        found = qfx.allocate(net(), [x], {"lut": most, "dsp": 0}, RECIPE, WIDTHS, hardware=Hardware(BOARD, CYCLES))
        needs = planned(built(found.recipe, x), x, {"dsp": 0})
        assert needs == {name: found.cost[name] for name in RESOURCES} and needs["lut"] <= most
        best = min(
            sum(noise[name][w] for name, w in zip(FREE, widths, strict=True))
            for widths, lut in every.items()
            if lut <= most
        )
        assert found.noise == pytest.approx(best, rel=1e-9)


def test_an_activation_as_wide_as_what_it_reads_has_a_cost_too() -> None:
    """No Requantize stands there: the graph's node has the format of the layer before."""
    x = digits_like(16, 1)
    torch.manual_seed(3)
    plain = settled(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 6))).eval()

    def narrowed(width: int) -> nn.Module:
        recipe = {
            **RECIPE,
            "layers": {"2": {"activation": {"width": width, "frac": width - 6}}, "1": {"elementwise": "s8.2"}},
        }
        return qfx.calibrate(qfx.convert(plain, recipe, x).eval(), [x])

    model = narrowed(8)
    assert "2.in" not in qfx.lower(model, x[:1]).by_name
    asked = Hardware(BOARD, CYCLES)
    given = choices(model, ("2.input_quant",), (2, 8))
    cost, widths = asked.costs(model, x[:1], asked.limits({"dsp": 0}), given)["lut"], now(model)
    saved = cost.of(widths) - cost.of({**widths, "2.input_quant": 2})
    real = planned(model, x, {"dsp": 0})["lut"] - planned(narrowed(2), x, {"dsp": 0})["lut"]
    assert 0.5 * real < saved < 1.5 * real


def test_all_resources_and_bits_hold_together() -> None:
    x = digits_like(16, 1)
    budget = {"lut": 0.02, "ff": 1400, "dsp": 3, "bram18": 0, "weight_bits": 3000}
    found = qfx.allocate(net(), [x], budget, RECIPE, WIDTHS, hardware=Hardware(BOARD, CYCLES))
    del budget["weight_bits"]
    needs, most = planned(built(found.recipe, x), x, budget), limits(BOARD, budget)
    assert all(needs[name] <= getattr(most, name) for name in RESOURCES)
    assert found.cost["weight_bits"] <= 3000 and set(found.widths["3"].values()) != {2}


def test_the_program_takes_what_is_cut_off_for_nothing() -> None:
    choices = {"a": (2, 4), "b": (2, 4)}
    noise = {"a": {2: 1.0, 4: 0.0}, "b": {2: 3.0, 4: 0.0}}
    free = Cost(single={"a": {2: 0.0, 4: 0.0}})
    assert least_noise(choices, noise, [(free, 1)]) == {"a": 4, "b": 4}
    assert least_noise(choices, noise, [(free, 1)], [{"a": 4, "b": 4}]) == {"a": 2, "b": 4}
    assert least_noise(choices, noise, [(free, 1)], [{"a": 4, "b": 4}, {"a": 2, "b": 4}]) == {"a": 4, "b": 2}
    assert least_noise(choices, noise, [(free, 1)], [{"a": 2, "b": 2}]) is None
    both = Cost(10.0, pairs={("a", "b"): {(v, w): float(v * w) for v in (2, 4) for w in (2, 4)}})
    assert least_noise(choices, noise, [(both, 18)]) == {"a": 2, "b": 4} and both.of({"a": 2, "b": 4}) == 18
    assert least_noise(choices, noise, [(both, 13)]) is None


@pytest.mark.parametrize(
    ("budget", "error", "said"),
    [
        (
            {"lut": 100},
            TrainError,
            r"budget must allow the smallest widths, 2 bits wherever they are chosen, which need [\d,]+ of 100 lut on "
            r"ultra96v2 at 400 cycles a frame: allow more, or give smaller widths to choose from",
        ),
        ({"weight_bits": 5, "lut": 5000}, TrainError, r"which need [\d,]+ of 5 weight_bits: allow more"),
        ({"luts": 5}, PlanError, "budget must give lut, ff, bram18, dsp, not luts"),
        ({"lut": 1.5}, PlanError, "budget lut must be a share of ultra96v2 in 0.0..1.0 or a count"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(budget: dict[str, float], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        qfx.allocate(net(), [digits_like(4, 0)], budget, RECIPE, WIDTHS, hardware=Hardware(BOARD, CYCLES))


def test_a_board_and_whole_cycles_must_be_given() -> None:
    with pytest.raises(TrainError, match=re.escape('board must be a Board, such as Board.load("ultra96v2"), not ')):
        Hardware("ultra96v2", CYCLES)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="cycles must be a whole number of cycles, not"):
        Hardware(BOARD, None)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="cycles must be .* not 0"):
        Hardware(BOARD, 0)
    with pytest.raises(PlanError, match="must take at most 2 cycles a frame, but takes"):
        qfx.allocate(net(), [digits_like(4, 0)], {"lut": 0.5}, RECIPE, WIDTHS, hardware=Hardware(BOARD, 2))
    said = re.escape("not {'lut': 5}: what a board has comes with hardware=qfx.train.Hardware(board, cycles)")
    with pytest.raises(TrainError, match=said):
        qfx.allocate(net(), [digits_like(4, 0)], {"lut": 5}, RECIPE, WIDTHS)
