"""Training that diverges says in which layer."""

import pytest
import torch
from torch import nn

import qfx.nn as qnn
from qfx.errors import TrainError
from qfx.train import Data
from qfx.train.loop import Settings, fit
from qfx.train.watchdog import first_diverged


class Overflows(nn.Module):
    """A layer whose result leaves float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1e38 * 1e38


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))


def data(x: torch.Tensor | None = None) -> Data:
    x = torch.rand(64, 1, 4, 4) if x is None else x
    return Data(x, torch.arange(len(x)) % 2, x, torch.arange(len(x)) % 2)


def test_the_first_layer_that_is_not_finite_is_named_and_nothing_is_changed() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(Overflows(), nn.ReLU()), nn.Flatten())
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    assert first_diverged(net, torch.rand(2, 1, 3, 3)).startswith("layer '1.0' is the first to give NaN or infinity")
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_a_parameter_is_named() -> None:
    net = model()
    with torch.no_grad():
        net[4].bias[0] = float("inf")
    assert first_diverged(net, torch.rand(2, 1, 4, 4)).startswith("parameter '4.bias' holds NaN or infinity")


def test_data_that_augmentation_spoils_is_named() -> None:
    with pytest.raises(TrainError, match=r"the loss must stay finite, not nan; the input holds NaN or infinity: look"):
        fit(model(), data(), Settings(epochs=1, lr=1e-3), augment=lambda x: x * float("nan"))


def test_training_at_an_absurd_rate_names_what_left_the_numbers_first() -> None:
    fixed = qnn.calibrate(qnn.convert(model(), None, torch.rand(2, 1, 4, 4)), [torch.rand(64, 1, 4, 4)])
    with pytest.raises(TrainError, match=r"the loss must stay finite, not (nan|inf); .*'.*: lower the learning rate"):
        fit(fixed, data(), Settings(epochs=60, lr=1e38))
