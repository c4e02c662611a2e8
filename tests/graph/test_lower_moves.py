"""Layers that only move values, and transposed convolutions, give torch's integers in the graph."""

import copy
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph import Graph
from qfx.graph.lower import lower
from qfx.graph.ops import Affine, DepthToSpace, Select, Slice
from qfx.nn.calibrate import floating
from tests.conformance.engines import difference, run_csim, run_rtl
from tests.conformance.random_graphs import random_codes
from tests.graph.lowering import calibrated, equals_torch


class Shuffled(nn.Module):
    """A unit of ShuffleNet V2, its shuffle in the words of its authors, and other cuts of channels, on 4x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(7, 3, 1)
        self.mix, self.other = nn.ChannelShuffle(2), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        x = torch.cat((a, F.relu(self.branch(b))), 1)
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        x = torch.transpose(x, 1, 2).contiguous()
        x = self.other(self.mix(x.view(batch, -1, height, width)))
        head, tail = torch.split(x, [2, 3], 1)
        return self.last(torch.cat((tail[:, ::2], torch.split(x, 2, dim=1)[2], tail, head[:, 1:]), 1))


class Cropped(nn.Module):
    """Slices of all kinds, right behind convolutions too, on 3x9x8 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(15, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x[:, :, 1:])
        inner = F.pad(x[:, 1:5, 1:-1, ::2], (0, 0, 0, 0, 1, 1))
        return self.last(torch.cat((inner, x[..., 1:5, :-3].split(3, -1)[0], inner[:, :3]), 1))


class Super(nn.Module):
    """Sub-pixel convolution, on 2x5x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grow, self.last = nn.Conv2d(2, 12, 3), nn.PixelShuffle(2), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.last(self.grow(self.stem(x))), 2)


class Decoder(nn.Module):
    """Transposed convolutions of the usual kinds, on 3x4x5 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 0), groups=2)
        self.last = nn.ConvTranspose2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.grouped(F.relu(self.norm(self.up(x))))))


class Voice(nn.Module):
    """A signal that grows and is cut, on 2x7 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv1d(2, 4, 3), nn.ConvTranspose1d(4, 3, 5, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.stem(x)))[:, 1:, 1:-2:2]


NETS = {Shuffled: (4, 6, 6), Cropped: (3, 9, 8), Super: (2, 5, 6), Decoder: (3, 4, 5), Voice: (2, 7)}


def made(net: type[nn.Module]) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network, itself in fixed point, and an input batch."""
    torch.manual_seed(5)
    x = torch.randn(4, *NETS[net])
    plain = net()
    return plain, calibrated(copy.deepcopy(plain), x), x


@pytest.mark.parametrize("net", NETS)
def test_a_network_gives_the_integers_of_torch(net: type[nn.Module]) -> None:
    plain, model, x = made(net)
    assert equals_torch(lower(model, x), model, x)
    assert plain.state_dict().keys() <= model.state_dict().keys()
    with floating(model):
        if net is not Decoder:  # its BatchNorm has seen the batch
            torch.testing.assert_close(model(x), plain.eval()(x))


def test_a_shuffle_of_views_is_one_select() -> None:
    _, model, x = made(Shuffled)
    shuffles = [node.op for node in lower(model, x).nodes if node.op == Select((0, 3, 1, 4, 2, 5))]
    assert len(shuffles) == 2  # the views and nn.ChannelShuffle


def test_a_swapped_channel_and_a_shifted_row_show() -> None:
    _, model, x = made(Cropped)
    for name, change in (("getitem_1", {"channels": (2, 6, None)}), ("getitem", {"rows": (0, -1, None)})):
        other = copy.deepcopy(model)
        for field, value in change.items():
            setattr(other.get_submodule(name), field, value)
        assert not np.array_equal(lower(model, x).evaluate(x.numpy(), "NCHW"), qnn.exact(other)(x).numpy())


# ---------------------------------------------------------------------------------------------------------------------
# Transposed convolutions


def transposed(*arguments: object, **named: object) -> tuple[Graph, nn.Module, Tensor]:
    """One layer of 4 to 6 channels in fixed point, on images of 4x5."""
    torch.manual_seed(1)
    x = torch.randn(2, 4, 4, 5)
    model = calibrated(nn.Sequential(nn.ConvTranspose2d(4, 6, *arguments, **named)), x)  # type: ignore[arg-type]
    return lower(model, x), model, x


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_every_geometry_gives_the_integers_of_torch(groups: int, dilation: int) -> None:
    for kernel, stride, padding, more in product((1, 2, 3, 4), (1, 2, 3), (0, 1, 2), (0, 1)):
        out = 3 * stride - 2 * padding + dilation * (kernel - 1) + more + 1
        if more < max(stride, dilation) and out >= 1:
            graph, model, x = transposed(kernel, stride, padding, more, groups, dilation=dilation)
            assert equals_torch(graph, model, x), (kernel, stride, padding, more)


@pytest.mark.parametrize(
    ("arguments", "window", "places"),
    [((2, 2), 1, (4, 5)), ((3, 2, 1, 1), 2, (4, 5)), ((4, 2, 1), 2, (5, 6)), ((3, 1, 1), 3, (4, 5))],
)
def test_no_result_multiplies_the_zeros_between_pixels(arguments: tuple, window: int, places: tuple) -> None:
    graph, _, _ = transposed(*arguments)
    conv = next(node for node in graph.nodes if "Conv2d" in type(node.op).__name__)
    assert graph.constants[conv.inputs[1]].codes.shape[:2] == (window, window) and conv.type.shape[:2] == places


def test_an_exact_transposed_convolution_is_that_of_its_real_weights() -> None:
    _, model, x = transposed(3, 2, 1, 1, 2)
    (layer,) = (each for each in model.modules() if isinstance(each, qnn.ConvTranspose2d))
    weight, bias = layer.effective()
    assert weight.shape == (6, 2, 3, 3)
    assert torch.equal(layer._convolve(x, weight, bias), F.conv_transpose2d(x, layer.weight, bias, 2, 1, 1, 2))
    torch.testing.assert_close(layer._of_zeros(x, weight, bias), layer._convolve(x, weight, bias))
    layer.train()(x).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().max() > 0


def test_a_phase_out_of_place_shows() -> None:
    graph, model, x = transposed(4, 2, 1)
    cut = next(node for node in graph.nodes if isinstance(node.op, Slice))
    assert cut.op == Slice((1, 9, 1), (1, 11, 1))
    moved = graph.replace_nodes(
        tuple(node if node.name != cut.name else replace(node, op=Slice((0, 8, 1), (1, 11, 1))) for node in graph.nodes)
    )
    assert equals_torch(graph, model, x) and not equals_torch(moved, model, x)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_norm_folded_into_a_transposed_convolution_gives_the_integers_of_torch(groups: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 4, 4, 5)
    layers = nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=groups, bias=groups > 1), nn.BatchNorm2d(6), nn.ReLU()
    model = calibrated(nn.Sequential(*layers, nn.Conv2d(6, 2, 1)), x, {"layers": {"1": {"fold": True}}})
    graph = lower(model, x)
    assert not any(isinstance(node.op, Affine) for node in graph.nodes) and equals_torch(graph, model, x)
    with torch.no_grad():
        model.get_submodule("1").weight[0] *= 1.5
    assert not equals_torch(graph, model, x) and equals_torch(lower(model, x), model, x)
    before = model.get_submodule("1").running_mean.clone()
    model.train()(x).square().sum().backward()
    assert model.get_submodule("1").weight.grad.abs().sum() > 0
    assert not torch.equal(before, model.get_submodule("1").running_mean)


def test_a_transposed_convolution_is_exact_in_csim_and_rtl() -> None:
    graph, _, _ = transposed(4, 2, 1, 0, 2)
    assert {DepthToSpace, Select, Slice} <= {type(node.op) for node in graph.nodes}
    codes = random_codes(graph, 4, 0)
    assert difference(graph, codes, run_csim) is None
    assert difference(graph, codes, run_rtl) is None


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


class Calls(nn.Module):
    """A call between two convolutions of 6 channels."""

    def __init__(self, call) -> None:
        super().__init__()
        self.call, self.stem = call, nn.Conv2d(2, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.stem(x))


REFUSED = {
    "batch": (lambda x: x[1:], "it must keep the batch whole: the first slice must be ':'"),
    "batch step": (lambda x: x[::2, :], "it must keep the batch whole: the first slice must be ':'"),
    "axis": (lambda x: x[:, 0], "it must keep its axes: take x[:, 0:1] instead of x[:, 0]"),
    "nothing": (lambda x: x[:, :, 3:2], "it must leave something of 6x4x5, not nothing"),
    "chunk rows": (
        lambda x: x.chunk(2, 2)[0],
        "it must chunk channels, dim=1: use torch.split or slices along other axes",
    ),
    "chunk batch": (lambda x: torch.chunk(x, 2)[0], "it must chunk channels, dim=1, and keep the batch whole"),
    "groups": (lambda x: F.channel_shuffle(x[:, :4], 2)[:, 4:], "it must leave something of 4x4x5, not nothing"),
    "negative pad": (
        lambda x: F.pad(x, (0, 0, 0, 0, -1, 2)),
        "it must add channels of zeros, not constant 0 at (-1, 2)",
    ),
    "padded with ones": (
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), value=1.0),
        "it must add channels of zeros, not constant 1.0 at (1, 1)",
    ),
    "pads at once": (
        lambda x: F.pad(x, (1, 1, 0, 0, 1, 1)),
        "it must pad channels alone: pad the sides of an image in another call, right before a convolution",
    ),
    "flat": (lambda x: x.flatten(1)[:, 3:], "it must not read a flattened image: choose channels before the Flatten"),
    "data": (lambda x: x[:, x.size(0) :], "its slices must have numbers for ends, none that depend on the input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_is_no_move_of_ours_is_refused(name: str) -> None:
    call, reason = REFUSED[name]
    with pytest.raises(LowerError, match=re.escape(reason)):
        qnn.convert(Calls(call).eval(), None, torch.randn(2, 2, 4, 5))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.PixelShuffle(4), "its square of upscale_factor must divide the channels, not be 4x4 of 6 channels"),
        (nn.ChannelShuffle(4), "its groups must divide the 6 channels, not be 4"),
    ],
)
def test_uneven_groups_are_refused_where_a_shape_tells(layer: nn.Module, reason: str) -> None:
    from qfx.nn.conversion import Conversion
    from qfx.nn.converters import MODULES
    from qfx.nn.recipe import Recipe
    from qfx.nn.trace import trace

    traced = trace(nn.Sequential(layer))
    source = next(iter(traced.graph.nodes))
    source.meta["shape"] = (6, 4, 5)
    node = source.next
    assert MODULES[type(layer)](Conversion(traced, Recipe(None)), node, layer, "0") == reason


def test_an_output_size_is_refused() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(2, 2, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(x, output_size=(10, 11))

    with pytest.raises(LowerError, match=r"up \(ConvTranspose2d\): it must have output_padding, and no output_size in"):
        qnn.convert(Sized())


def test_dots_need_an_example() -> None:
    with pytest.raises(LowerError, match=re.escape("a slice for each axis instead of '...'")):
        qnn.convert(nn.Sequential(nn.ReLU(), Dots()))


class Dots(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:]
