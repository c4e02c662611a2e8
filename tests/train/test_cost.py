"""Hardware in the loss: the differentiable estimate is the plan's, and training ends within a budget."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.boards import Board
from qfx.errors import PlanError, TrainError
from qfx.nn.calibrate import quantizers
from qfx.nn.quantizer import Quantizer
from qfx.plan import limits, network, plan, slopes
from qfx.plan.cost import estimate
from qfx.plan.dataflow import Part
from qfx.plan.depths import size_fifos
from qfx.train import Data, Settings, fit
from qfx.train import cost as costs
from qfx.train.budget import Budget, reached, require_possible, start
from qfx.train.cost import HardwareCost
from qfx.train.sizes import hold, learned_sizes, narrow
from tests.nn.nets import Net, digits_like

BOARD = Board.load("ultra96v2")
LEARNED = {"width": 8, "learn_width": True}
EVERYWHERE = {
    "default": {"input": "u5.0", "weight": LEARNED, "activation": LEARNED, "elementwise": {**LEARNED, "signed": True}}
}
WORDS = {"width": 8, "digits": {"k": 3, "signed": True, "learn": True}}
HOT = {"default": {"input": "u5.0", "weight": WORDS, "activation": 6}}
CYCLES = 600


def calibrated(recipe: object = EVERYWHERE) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    x = digits_like(32, 1)
    return qfx.calibrate(qfx.convert(Net().eval(), recipe, x).eval(), [x]), x


def planned(cost: HardwareCost) -> dict[str, int]:
    made = cost.plan()
    return {**{name: getattr(made.resources, name) for name in ("lut", "ff", "bram18", "dsp")}, "cycles": made.interval}


def values(cost: HardwareCost) -> dict[str, float]:
    return {name: value.item() for name, value in cost().items()}


def test_the_estimate_is_the_plans_at_any_widths() -> None:
    model, x = calibrated()
    cost = HardwareCost(model, x, BOARD, CYCLES)
    assert values(cost) == planned(cost)
    for number, quantizer in enumerate(learned_sizes(model).values()):
        narrow(quantizer, 3 + number % 5)
    assert values(cost) != planned(cost)  # slopes from 8 bits, far away
    cost.refresh()
    assert values(cost) == planned(cost)


def test_a_planted_coefficient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = calibrated()
    cost = HardwareCost(model, x, BOARD, CYCLES)
    estimate = costs.sloped

    def wrong(graph, net):  # type: ignore[no-untyped-def]
        return estimate(graph, replace(net, parts=net.parts[:-1]))  # one FIFO forgotten

    monkeypatch.setattr(costs, "sloped", wrong)
    cost.refresh()
    assert values(cost) != planned(cost)


def test_gradients_say_what_the_plan_saves() -> None:
    """A bit less of a width saves about what the slope says, in the unrolls and arithmetic of before."""
    model, x = calibrated()
    cost = HardwareCost(model, x, BOARD, CYCLES)
    cost()["lut"].backward()
    graph = qfx.lower(model, x)
    nodes = plan(graph, BOARD, CYCLES).nodes
    depths = size_fifos(graph, nodes)[0]

    def lut() -> int:
        return sum(estimate(part).lut for part in network(qfx.lower(model, x), nodes, depths).parts)

    before, errors = lut(), []
    assert before == values(cost)["lut"]
    for quantizer in learned_sizes(model).values():
        assert quantizer.bits is not None
        grad = 0.0 if quantizer.bits.grad is None else quantizer.bits.grad.sum().item()
        kept = quantizer.bits.detach().clone(), quantizer.frac.detach().clone()
        narrow(quantizer, 7)
        with suppress(KeyError):  # at another width than before, it is a node of its own
            errors.append((before - lut(), grad))
        with torch.no_grad():
            quantizer.bits.copy_(kept[0])
            quantizer.frac.copy_(kept[1])
    wrong = [abs(saved - grad) > 0.25 * max(abs(saved), abs(grad)) + 25 for saved, grad in errors]
    assert len(errors) > 12 and sum(wrong) <= 2, errors  # rounding can cost or save a bit of an accumulator
    assert sum(saved for saved, _ in errors) == pytest.approx(sum(grad for _, grad in errors), rel=0.15)


def test_every_learned_width_of_weights_and_activations_has_a_price() -> None:
    model, x = calibrated()
    cost = HardwareCost(model, x, BOARD, CYCLES)
    sum(cost().values()).backward()
    free = [n for n, q in learned_sizes(model).items() if q.bits.grad is None or not q.bits.grad.any()]  # type: ignore[union-attr]
    # What is next to a Requantize of the same format is one with it, and the output's width costs its own FIFO.
    assert [name for name in free if "weight" in name] == []
    assert len(free) < len(learned_sizes(model)) / 3


def wrong_about_k() -> list[str]:
    """In what the estimate and the plan are not one about K, as it is and once it is held at 2."""
    model, x = calibrated(HOT)
    cost = HardwareCost(model, x, BOARD, CYCLES)
    before, at_first = values(cost), values(cost) == planned(cost)
    priced = {name for name, slope in cost.local.slopes["lut"].items() if slope > 0}
    for name in learned_sizes(model):
        hold(model, name, 2)
    told = values(cost)["lut"]
    cost.refresh()
    after = planned(cost)
    right = {
        "values at first": at_first,
        "what has a price": priced == {name for name in learned_sizes(model) if "weight" in name},
        "what slopes tell": told < before["lut"] and abs(told - after["lut"]) < 0.15 * (before["lut"] - told),
        "values of now": values(cost) == after,
    }
    return [name for name, is_so in right.items() if not is_so]


def test_the_estimate_follows_learned_k_as_the_plan_does() -> None:
    assert wrong_about_k() == []


def test_planted_faults_in_k_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = costs.sloped

    def fewer(part: Part) -> Part:
        digits = part.parameters.get("Digits")
        return replace(part, parameters={**part.parameters, "Digits": digits - 1}) if digits else part

    with monkeypatch.context() as fault:  # the estimate counts a digit less of each constant
        fault.setattr(costs, "sloped", lambda graph, net: whole(graph, replace(net, parts=(*map(fewer, net.parts),))))
        assert {"values at first", "values of now"} <= {*wrong_about_k()}
    with monkeypatch.context() as fault:  # a digit has no price
        fault.delitem(slopes._RULES, "Digits")
        assert wrong_about_k() == ["what has a price", "what slopes tell"]
    with monkeypatch.context() as fault:  # hardware keeps the K of the recipe
        fault.setattr(Quantizer, "max_digits", property(lambda q: q.spec.digits and q.spec.digits.most))
        assert wrong_about_k() == ["what slopes tell", "values of now"]


def test_what_a_digit_costs_is_learned_by_the_channels_that_have_most() -> None:
    model, x = calibrated(HOT)
    name, quantizer = next((n, q) for n, q in learned_sizes(model).items() if "weight" in n and len(q.k) > 2)  # type: ignore[arg-type]
    with torch.no_grad():
        quantizer.k[1:] = 2  # type: ignore[index]
    cost = HardwareCost(model, x, BOARD, CYCLES)
    cost()["lut"].backward()
    grads = quantizer.k.grad.tolist()  # type: ignore[union-attr]
    assert grads[0] == pytest.approx(cost.local.slopes["lut"][name]) and not any(grads[1:])


def test_training_within_a_budget_lowers_k() -> None:
    model, x = calibrated(HOT)
    most = int(0.8 * values(HardwareCost(model, x, BOARD, CYCLES))["lut"])
    cost = HardwareCost(model, x, BOARD, CYCLES, limits(BOARD, {"lut": most}))
    data = Data(digits_like(96, 2), torch.arange(96) % 10, digits_like(32, 3), torch.arange(32) % 10)
    held = start(cost, [x], 12)
    fit(model, data, Settings(epochs=4, lr=2e-3, batch=32), budget=held)
    assert reached(cost)["fits"] and planned(cost)["lut"] <= most
    assert any(max(move.now) < 3 for move in qfx.nn.digit_moves(model).values())
    assert qfx.lower(model, x)  # its constants keep what they promise


def test_stated_widths_have_no_gradient() -> None:
    model, x = calibrated({"default": {"input": "u5.0", "weight": 4, "activation": 4}})
    cost = HardwareCost(model, x, BOARD, CYCLES)
    assert not any(value.requires_grad for value in cost().values())
    assert values(cost) == planned(cost)


def learned(budget: int | None, epochs: int = 6) -> tuple[nn.Module, Budget | None, HardwareCost]:
    model, x = calibrated()
    allowed = limits(BOARD, {"lut": budget}) if budget else None
    cost = HardwareCost(model, x, BOARD, CYCLES, allowed)
    data = Data(digits_like(96, 2), torch.arange(96) % 10, digits_like(32, 3), torch.arange(32) % 10)
    settings = Settings(epochs=epochs, lr=2e-3, batch=32)
    held = start(cost, [x], 3 * epochs) if budget else None
    fit(model, data, settings, budget=held)
    cost.refresh()
    return model, held, cost


def test_training_ends_within_its_budget_as_the_plan_says() -> None:
    free = learned(None)[2]
    most = int(0.6 * values(free)["lut"])
    model, held, cost = learned(most)
    assert held is not None
    assert planned(cost)["lut"] <= most
    found = reached(cost)
    assert found["fits"] and found["reached"]["lut"] == planned(cost)["lut"]
    assert values(free)["lut"] > most  # without it, training does not get there
    assert {q.width for q in quantizers(model).values()} != {8}


def test_an_exceeded_budget_raises_the_price_and_a_kept_one_lets_it_fall() -> None:
    model, x = calibrated()
    tight = HardwareCost(model, x, BOARD, CYCLES, limits(BOARD, {"lut": 6000, "dsp": 0}))
    held = Budget(tight, 100, {})
    held.step(1)
    first = held.prices["lut"]
    assert first > 0 and held.prices["bram18"] == 0
    held.charge()
    assert any(q.bits.grad is not None and q.bits.grad.abs().sum() > 0 for q in learned_sizes(model).values())  # type: ignore[union-attr]
    for quantizer in learned_sizes(model).values():
        narrow(quantizer, 2)
    tight.refresh()
    held.step(2)
    assert held.prices["lut"] < first


def test_narrowing_keeps_the_range() -> None:
    model, _ = calibrated()
    quantizer = next(q for name, q in learned_sizes(model).items() if "weight" in name)
    before = quantizer.format()
    narrow(quantizer, 5)
    after = quantizer.format()
    assert after.width == 5
    assert [f - 3 for f in before.fracs(8)] == list(after.fracs(8))


def test_an_impossible_budget_is_refused_with_what_the_smallest_widths_need() -> None:
    model, x = calibrated()
    widths = {name: q.width for name, q in learned_sizes(model).items()}
    cost = HardwareCost(model, x, BOARD, CYCLES, limits(BOARD, {"lut": 900}))
    said = (
        r"a budget must allow the smallest widths, 2 bits \(of K-hot constants one digit\) wherever they are learned, "
        r"which need [\d,]+ of 900 LUT on ultra96v2 at 600 cycles a frame: allow more, or more cycles a frame, or let "
        "more widths be learned"
    )
    with pytest.raises(TrainError, match=said):
        require_possible(cost)
    assert {name: q.width for name, q in learned_sizes(model).items()} == widths


def test_a_budget_without_learned_widths_is_refused() -> None:
    model, x = calibrated({"default": {"input": "u5.0"}})
    cost = HardwareCost(model, x, BOARD, CYCLES, limits(BOARD, {"lut": 0.5}))
    with pytest.raises(TrainError, match="must have widths to choose, .*: give its points learn_width: true, or K-hot"):
        require_possible(cost)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"luts": 5}, "budget must give lut, ff, bram18, dsp, not luts"),
        ({"lut": 1.5}, r"budget lut must be a share of ultra96v2 in 0.0..1.0 or a count in 0..70,560, not 1.5"),
        ({"lut": -3}, "budget lut must be a share .* not -3"),
        ({"dsp": 361}, r"or a count in 0..360, not 361"),
        ({"dsp": True}, "not True"),
        ({"lut": "half"}, "not 'half'"),
        ({"lut": 0}, "budget must leave some lut and ff, not 0: nothing is built without them"),
    ],
)
def test_a_wrong_budget_is_refused(asked: dict, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        limits(BOARD, asked)


def test_shares_and_counts_and_what_is_not_named() -> None:
    found = limits(BOARD, {"lut": 0.5, "dsp": 0})
    assert (found.lut, found.ff, found.bram18, found.dsp) == (35_280, int(0.7 * 141_120), int(0.7 * 432), 0)


def test_a_board_must_be_one() -> None:
    model, x = calibrated()
    with pytest.raises(TrainError, match=re.escape('board must be a Board, such as Board.load("ultra96v2"), not ')):
        HardwareCost(model, x, "ultra96v2", CYCLES)  # type: ignore[arg-type]


def test_a_rate_that_no_unroll_reaches_is_refused() -> None:
    model, x = calibrated()
    with pytest.raises(PlanError, match="must take at most 2 cycles a frame, but takes"):
        HardwareCost(model, x, BOARD, 2)


def test_stopped_training_within_a_budget_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path) -> dict[str, Tensor]:
        model, x = calibrated()
        cost = HardwareCost(model, x, BOARD, CYCLES, limits(BOARD, {"lut": 5000}))
        data = Data(digits_like(96, 2), torch.arange(96) % 10, digits_like(32, 3), torch.arange(32) % 10)
        held = start(cost, [x], 12)
        fit(model, data, Settings(epochs=4, lr=2e-3, batch=32), folder=folder, budget=held)
        return dict(model.state_dict())

    whole = run(tmp_path / "whole")
    step = Budget.step

    def stop(self: Budget, number: int) -> None:
        if number == 8:
            raise KeyboardInterrupt
        step(self, number)

    monkeypatch.setattr(Budget, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.undo()
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole if torch.is_tensor(whole[name]))


def test_a_checkpoint_of_training_within_another_budget_is_refused(tmp_path: Path) -> None:
    data = Data(digits_like(32, 2), torch.arange(32) % 10, digits_like(32, 3), torch.arange(32) % 10)

    def run(cycles: int, most: dict[str, float] | None) -> None:
        model, x = calibrated()
        cost = HardwareCost(model, x, BOARD, cycles, limits(BOARD, most or {}))
        held = Budget(cost, 1, {}) if most else None
        fit(model, data, Settings(epochs=1, lr=2e-3, batch=32), folder=tmp_path, budget=held)

    run(CYCLES, {"lut": 60_000})
    run(CYCLES, {"lut": 60_000})  # the same one goes on from there
    limited = r"\{'board': 'ultra96v2', 'cycles': 600, 'lut': 60000, .*\}"
    for cycles, most, now in ((CYCLES, {"lut": 60_001}, r"\{.*'lut': 60001, .*\}"), (CYCLES, None, "None")):
        said = f"must be a checkpoint of this training, but its budget is {limited}, not {now}: train in another folder"
        with pytest.raises(TrainError, match=said):
            run(cycles, most)
    with pytest.raises(TrainError, match=f"its budget is {limited}, not .*'cycles': 700"):
        run(700, {"lut": 60_000})
