"""A budget of non-zero digits is kept: by the price while K are learned, and for certain at the end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import qfx
import qfx.nn as qnn
from qfx import steps
from qfx.design import Design
from qfx.errors import QfxError, TrainError
from qfx.fixed import digits_of
from qfx.train import Data, DigitLimit, Freeze, Settings, fit, runs
from qfx.train.digit_budget import DigitBudget
from tests.train.test_preflight import changed

SETTINGS = Settings(epochs=8, lr=0.01, batch=16, digits=DigitLimit(mean=1.3))
LEARNED = {"width": 8, "digits": {"k": 4, "signed": True, "learn": True}}


def data() -> Data:
    x = torch.randint(0, 16, (96, 1, 6, 6), generator=torch.Generator().manual_seed(1)).float()
    y = (x[:, 0, -1].sum(1) > x[:, 0, 0].sum(1)).long()
    return Data(x, y, x, y)


def network(weight: object = LEARNED, constant: object = 8) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
    x = data().train_x
    net(x)
    net[1].num_batches_tracked.zero_()  # its statistics count as given
    recipe = {"default": {"weight": weight, "constant": constant, "activation": 6, "input": "u4.0"}}
    return qnn.calibrate(qnn.convert(net, recipe, x[:2]).eval(), [x])


def in_graph(model: nn.Module) -> int:
    """The digits of the weights of the graph, one by one."""
    constants = [c for c in qfx.lower(model, data().test_x[:1]).constants.values() if c.max_digits is not None]
    return sum(len(digits_of(int(code), c.fixed.width, c.signed_digits)) for c in constants for code in c.codes.flat)


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": 0.9, "clip": 1.0, "accumulate": 2}, {"formats": "frozen"}, {"freeze": Freeze(formats=0.0)}],
    ids=str,
)
def test_the_trained_network_has_at_most_the_digits_of_its_budget(options: dict) -> None:
    before = in_graph(network())
    model, budget = fit(network(), data(), replace(SETTINGS, **options)), int(1.3 * (8 * 9 + 256))
    assert in_graph(model) <= budget < before
    assert in_graph(model) == int(qnn.nonzero_digits(model)) > 0.8 * budget
    assert in_graph(fit(network(), data(), replace(SETTINGS, digits=None, **options))) > budget  # it takes the budget


def test_a_budget_may_be_a_number_of_digits_and_takes_in_batchnorms_constants() -> None:
    model = fit(network(constant=LEARNED), data(), replace(SETTINGS, digits=DigitLimit(budget=300)))
    assert 200 < int(qnn.nonzero_digits(model)) <= 300
    assert {"1.scale_quant", "1.shift_quant"} < qnn.digit_moves(model).keys()


def test_training_moves_k_between_channels_and_the_log_counts_digits(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=25)
    learned = fit(network(), data(), settings, folder=tmp_path)
    chosen = fit(network(), data(), replace(SETTINGS, formats="frozen"))
    assert qnn.digit_moves(learned) != qnn.digit_moves(chosen)  # not only what the allocation before training says
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["digits"] == int(qnn.nonzero_digits(learned)) and len(rows) == 25


def test_the_price_rises_above_the_budget_and_falls_below_it() -> None:
    for mean, sign in ((1.3, 0), (0.9, 1)):
        model = network()
        budget = DigitBudget(model, DigitLimit(mean=mean), 100)
        if sign:
            with torch.no_grad():
                for move in qnn.quantizers(model).values():
                    if move.k is not None:
                        move.k += 1  # now above it
        prices = []
        for _ in range(3):
            model.zero_grad()
            model.train()(data().train_x).square().mean().backward()
            budget.press(model)
            prices.append(budget.log_price)
        rises = prices[2] > prices[1] > prices[0]
        assert rises == bool(sign)


class StoppedError(Exception):
    """What ends a training between two checkpoints."""


def test_training_that_was_stopped_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, epochs=20, ema=0.9)
    whole = fit(network(), data(), settings).state_dict()

    def resumed(epoch: int, place: str) -> bool:
        """Whether training that stopped in an epoch, and was resumed, ends in the bits of the whole one."""

        def stop(done: float, doing: str) -> None:
            if doing.startswith(f"epoch {epoch}/"):
                raise StoppedError

        with pytest.raises(StoppedError):
            fit(network(), data(), settings, progress=stop, folder=tmp_path / place)
        found = fit(network(), data(), settings, folder=tmp_path / place).state_dict()
        return all(torch.equal(found[name], value) for name, value in whole.items())

    assert resumed(8, "learning") and resumed(18, "frozen")
    monkeypatch.setattr(DigitBudget, "restore", lambda self, facts: None)  # planted: the price starts anew
    assert not resumed(8, "fault")


def test_budgets_that_cannot_be_kept_are_refused() -> None:
    for weight, digits, said in (
        ({"width": 8, "digits": {"k": 2}}, DigitLimit(mean=2.0), r"must find constants whose K is learned, but there"),
        (LEARNED, DigitLimit(budget=8), None),
    ):
        if said:
            with pytest.raises(TrainError, match=said):
                fit(network(weight), data(), replace(SETTINGS, digits=digits))
        else:
            assert int(qnn.nonzero_digits(fit(network(weight), data(), replace(SETTINGS, digits=digits)))) <= 8
    with pytest.raises(TrainError, match=r"room for the \d\d\d non-zero digits of constants whose K is not learned"):
        mixed = network({"width": 8, "digits": {"k": 1}}, LEARNED)
        fit(mixed, data(), replace(SETTINGS, digits=DigitLimit(budget=50)))
    for asked, said in (
        ({}, "digits must have either a budget or a mean, not None and None"),
        ({"budget": 3, "mean": 2.0}, "digits must have either a budget or a mean, not 3 and 2.0"),
        ({"mean": 0.0}, "mean of digits must be a number above 0, not 0.0"),
        ({"budget": -1}, "budget of digits must be a whole number of at least 1, not -1"),
        ({"budget": 2.5}, "budget of digits must be a whole number of at least 1, not 2.5"),
    ):
        with pytest.raises(TrainError, match=said):
            DigitLimit(**asked)


@pytest.mark.parametrize(
    ("digits", "said"),
    [
        ("{}", r"training.digits must have either a budget, the digits of all constants, or their mean"),
        ("{mean: 0}", r"training.digits.mean must be greater than 0, not 0"),
        ("{budget: 1.5}", r"training.digits.budget must"),
        ("{mean: 1.5}", r"a digit budget must find constants whose K is learned, but there are none: give weights"),
    ],
)
def test_design_yaml_refuses_an_impossible_budget(digits: str, said: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, "design.yaml", "widths: [3]", f"widths: [3]\n  digits: {digits}")
    with pytest.raises(QfxError, match=rf"design.yaml:\d+: {said}"):
        steps.train(folder)


def khot_design(folder: Path, digits: str) -> Path:
    """The micro design with learned K and a budget of digits."""
    changed(folder, "design.yaml", "widths: [3]", f"widths: [3]\n  digits: {digits}")
    text, old = (folder / "design.yaml").read_text(), "default: {weight: 3, activation: 3}"
    learned = "{weight: {width: 8, digits: {k: 3, signed: true, learn: true}}}"
    assert old in text
    (folder / "design.yaml").write_text(text.replace(old, f'{old}\n  layers: {{"*": {learned}}}'))
    return folder


def test_a_budget_below_one_digit_a_layer_is_refused_before_training(tmp_path: Path) -> None:
    said = r"design.yaml:\d+: a digit budget must be at least 2, a digit for each layer with K-hot weights, not 1$"
    with pytest.raises(QfxError, match=said):
        steps.train(khot_design(tmp_path, "{budget: 1}"))


def test_layers_that_a_budget_leaves_without_digits_are_a_warning(tmp_path: Path) -> None:
    result = steps.train(khot_design(tmp_path, "{budget: 2}"))
    digits = result.figures["widths"]["3"]["digits"]
    empty = [name.removesuffix(".weight_quant") for name, count in digits.items() if not count]
    said = (
        f"every layer should have non-zero digits, but training.digits left none to {', '.join(empty)}, whose weights"
    )
    assert len(empty) == len([warning for warning in result.warnings if said in warning]) == 1


def test_a_design_states_its_budget(tmp_path: Path) -> None:
    folder = khot_design(tmp_path, "{mean: 0.9}")
    run = steps.train(folder).figures["widths"]["3"]
    engines = {name: getattr(steps, name)(folder).figures for name in ("lower", "plan", "hls", "rtl", "sim")}
    assert engines["lower"]["exact"]["equal"] and engines["hls"]["equal"] and engines["sim"]["equal"]
    design = Design.load(folder)
    model = runs.trained_model(design, folder / "build" / "train")
    weights = sum(p.numel() for name, p in model.named_parameters() if name.endswith("weight") and p.dim() > 1)
    assert sum(run["digits"].values()) == int(qnn.nonzero_digits(model)) <= 0.9 * weights
