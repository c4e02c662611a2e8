"""Lowering of arithmetic: products, differences and constants give the integers of the torch model."""

import copy
import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph.lower import lower
from qfx.graph.ops import Affine, Multiply, Select, Upsample
from qfx.nn.calibrate import floating
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong, made


class Excited(nn.Module):
    """Squeeze and excitation, spatial attention and both at once."""

    reads = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.where, self.act, self.fc = nn.Conv2d(4, 1, 3, padding=1), nn.Hardsigmoid(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        place = self.act(self.where(x))
        x = torch.mul(x, gate) + place.multiply(x) + gate * place
        v = (x + F.adaptive_avg_pool2d(x, 1)).mean((2, 3))
        return self.fc(v * torch.tanh(v))


class Scaled(nn.Module):
    """Constants in all spellings, of numbers, parameters and buffers."""

    reads = (3, 5, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.gamma = nn.Parameter(torch.tensor([0.3, -0.5, 1.0, 2.0]))
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.5, 0.25, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std[:, None, None] * torch.tensor([1.0, 0.9, 0.8]).view(1, 3, 1, 1)
        y = self.conv(x)
        y = y * 0.25 + self.gamma.view(1, -1, 1, 1) * y / 3
        y = 1 - y + self.alpha
        y = torch.rsub(y, 2.5) - self.conv(x)
        return -y.square() + y**2 * 0.3 + 4 * y


class Flat(nn.Module):
    """Constants and products of a vector of features and of a flattened image."""

    reads = (2, 3, 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.last = nn.Conv2d(2, 2, 1), nn.Linear(24, 5), nn.Linear(5, 3)
        self.weight = nn.Parameter(torch.tensor([0.3, 0.5, 1.0, 2.0, 0.1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(1) * 0.5
        x = self.fc(x * (1.3 - x)) * self.weight
        return self.last(x * x) / 2 - 0.25


class Differing(nn.Module):
    """A difference of signals, and of each from their mean."""

    reads = (2, 9)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sub(self.a(x), self.b(x))
        y -= y.mean(2, keepdim=True)
        return y - F.relu(y)


class Attending(nn.Module):
    """Softmax of images, of a flattened image and of features, in all spellings."""

    reads = (3, 4, 5)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(80, 7), nn.Linear(7, 5)
        self.pixel, self.over = nn.Softmax2d(), nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * self.pixel(x) - F.softmax(3 * x, 1)
        x = self.fc(self.over(x.flatten(1)))
        return torch.softmax(self.last(x.softmax(-1)), dim=1)


NETS = (Attending, Excited, Scaled, Flat, Differing)


@pytest.mark.parametrize("net", NETS)
def test_the_converted_network_in_float_is_the_network(net: type[nn.Module]) -> None:
    network, model, x = made(net, {"default": {"constant": 20}})
    with floating(model):
        torch.testing.assert_close(model(x), copy.deepcopy(network).eval()(x), rtol=1e-4, atol=1e-5)
    assert network.state_dict().keys() <= model.state_dict().keys()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("net", NETS)
def test_the_graph_gives_the_integers_of_torch(net: type[nn.Module], bits: int) -> None:
    points = dict.fromkeys(("weight", "activation", "constant"), bits)
    _, model, x = made(net, {"default": {**points, "elementwise": bits + 1}})
    graph = lower(model, x)
    assert equals_torch(graph, model, x)
    assert first_wrong(graph, model, x) is None


@pytest.mark.parametrize(
    ("net", "victim"),
    [
        (Excited, "excite.weight"),
        (Scaled, "mul_2.scale"),
        (Scaled, "sub.shift"),
        (Flat, "mul.scale"),
        (Attending, "pixel.exp.table"),
    ],
)
def test_a_changed_constant_shows(net: type[nn.Module], victim: str) -> None:
    _, model, x = made(net)
    graph = lower(model, x)
    odd = np.arange(graph.constants[victim].codes.size) % 2
    wrong = changed(graph, victim, lambda codes: codes - odd.reshape(codes.shape) * (codes // 2 + 1))
    assert first_wrong(wrong, model, x) is not None


def test_a_gate_is_broadcast_over_pixels_and_over_channels() -> None:
    _, model, x = made(Excited)
    graph = lower(model, x)
    assert graph.by_name["mul.b.everywhere"].op == Upsample((6, 5))
    assert graph.by_name["multiply.a.channels"].op == Select((0,) * 4)
    assert {n.inputs for n in graph.nodes if isinstance(n.op, Multiply) and n.name == "mul_1"} == {
        ("mul_1.a.everywhere", "mul_1.b.channels")
    }


def test_a_power_of_two_costs_no_multiplication_and_loses_nothing() -> None:
    _, model, x = made(Scaled)
    graph = lower(model, x)
    quarter = graph.by_name["mul_1"]
    constant = graph.constants["mul_1.scale"]
    assert quarter.op == Affine() and quarter.inputs[0] == "conv"  # exact: the codes of the convolution as they are
    assert constant.codes.tolist() == [1] * 4 and constant.max_digits == 1 and constant.fixed.frac == 2
    assert type(model.get_submodule("mul_1")).__name__ == "Scale"


def test_parameters_of_arithmetic_are_trained_and_follow_a_checkpoint() -> None:
    network, model, x = made(Scaled)
    model.train()(x).square().sum().backward()
    assert model.gamma.grad.abs().min() > 0 and model.alpha.grad.abs() > 0
    state = {name: value * 0.5 if name in ("gamma", "mean") else value for name, value in network.state_dict().items()}
    before = model.eval()(x)
    qnn.load(model, state)
    assert not torch.equal(model(x), before)
    again = copy.deepcopy(model)
    again.gamma.data.mul_(0.5)
    assert not torch.equal(again(x), model(x)) and equals_torch(lower(model, x), model, x)


def test_softmax_is_near_the_float_one_and_its_gradients_are() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 10) * 4
    model = calibrated(nn.Sequential(nn.Softmax(1)), x, {"default": {"input": 12, "elementwise": 12, "output": 12}})
    found, wanted = model(x), x.softmax(1)
    assert (found - wanted).abs().max() < 4e-3 and (found.sum(1) - 1).abs().max() < 8e-3
    pick = torch.randn(64, 10)
    (ours,) = torch.autograd.grad((model.train()(x.requires_grad_()) * pick).sum(), x)
    (theirs,) = torch.autograd.grad((x.softmax(1) * pick).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.004)


class Wrong(nn.Module):
    def __init__(self, forward: Callable[["Wrong", Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.own, self.row = nn.Conv2d(3, 3, 1), forward, nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: 2 / x, "truediv (truediv): use a product with qfx.nn.Table(torch.reciprocal)(divisor) instead"),
        (lambda m, x: x / m.conv(x), "truediv (truediv): use a product with qfx.nn.Table(torch.reciprocal)(divisor)"),
        (lambda m, x: x * 0, "mul (mul): its constant must not be 0"),
        (lambda m, x: x + float("inf"), "add (add): its constant must be finite, not NaN or infinity"),
        (
            lambda m, x: m.row * x,
            "mul (mul): its constant must have one value, or one for each channel, of shape (1, C, 1, 1), not (3,)",
        ),
        (lambda m, x: torch.sub(x, m.conv(x), alpha=2), "sub (sub): use a difference of tensors, or of a tensor and"),
        (lambda m, x: x.softmax(-1), "softmax (Softmax): it must be over the channels, dim=1, not -1"),
        (lambda m, x: F.softmax(x, 2), "softmax (Softmax): it must be over the channels, dim=1, not 2"),
        (lambda m, x: x.softmax(1, dtype=torch.float64), "softmax (softmax): there is no fixed-point form of it"),
        (lambda m, x: 2**x, "pow (pow): there is no fixed-point form of it"),
        (
            lambda m, x: x.mean((2, 3)) * x,
            "mul (Multiply): its operands must have one shape, or axes of length 1, not 3 and 3x3x3",
        ),
    ],
)
def test_arithmetic_that_has_no_form_is_refused(forward: Callable[..., Tensor], message: str) -> None:
    example = torch.rand(3, 3, 3, 3)
    with pytest.raises(LowerError) as caught:
        qnn.convert(Wrong(forward), None, example)
    assert f"\n  {message}" in str(caught.value)


def test_a_softmax_of_wide_codes_is_refused() -> None:
    recipe = {"layers": {"softmax": {"elementwise": 13}}}
    with pytest.raises(LowerError, match="softmax .Softmax.: its input must be at most 12 bits wide at 'elementwise'"):
        qnn.convert(Wrong(lambda m, x: F.softmax(m.conv(x), 1)), recipe, torch.rand(2, 3, 4, 4))


def test_a_constant_of_each_channel_needs_an_example() -> None:
    scaled = nn.Sequential(nn.ReLU(), Wrong(lambda m, x: operator.mul(x, m.row)))
    with pytest.raises(LowerError, match="1.mul .mul.: its constant must be a number, unless convert is given an exa"):
        qnn.convert(scaled)
