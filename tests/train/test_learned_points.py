"""Binary points learn: from an initialisation wrong by two bits, training comes back to within 0.2 points."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.train import Data, Settings, accuracy, fit

SETTINGS = Settings(epochs=32, lr=4e-3, batch=64, frac_lr=0.03)
SEEDS = (0, 1)


@cache
def data() -> Data:
    """Ten classes of three Gaussian clusters each in 16 dimensions, nearly apart."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(30, 16, generator=generator)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        cluster = torch.randint(0, 30, (count,), generator=generator)
        return centres[cluster] + 0.45 * torch.randn(count, 16, generator=generator), cluster % 10

    return Data(*drawn(1536), *drawn(4096))


@cache
def trained() -> nn.Module:
    """The float network that has learned them."""
    torch.manual_seed(0)
    hidden = [nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
    return fit(nn.Sequential(*hidden, nn.Linear(32, 10)), data(), Settings(epochs=15, lr=1e-2))


def started(wrong: int) -> nn.Module:
    """Its 4-bit form, all learned binary points ``wrong`` by some bits."""
    x = data().train_x[:1024]
    recipe = {"default": {"weight": 4, "activation": 4, "elementwise": 4}}
    model = qnn.correct(qnn.calibrate(qnn.convert(trained(), recipe, x[:2]).eval(), [x]), [x])
    with torch.no_grad():
        for quantizer in qnn.quantizers(model).values():
            quantizer.start_at(quantizer.frac_now + wrong, quantizer.signed)
    return model


def reached(model: nn.Module) -> float:
    return accuracy(qnn.exact(model), data().test_x, data().test_y)


def learned(wrong: int) -> tuple[float, list[int]]:
    """The mean accuracy of trainings that start ``wrong``, and how far each binary point went in them."""
    found, gone = [], []
    for seed in SEEDS:
        model = fit(started(wrong), data(), replace(SETTINGS, seed=seed))
        found.append(reached(model))
        for move in qnn.moves(model).values():
            gone += [now - was for was, now in zip(move.before, move.now, strict=True)]
    return sum(found) / len(found), gone


@cache
def right() -> float:
    return learned(0)[0]


@pytest.mark.parametrize("wrong", [2, -2])
def test_training_comes_back_from_binary_points_that_are_wrong_by_two_bits(wrong: int) -> None:
    before, (after, gone) = reached(started(wrong)), learned(wrong)
    assert before < right() - 5 and after >= right() - 0.2, (before, after, right())
    back, away = (sum(sign * step * wrong > 0 for step in gone) for sign in (-1, 1))
    assert back > 0.3 * len(gone) > 10 * away, (back, away, len(gone))


@pytest.mark.parametrize("wrong", [2, -2])
def test_with_frozen_binary_points_it_does_not(wrong: int) -> None:
    model = fit(started(wrong), data(), replace(SETTINGS, formats="frozen"))
    assert not any(move.moved for move in qnn.moves(model).values())
    assert reached(model) < right() - 0.4, (reached(model), right())
