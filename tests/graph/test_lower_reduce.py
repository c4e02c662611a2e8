"""Attention as users write it: sums, means and largest values over channels and pixels, and features as a pixel."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph.lower import lower
from qfx.graph.ops import ChannelMax, ChannelSum, Conv2d, Dense, Flatten, MaxPool
from qfx.nn.calibrate import floating
from tests.conformance.engines import difference, run_csim, run_rtl
from tests.conformance.random_graphs import random_codes
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong, made


class SqueezeExcite(nn.Module):
    """Squeeze and excitation by dense layers, whose features a second head reads too."""

    reads = (3, 6, 5)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)
        self.fc = nn.Sequential(nn.Linear(4, 2), nn.ReLU(inplace=True), nn.Linear(2, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.stem(x))
        b, c, _, _ = x.size()
        y = self.fc(self.pool(x).view(b, c))
        return x * y.view(b, c, 1, 1).expand_as(x), self.head(y + y.softmax(1)), y


class Attention(nn.Module):
    """Channel and spatial attention by means and largest values."""

    reads = (3, 6, 4)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), nn.Linear(3, 4)
        self.most, self.where = nn.AdaptiveMaxPool2d(1), nn.Conv2d(2, 1, 3, padding=1)

    def gate(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.gate(F.adaptive_avg_pool2d(x, 1)) + self.gate(self.most(x))
        x = x * torch.sigmoid(y).unsqueeze(2).unsqueeze(3)
        largest, _ = torch.max(x, dim=1, keepdim=True)
        return x * torch.sigmoid(self.where(torch.cat([torch.mean(x, dim=1, keepdim=True), largest], dim=1)))


class Decoder(nn.Module):
    """An image of what a dense layer makes of a flattened one."""

    reads = (2, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.down, self.fc, self.drop = nn.Conv2d(2, 3, 3, 2, 1), nn.Linear(12, 5), nn.Dropout(0.0)
        self.up, self.image, self.last = nn.Linear(5, 24), nn.Unflatten(1, (4, 2, 3)), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.fc(self.drop(F.relu(self.down(x)).flatten(1)))
        return self.last(F.pad(self.image(self.up(code)), (1, 1, 1, 1))), code


class Signals(nn.Module):
    """The same of signals."""

    reads = (3, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.last = nn.Conv1d(3, 4, 3), nn.Linear(4, 4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.fc(x.amax(2)).unsqueeze(-1) + x * F.adaptive_max_pool1d(x, 1)
        return self.last(x.sum(1)) + self.last(x.max(1).values)


NETS = (SqueezeExcite, Attention, Decoder, Signals)


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
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None


@pytest.mark.parametrize(
    ("net", "victim"),
    [(SqueezeExcite, "fc.0.weight"), (Attention, "mean.scale"), (Decoder, "fc.weight"), (Signals, "fc.bias")],
)
def test_a_changed_constant_shows(net: type[nn.Module], victim: str) -> None:
    _, model, x = made(net)
    graph = lower(model, x)
    assert not equals_torch(changed(graph, victim, np.negative), model, x)


@pytest.mark.parametrize("net", NETS)
def test_they_train(net: type[nn.Module]) -> None:
    _, model, x = made(net)
    results = model.train()(x)
    sum(result.square().sum() for result in (results if isinstance(results, tuple) else (results,))).backward()
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in weights)


@pytest.mark.parametrize("net", [SqueezeExcite, Attention, Decoder])
def test_csim_gives_them_too(net: type[nn.Module]) -> None:
    _, model, x = made(net)
    graph = lower(model, x)
    codes = random_codes(graph, 3, 0)
    assert difference(graph, codes, run_csim) is None


def test_the_rtl_gives_them_too() -> None:
    graph = lower(*made(SqueezeExcite)[1:])
    assert difference(graph, random_codes(graph, 3, 0), run_rtl) is None


def test_features_that_become_a_pixel_are_convolutions_and_others_are_not() -> None:
    _, model, x = made(SqueezeExcite)
    graph = lower(model, x)
    kinds = {node.name: type(node.op) for node in graph.nodes}
    assert kinds["fc.0"] is kinds["fc.2"] is Conv2d and kinds["head"] is Dense
    assert sum(kind is Flatten for kind in kinds.values()) == 2  # before the head, and of the third result
    kinds = {type(node.op) for node in lower(*made(Attention)[1:]).nodes}
    assert {ChannelMax, ChannelSum, MaxPool} <= kinds


class Called(nn.Module):
    """A call on an image of 4 channels, 6x6 pixels, with layers that it may use."""

    def __init__(self, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.fc, self.head, self.call = nn.Linear(4, 4), nn.Linear(4, 3), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, self.stem(x))


def excited(turn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    return lambda net, x: x * turn(torch.sigmoid(net.fc(x.mean((2, 3)))), x)


OVER_CHANNELS = {
    "sum": lambda net, x: x * net.one(x.sum(1, keepdim=True)),
    "mean": lambda net, x: x * net.one(torch.mean(x, -3, True)),
    "amax": lambda net, x: x * net.one(x.amax(dim=1, keepdim=True)),
    "max and its place": lambda net, x: x * net.one(torch.max(x, 1, keepdim=True)[0]),
    "values": lambda net, x: x * net.one(x.max(dim=1, keepdim=True).values),
    "without its axis": lambda net, x: x * net.one(x.sum(1).unsqueeze(1)),
    "without it, by None": lambda net, x: x * net.one(x.max(1)[0][:, None]),
}
OVER_PIXELS = {
    "amax": lambda net, x: net.head(x.amax((2, 3))),
    "amax, kept": lambda net, x: x * x.amax([2, 3], keepdim=True) + x.amax(3, keepdim=True),
    "sum": lambda net, x: net.head(x.sum(dim=(-2, -1))),
    "sum, kept": lambda net, x: x * torch.sum(x, (2, 3), keepdim=True) + x.sum(2, keepdim=True),
    "mean of means": lambda net, x: net.head(x.mean(3).mean(2)),
    "max of max": lambda net, x: net.head(x.max(2)[0].max(2)[0]),
    "windows": lambda net, x: F.adaptive_max_pool2d(x, (2, 3)),
    "one place": lambda net, x: net.head(x[:, :, 0, -1]),
}
PIXELS = {
    "view": excited(lambda y, x: y.view(x.size(0), x.size(1), 1, 1)),
    "view by numbers": excited(lambda y, x: y.view(-1, 4, 1, 1)),
    "view by shape": excited(lambda y, x: y.reshape(x.shape[0], -1, 1, 1)),
    "unsqueeze": excited(lambda y, x: y.unsqueeze(-1).unsqueeze(-1)),
    "None": excited(lambda y, x: y[:, :, None, None]),
    "dots": excited(lambda y, x: y[..., None, None]),
    "unflatten": excited(lambda y, x: y.unflatten(1, (-1, 1, 1))),
    "expanded": excited(lambda y, x: y[:, :, None, None].expand(-1, -1, 6, 6)),
    "squeezed and back": lambda net, x: x * net.fc(F.adaptive_avg_pool2d(x, 1).squeeze(3).squeeze(2))[:, :, None, None],
    "squeezed at once": lambda net, x: net.head(F.adaptive_avg_pool2d(x, 1).squeeze((2, 3))),
    "an image of four": lambda net, x: net.one(net.fc(x.mean((2, 3))).view(x.size(0), 1, 2, 2)),
}
SPELLED = {
    f"{kind}: {name}": call
    for kind, calls in (("channels", OVER_CHANNELS), ("pixels", OVER_PIXELS), ("pixel", PIXELS))
    for name, call in calls.items()
}


@pytest.mark.parametrize("name", SPELLED)
def test_each_spelling_gives_the_integers_of_torch(name: str) -> None:
    torch.manual_seed(4)
    network, x = Called(SPELLED[name]), torch.rand(4, 3, 6, 6) * 2 - 1
    model = calibrated(network, x)
    assert equals_torch(lower(model, x), model, x)
    wanted = network(x)
    assert ((qnn.exact(model)(x) - wanted).abs().mean() / wanted.abs().mean()).item() < 0.15


def test_without_an_example_what_is_certain_converts_too() -> None:
    x = torch.rand(4, 3, 6, 6)
    sure = ("sum", "amax", "values", "without its axis")
    for call in (*(OVER_CHANNELS[name] for name in sure), OVER_PIXELS["amax"], PIXELS["view"], PIXELS["None"]):
        model = qnn.calibrate(qnn.convert(Called(call).eval()), [x])
        assert equals_torch(lower(model, x), model, x)


REFUSED = {
    "an axis less": (lambda net, x: x.sum(1), r"sum \(sum\): it must keep its axes: give it keepdim=True, which unsq"),
    "rows of a signal": (lambda net, x: x.max(2)[0], r"max\): it must keep its axes|getitem\): it must keep its axes"),
    "everything": (lambda net, x: x * x.sum(), r"sum \(sum\): use all of an image, dim=\(2, 3\), or its channels, its"),
    "places": (lambda net, x: F.adaptive_max_pool2d(x, 4), r"must divide evenly into 4 windows, not be 6 wide"),
    "flattened": (
        lambda net, x: x.flatten(1).view(x.size(0), -1, 1, 1),
        r"it must not read a flattened image: put a Linear between, or leave both out",
    ),
    "a long signal": (
        lambda net, x: net.fc(x.mean((2, 3))).view(x.size(0), 2, 2),
        r"it must make an image \(C, H, W\) of the features, or a signal of length 1, not one of length 2",
    ),
    "expanded for itself": (
        lambda net, x: net.stem(x[:, :3].mean((2, 3), keepdim=True).expand(-1, -1, 6, 6)),
        r"expand \(expand\): there is no fixed-point form of it: leave it out, sums and products repeat what has an ax",
    ),
    "a mean kept behind one that is not": (
        lambda net, x: net.head(x.mean(3).mean(2, keepdim=True).flatten(1)),
        r"mean \(mean\): it must keep its axes",
    ),
    "expanded for a smaller one": (
        lambda net, x: x[:, :1] * x[:, :1].expand(-1, 4, -1, -1) * x,
        r"expand \(expand\): there is no fixed-point form of it: leave it out",
    ),
    "squeezed at random": (lambda net, x: net.head(x.mean((2, 3), True).squeeze()), r"use torch.flatten\(x, 1\), or"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_form_is_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(LowerError, match=message):
        qnn.convert(Called(call), None, torch.rand(2, 3, 6, 6))


def test_lowering_refuses_features_that_are_no_image() -> None:
    x = torch.rand(4, 6)
    model = qnn.calibrate(qnn.convert(nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (4, 1, 1))), None, x), [x])
    with pytest.raises(LowerError, match=r"'0' must read features that come from an image, by a Flatten, not the net"):
        lower(model.eval(), x)
    x = torch.rand(4, 2, 3, 3)
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Softmax(1), nn.Linear(18, 4), nn.Unflatten(1, (4, 1, 1)))
    model = qnn.calibrate(qnn.convert(net, None, x), [x])
    with pytest.raises(LowerError, match=r"features of '1' must be read by a Linear, with nothing but activations be"):
        lower(model.eval(), x)
