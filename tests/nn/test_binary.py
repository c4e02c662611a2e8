"""Binary and ternary weights: their values, their gradients, and the same integers in every engine."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qfx
from qfx import emit
from qfx.boards import Board
from qfx.errors import TrainError
from qfx.nn.quantizer import WEIGHT, Digits, Quantizer
from qfx.plan import plan
from qfx.tools import csim
from qfx_sim.design import simulate
from tests.nn.nets import digits_like

KINDS = {"binary": {-1, 1}, "ternary": {-1, 0, 1}}


def net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3), nn.Flatten()
    )


def converted(kind: str) -> tuple[nn.Module, torch.Tensor]:
    x = digits_like(32, 1)
    recipe = {"default": {"input": "u5.0", "weight": {"levels": kind}, "activation": 4}}
    return qfx.calibrate(qfx.convert(net(), recipe, x).eval(), [x]), x


def quantizer(zero: bool) -> Quantizer:
    found = Quantizer(replace(WEIGHT, width=2, digits=Digits(1, zero=zero), per_channel=False))
    found.start_at(torch.tensor(2.0), True)
    return found


def test_words_are_the_sign_or_the_nearest_of_three() -> None:
    x = torch.tensor([-3.0, -0.13, -0.12, -0.0, 0.0, 1e-9, 0.12, 0.13, 5.0])
    assert quantizer(zero=False)(x).mul(4).tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert quantizer(zero=True)(x).mul(4).tolist() == [-1, -1, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("zero", [False, True])
def test_gradients_pass_within_reach_and_move_the_binary_point(zero: bool) -> None:
    found = quantizer(zero)
    x = torch.tensor([-0.5, -0.3, 0.2, 0.37, 0.5], requires_grad=True)
    y = found(x)
    y.sum().backward()
    inside = [False, True, True, True, False]  # less than 1.5 steps of 1/4
    assert x.grad.tolist() == [float(each) for each in inside]
    slope = sum(a - b if near else -b for a, b, near in zip(x.tolist(), y.tolist(), inside, strict=True))
    assert found.frac.grad.item() == pytest.approx(np.log(2) * slope / np.sqrt(5), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_every_engine_agree(kind: str, tmp_path: Path) -> None:
    model, x = converted(kind)
    optimizer = torch.optim.Adam(qfx.param_groups(model.train(), lr=0.01))
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    graph = qfx.lower(model.eval(), x)
    assert {int(code) for name in ("0.weight", "4.weight") for code in np.unique(graph.constants[name].codes)} == KINDS[
        kind
    ]
    assert all(graph.constants[name].max_digits == 1 for name in ("0.weight", "4.weight"))
    codes = graph.encode(x[:4].numpy(), "NCHW")
    golden = graph.evaluate_codes(codes, all_nodes=True)
    assert np.array_equal(graph.evaluate(x.numpy(), "NCHW"), qfx.exact(model)(x).numpy())
    made = plan(graph, Board.load("ultra96v2"), 4096)
    found = csim.run(emit.hls(graph, made, tmp_path / "hls"), codes)
    assert all(np.array_equal(seen, golden[name]) for name, seen in found.items())
    assert simulate(emit.rtl(graph, made, tmp_path / "rtl"), codes, golden).difference is None
    golden[graph.outputs[0]] = golden[graph.outputs[0]] ^ 1
    assert simulate(tmp_path / "rtl", codes, golden).difference is not None


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            {"activation": {"levels": "binary"}},
            "'default.activation.levels' must stand at one of weight, constant, not at a",
        ),
        ({"weight": {"levels": "quinary"}}, "'default.weight.levels' must be one of binary, ternary, not 'quinary'"),
        (
            {"weight": {"levels": "binary", "width": 4}},
            "must stand without width: binary weights are signed words of two",
        ),
    ],
)
def test_what_they_cannot_be_is_refused(points: dict[str, object], said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        qfx.convert(net(), {"default": points}, digits_like(2, 0))
