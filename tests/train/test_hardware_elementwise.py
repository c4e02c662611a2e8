"""Element-wise widths allocated within what a board has: the best that fits, lowered to the same integers."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.boards import Board
from qfx.errors import TrainError
from qfx.nn.calibrate import quantizers
from qfx.nn.choices import POINTS, choices
from qfx.nn.program import Cost
from qfx.nn.sensitivity import sensitivities
from qfx.plan import limits, plan
from qfx.train import Hardware
from tests.nn.nets import Net, digits_like, settled

BOARD = Board.load("ultra96v2")
CYCLES = 400
WIDTHS = (2, 4, 8)
INPUT: dict[str, Any] = {"default": {"input": "u5.0", "output": 16}}
CHOSEN = ("activation", "elementwise")


def net() -> nn.Module:
    torch.manual_seed(3)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 3, 6), nn.BatchNorm2d(3), nn.Flatten())
    return settled(nn.Sequential(*layers)).eval()


def built(recipe: object, x: Tensor, model: nn.Module | None = None) -> Any:
    return qfx.correct(qfx.calibrate(qfx.convert(model or net(), recipe, x).eval(), [x]), [x])


def luts(model: nn.Module, x: Tensor, cycles: int = CYCLES) -> int:
    """What `qfx.plan.plan` says, without multipliers in DSPs."""
    return plan(qfx.lower(model, x[:1]), BOARD, cycles, budget=limits(BOARD, {"dsp": 0})).resources.lut


def at(widths: Sequence[int], x: Tensor) -> Any:
    """The network at a width of each of its three choices."""
    first, activation, last = widths
    layers = {path: {"elementwise": width} for path, width in (("1", first), ("2", first), ("4", last))}
    return built({**INPUT, "layers": {**layers, "3": {"activation": activation}}}, x)


def test_elementwise_widths_are_the_best_of_all_that_the_plan_lets_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    x = digits_like(16, 1)
    fixed = qfx.calibrate(qfx.convert(net(), INPUT, x).eval(), [x])
    groups = {
        "first": ("1.output_quant", "2.output_quant"),  # the table reads what BatchNorm gives, in one format
        "activation": ("3.input_quant",),
        "last": ("4.output_quant",),
    }
    every = {w: luts(at(w, x), x) for w in itertools.product(WIDTHS, repeat=3)}
    noise = sensitivities(fixed, groups, WIDTHS, [x])
    total = {w: sum(noise[name][each] for name, each in zip(groups, w, strict=True)) for w in every}
    for most in sorted(every.values())[5:-1:8]:
        best = min(noise for w, noise in total.items() if every[w] <= most)
        right = allocated(most, x)
        assert right.noise == pytest.approx(best, rel=1e-9)
        assert luts(built(right.recipe, x), x) == right.cost["lut"] <= most
        with monkeypatch.context() as patch:
            patch.setattr(Hardware, "costs", _halved(Hardware.costs))
            wrong = allocated(most, x)
        assert wrong.widths != right.widths and luts(built(wrong.recipe, x), x) > most


def allocated(most: int, x: Tensor) -> qfx.nn.Allocation:
    hardware, budget = Hardware(BOARD, CYCLES), {"lut": most, "dsp": 0}
    return qfx.allocate(net(), [x], budget, INPUT, WIDTHS, hardware=hardware, points=CHOSEN)


def _halved(costs: Any) -> Any:
    """Costs that are half of what the plan says."""

    def wrong(*given: Any) -> dict[str, Cost]:
        return {
            resource: Cost(cost.fixed / 2, _half(cost.single), _half(cost.pairs))
            for resource, cost in costs(*given).items()
        }

    return wrong


def _half(costs: Mapping[Any, Mapping[Any, float]]) -> dict[Any, dict[Any, float]]:
    return {name: {width: value / 2 for width, value in by.items()} for name, by in costs.items()}


def test_the_network_is_planned_with_all_inputs_where_few_are_looked_at() -> None:
    x = torch.cat([digits_like(4, 1) // 8, digits_like(28, 2)])
    hardware = Hardware(BOARD, CYCLES)
    task: dict[str, Any] = {"recipe": INPUT, "widths": (2, 3, 4, 8), "points": POINTS}
    for most in (2000, 1500):
        found = qfx.allocate(net(), [x], {"lut": most, "dsp": 0}, hardware=hardware, looked_at=4, **task)
        assert luts(built(found.recipe, x), x) == found.cost["lut"] <= most
        few = qfx.correct(qfx.calibrate(qfx.convert(net(), found.recipe, x).eval(), [x]), [x[:4]])
        assert luts(few, x) != found.cost["lut"]


def test_all_layers_get_the_widths_chosen_and_give_the_interpreters_integers() -> None:
    torch.manual_seed(5)
    model, x = Net().eval(), digits_like(16, 2)
    hardware, budget = Hardware(BOARD, 20_000), {"lut": 12_000, "dsp": 0}
    found = qfx.allocate(model, [x], budget, INPUT, (3, 5, 8), hardware=hardware, points=POINTS)
    fixed = built(found.recipe, x, model)
    assert luts(fixed, x, 20_000) == found.cost["lut"] <= 12_000
    assert {width for by in found.widths.values() for width in by.values()} == {3, 5, 8}
    for choice in choices(fixed, found.recipe, POINTS, WIDTHS):
        (width,) = {found.widths[path][point] for path, point in choice.places}
        assert {quantizers(fixed)[name].width for name in choice.quantizers} == {width}
    assert found.widths["block.add"]["elementwise"] == found.widths["block.bn2"]["elementwise"]
    graph, exact = qfx.lower(fixed, x[:1]), qfx.exact(fixed)(x)
    assert np.array_equal(graph.evaluate(x.numpy(), layout="NCHW"), exact.numpy())
    quantizers(fixed)["bn.output_quant"].frac.data.sub_(1)
    assert not np.array_equal(graph.evaluate(x.numpy(), layout="NCHW"), qfx.exact(fixed)(x).numpy())


def test_what_the_recipe_fixes_of_elementwise_layers_stays() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.bn, self.gate = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid()
            self.other, self.last = nn.BatchNorm2d(4), nn.Softmax(1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.conv(x))
            return self.last(self.other(x * self.gate(x)))

    x = digits_like(16, 1)
    recipe: dict[str, Any] = {
        **INPUT,
        "layers": {
            "other": {"elementwise": 6},
            "*": {"elementwise": {"width": 7, "rounding": "TRN"}},
            "gate": {"table": "learned"},
            "bn": {"constant": {"width": 8, "digits": {"k": 2}}, "elementwise": {"width": 9, "frac": 5}},
        },
    }
    hardware = Hardware(BOARD, 2000)
    found = qfx.allocate(
        Gate().eval(), [x], {"lut": 0.7}, recipe, (2, 4), hardware=hardware, points=("elementwise", "constant")
    )
    assert found.widths["bn"] == {"constant": 8, "elementwise": 9}
    assert "gate" not in found.widths and found.widths["last"]["elementwise"] == 7
    assert found.widths["conv"] == {"weight": 8, "activation": 5}
    assert found.widths["other"]["elementwise"] == 7  # which softmax reads, made for one width
    width = found.widths["mul"]["elementwise"]
    assert width in (2, 4) and found.recipe["layers"]["mul"]["elementwise"] == {"width": width, "rounding": "TRN"}


@pytest.mark.parametrize(
    ("points", "hardware", "said"),
    [
        ((), None, "points must be of weight, activation, elementwise, constant, not none"),
        (("weights",), None, "points must be of weight, activation, elementwise, constant, not weights"),
        (
            ("weight", "elementwise"),
            None,
            "points must be of weight, activation without hardware, not elementwise: no budget of bits counts its",
        ),
        (
            POINTS,
            Hardware(BOARD, CYCLES),
            r"budget must allow the smallest widths, 2 bits wherever they are chosen, which need (\d+) of 300 lut on "
            r"ultra96v2 at 400 cycles a frame: allow more, or give smaller widths to choose from",
        ),
    ],
)
def test_points_without_a_cost_and_a_budget_below_the_least_are_refused(
    points: Sequence[str], hardware: Hardware | None, said: str
) -> None:
    x = digits_like(4, 0)
    budget: Mapping[str, float] = {"lut": 300, "dsp": 0} if hardware else {"weight_bits": 1000}
    with pytest.raises(TrainError, match=said) as refused:
        qfx.allocate(net(), [x], budget, INPUT, WIDTHS, hardware=hardware, points=points)
    if hardware:  # what it says is the least possible: a LUT less is refused, so much is not
        least = int(re.search(r"need (\d+) of", str(refused.value))[1])  # type: ignore[index]
        found = qfx.allocate(net(), [x], {"lut": least, "dsp": 0}, INPUT, WIDTHS, hardware=hardware, points=points)
        assert found.cost["lut"] <= least
        with pytest.raises(TrainError, match=f"need {least} of {least - 1} lut"):
            qfx.allocate(net(), [x], {"lut": least - 1, "dsp": 0}, INPUT, WIDTHS, hardware=hardware, points=points)
