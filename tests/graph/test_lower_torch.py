"""Networks in torch's own words (signals, padding, ReLU6, modules called twice) give torch's integers in the graph."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import Overflow, Rounding
from qfx.graph.lower import lower
from qfx.graph.ops import Clamp, Concat, Conv2d, MaxPool, Requantize, SumPool, Upsample
from qfx.nn.calibrate import floating
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong, made

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


class Signal(nn.Module):
    """Every layer for (N, C, L)."""

    reads = (2, 20)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(2, 6, 5, stride=2, padding=3), nn.BatchNorm1d(6)
        self.depthwise = nn.Conv1d(6, 6, 4, padding="same", dilation=2, groups=6)
        self.average, self.point = nn.AvgPool1d(3, 1, 1), nn.Conv1d(6, 8, 1)
        self.hidden, self.classify = nn.Linear(8 * 3, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.norm(self.stem(F.pad(x, (0, 1))))), 2)
        x = F.relu(x + self.average(self.depthwise(x)))
        x = self.point(x)
        x = F.relu(self.hidden(F.adaptive_avg_pool1d(x, 3).flatten(1))) + x.mean(-1)
        return self.classify(x)


class Padded(nn.Module):
    """Padding in all its spellings."""

    reads = (3, 9, 10)

    def __init__(self) -> None:
        super().__init__()
        self.border = nn.ZeroPad2d((1, 0, 2, 1))
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=(0, 1))
        self.even, self.last = nn.Conv2d(6, 6, (2, 4), padding="same"), nn.Conv2d(6, 4, 2)
        self.average = nn.AvgPool2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(self.border(x)))
        x = F.max_pool2d(F.pad(x, (0, 1, 2, 0)), 3, 2)
        x = self.average(F.pad(self.even(x), [1, 0, 0, 1], mode="constant", value=0))
        return self.last(F.pad(F.pad(x, (0, 1)), (1, 0, 0, 2)))


class Bounded(nn.Module):
    """Both bounds, behind convolutions, BatchNorm, and an average."""

    reads = (2, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.six = nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU6()
        self.point, self.tanh = nn.Conv2d(5, 5, 1), nn.Hardtanh(-0.3, 0.7)
        self.last = nn.Conv2d(5, 3, 1)
        nn.init.constant_(self.norm.weight, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.six(self.norm(self.stem(x)))
        x = F.hardtanh(self.tanh(self.point(x)) + F.relu6(x), -2.0, 1.3)
        return self.last(F.avg_pool2d(x, 2).clamp(0, 0.9)).clamp(min=0)


class Twice(nn.Module):
    """One convolution, BatchNorm and Linear, each called twice."""

    reads = (4, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.mix = nn.Linear(4, 4)
        nn.init.constant_(self.mix.bias, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.relu(self.norm(self.conv(x)))
        x = torch.mean(x, dim=(-2, -1))
        return self.mix(F.relu(self.mix(x)))


class Averaged(nn.Module):
    """Adaptive pooling into all even windows."""

    reads = (2, 8, 12)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(dim=-2, keepdim=True)
        squares = F.adaptive_avg_pool2d(x, (4, 3)).mean((2, 3), keepdim=True)
        strips = F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(x, (None, 6)), (1, None))
        return (
            squares + rows.mean(2, keepdim=True) + F.adaptive_avg_pool2d(strips, 1) + F.adaptive_avg_pool2d(columns, 1)
        )


class Joined(nn.Module):
    """Channels joined in all spellings: exact results, formats of their own, a tensor twice."""

    reads = (3, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.grow = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=1)
        self.mixed, self.point, self.last = nn.BatchNorm2d(9), nn.Conv2d(27, 6, 1), nn.Linear(11, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norm(self.stem(x)))
        b = self.mixed(torch.cat((self.grow(a), a), 1))
        c = self.point(torch.concat([F.relu(b), F.max_pool2d(b, 3, 1, 1), b], dim=-3))
        return self.last(torch.cat(tensors=(c.mean((2, 3)), F.relu(a.mean((2, 3)))), dim=-1))


class Grown(nn.Module):
    """A small U-Net: pixels repeated in all spellings and joined to those of a skip."""

    reads = (2, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.deep = (
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 6, 3, padding=1),
        )
        self.up, self.wide = nn.UpsamplingNearest2d(scale_factor=2), nn.Upsample(scale_factor=(1, 3.0))
        self.merge, self.last = nn.Conv2d(10, 5, 3, padding=1), nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.norm(self.stem(x)))
        x = self.merge(torch.cat((self.up(F.relu(self.deep(F.max_pool2d(skip, 2)))), skip), 1))
        small = F.avg_pool2d(self.wide(x), (1, 3))
        return self.last(
            torch.cat((F.interpolate(x, scale_factor=3, mode="nearest"), F.interpolate(small, None, 3)), 1)
        )


class Echo(nn.Module):
    """A signal and its echo."""

    reads = (2, 12)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.interpolate(F.relu(self.stem(x)), None, 3, "nearest-exact"))


NETS = (Signal, Padded, Bounded, Twice, Averaged, Joined, Grown, Echo)


@pytest.mark.parametrize("net", NETS)
def test_the_converted_network_in_float_is_the_network(net: type[nn.Module]) -> None:
    network, model, x = made(net, {"default": {"constant": 20}})  # a reciprocal is a code in float, too
    with floating(model):
        torch.testing.assert_close(model(x), copy.deepcopy(network).eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("net", NETS)
def test_the_graph_gives_the_integers_of_torch(net: type[nn.Module], bits: int) -> None:
    _, model, x = made(net, {"default": {"weight": bits, "activation": bits, "elementwise": bits + 1}})
    graph = lower(model, x)
    assert equals_torch(graph, model, x)
    assert first_wrong(graph, model, x) is None


@pytest.mark.parametrize(("net", "victim"), [(Signal, "depthwise"), (Padded, "even"), (Twice, "conv_1")])
def test_a_swapped_channel_shows(net: type[nn.Module], victim: str) -> None:
    _, model, x = made(net)
    graph = changed(lower(model, x), f"{victim}.weight", lambda codes: codes[..., [1, 0, *range(2, codes.shape[-1])]])
    assert first_wrong(graph, model, x) == victim


def test_a_signal_is_an_image_of_height_one() -> None:
    network, model, x = made(Signal)
    graph = lower(model, x)
    assert graph.input.type.shape == (1, 20, 2) and graph.by_name["stem"].op == Conv2d((1, 2), (0, 0, 3, 4))
    assert graph.constants["depthwise.weight"].codes.shape == (1, 4, 1, 6)
    assert model.stem.weight.shape == network.stem.weight.shape == (6, 2, 5)
    assert (graph.evaluate(x.numpy()[:, :, None], "NCHW") == graph.evaluate(x.numpy(), "NCHW")).all()


def test_padding_before_a_layer_becomes_its_own() -> None:
    _, model, x = made(Padded)
    graph = lower(model, x)
    found = {node.name: node.op.padding for node in graph.nodes if isinstance(node.op, Conv2d | MaxPool | SumPool)}
    assert found == {
        "stem": (2, 1, 2, 1),
        "max_pool2d": (2, 0, 0, 1),
        "even": (0, 1, 1, 2),
        "average.sum": (0, 1, 1, 0),
        "last": (0, 2, 1, 1),
    }
    assert not [name for name in dict(model.named_modules()) if "pad" in name or "border" in name]


def test_a_padded_pool_behind_a_relu_is_the_one_whose_padding_never_wins(rng) -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(F.pad(F.relu(x), (2, 2, 2, 2)), 3, 2)

    x = torch.tensor(rng.normal(-1, 1, (4, 2, 6, 6))).float()
    model = calibrated(Pool(), x)
    with floating(model):
        assert torch.equal(model(x), Pool()(x))
    assert equals_torch(lower(model, x), model, x)


@pytest.mark.parametrize("overflow", ["SAT", "SAT_SYM"])
@pytest.mark.parametrize("rounding", [*Rounding])
@pytest.mark.parametrize("frac", [-3, 0, 5])
def test_bounds_are_rounded_as_values_are(rng, frac: int, rounding: Rounding, overflow: str) -> None:
    spec = qnn.Spec(6, frac, True, rounding, Overflow(overflow))
    layer = qnn.Hardtanh(-2.5, 6.0, spec=spec)
    model = nn.Sequential(qnn.Quantizer(qnn.Spec(16, 8, True)), layer)
    x = torch.tensor(rng.integers(-(2**12), 2**12, (4, 3, 8, 8)) / 2**8)
    x[0, 0, 0, :4] = torch.tensor([6.0, -2.5, 5.99609375, -2.49609375])
    graph = lower(model.eval(), x)
    assert equals_torch(graph, model, x)
    low, high = layer.bounds()
    clamp = next(node.op for node in graph.nodes if isinstance(node.op, Clamp))
    assert (clamp.low, clamp.high) == (low, high) == tuple(layer.quant.codes(torch.tensor([-2.5, 6.0])))
    wrong = tuple(replace(node, op=Clamp(low, high - 1)) if node.op == clamp else node for node in graph.nodes)
    assert frac == -3 or not equals_torch(replace(graph, nodes=wrong), model, x)  # a bound that is one code off shows


def test_relu6_behind_batch_norm_has_its_format_and_alone_the_range_of_its_result() -> None:
    _, model, x = made(Bounded)
    assert model.six.quant is model.norm.output_quant and model.tanh.quant is not model.norm.output_quant
    assert model.tanh.quant.format().frac == 7 and model.tanh.quant.signed
    graph = lower(model, x)
    assert isinstance(graph.by_name["six"].op, Clamp)
    assert isinstance(graph.by_name[graph.by_name["six"].inputs[0]].op, Requantize)


def test_an_example_of_another_size_than_the_model_was_converted_for_is_a_sentence() -> None:
    x = torch.rand(2, 1, 8, 8)
    model = calibrated(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)), x)
    with pytest.raises(LowerError) as caught:
        lower(model, torch.zeros(1, 1, 9, 9))
    assert str(caught.value) == (
        "the model must be lowered whole, but:\n- '2' must read 144 features, not 4x7x7: give an example of the size "
        "that the model was converted for"
    )


def test_a_module_called_twice_has_one_weight_and_a_format_for_each_call() -> None:
    network, model, x = made(Twice)
    assert {name for name in model.state_dict() if "quant" not in name} - network.state_dict().keys() <= {
        f"{place}.{part}" for place in ("input", "output") for part in ("frac", "initial", "_extra_state")
    }
    again = model.conv_1
    assert again.weight is model.conv.weight and again.weight_quant is model.conv.weight_quant
    assert again.input_quant is not model.conv.input_quant
    assert model.norm_1.output_quant is not model.norm.output_quant
    names = [name for name, _ in model.named_parameters()]
    assert "conv.weight" in names and [n for n in names if n.startswith("norm_1.")] == ["norm_1.output_quant.frac"]

    later = copy.deepcopy(model).double()
    with torch.no_grad():
        later.conv.weight.mul_(2)
        later.norm.running_mean.add_(1)
    assert torch.equal(later.conv_1.weight, later.conv.weight) and not torch.equal(later.conv.weight, model.conv.weight)
    assert torch.equal(later.norm_1.running_mean, later.norm.running_mean)
    assert later.norm_1.running_mean.dtype == torch.float64

    model.train()(x).square().sum().backward()
    assert model.conv.weight.grad.abs().sum() > 0
    network.train()
    before = network.norm.num_batches_tracked.item()
    assert model.norm.num_batches_tracked.item() == before + 2 and before % 2 == 0


def test_folded_batch_norms_of_a_convolution_called_twice_keep_one_set_of_statistics() -> None:
    network, model, x = made(Twice, {"default": {"fold": True}})
    assert len(model.conv.norm) == len(model.conv_1.norm) == 1 and model.norm_1.weight is model.norm.weight
    assert not [name for name in model.state_dict() if name.startswith("norm_1.")]
    assert equals_torch(lower(model, x), model, x)
    _, model, x = made(Twice, {"layers": {"norm": {"fold": True}}})  # the first call alone
    assert len(model.conv.norm) == 1 and not model.conv_1.norm
    assert equals_torch(lower(model, x), model, x)


def test_a_second_call_that_cannot_share_is_refused() -> None:
    with pytest.raises(
        LowerError, match=r"conv \(Conv2d\): it is called twice with one weight: 'conv_1' must have that"
    ):
        qnn.convert(Twice(), {"layers": {"conv_1": {"weight": 3}}})
    assert qnn.convert(Twice(), {"layers": {"conv*": {"weight": 3}}}).conv_1.weight_quant.width == 3
    deform = qnn.SquareDeformConv2d(2, 3)
    with pytest.raises(LowerError, match=r"0 \(DeformConv2d\): it is called twice: use one module for each call"):
        qnn.convert(nn.Sequential(deform, nn.ReLU(), deform))


def test_concatenation_rounds_nothing_and_each_reader_rounds_once() -> None:
    _, model, x = made(Joined, {"default": {"activation": 4}})
    assert not [name for name in model.state_dict() if name.startswith(("cat", "concat"))]
    graph = lower(model, x)
    assert graph.by_name["cat"].op == Concat() and graph.by_name["cat"].inputs == ("grow", "relu")
    assert graph.by_name["concat"].inputs == ("concat.2", graph.by_name["mixed.out"].name)
    assert graph.by_name["mixed"].inputs[0] == "cat"  # BatchNorm reads the exact result of the convolution
    assert graph.by_name["point.in"].inputs == ("concat",)


def test_swapped_operands_of_a_concatenation_show() -> None:
    _, model, x = made(Joined)
    graph = lower(model, x)
    swapped = tuple(
        replace(node, inputs=node.inputs[::-1]) if node.name == "concat.2" else node for node in graph.nodes
    )
    assert equals_torch(graph, model, x) and not equals_torch(replace(graph, nodes=swapped), model, x)


def test_a_concatenation_along_another_axis_or_of_flattened_images_is_refused() -> None:
    class Joins(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = torch.cat((x.flatten(1), x.flatten(1)), 1)
            return torch.cat((x, x)), torch.cat([x, x], dim=-1), flat

    with pytest.raises(LowerError) as caught:
        qnn.convert(Joins(), None, torch.rand(2, 3, 4, 4))
    assert str(caught.value).splitlines()[1:] == [
        "  cat (Concat): it must not join flattened images: concatenate the images before the Flatten",
        "  cat_1 (cat): it must join channels: torch.cat(tensors, 1)",
        "  cat_2 (cat): it must join channels: torch.cat(tensors, 1)",
    ]


def test_a_concatenation_of_flattened_images_written_by_hand_is_refused_in_lowering() -> None:
    class Joins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.flat, self.join = qnn.Quantizer(qnn.Spec(8, 0, True), axis=1), qnn.Flatten(), qnn.Concat()
            self.fc = qnn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.flat(self.input(x))
            return self.fc(self.join(x, x))

    x = torch.rand(2, 1, 2, 3)
    with pytest.raises(LowerError, match="operands of 'join' must not be flattened images: concatenate before the Fl"):
        lower(qnn.calibrate(Joins(), [x]).eval(), x)


def test_a_signal_grows_along_its_one_axis() -> None:
    _, model, x = made(Echo)
    assert lower(model, x).by_name["interpolate"].op == Upsample((1, 3))


def test_swapped_factors_of_an_upsampling_show() -> None:
    torch.manual_seed(1)
    x = torch.rand(4, 2, 6, 6)
    model = calibrated(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Upsample(scale_factor=(1, 3)), nn.AvgPool2d((1, 3))), x)
    graph = lower(model, x)
    assert graph.by_name["1"].op == Upsample((1, 3)) and equals_torch(graph, model, x)
    model.get_submodule("1").factor = (3, 1)
    assert not np.array_equal(graph.evaluate(x.numpy(), "NCHW"), qnn.exact(model)(x).numpy())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.UpsamplingBilinear2d(scale_factor=2), "its mode must be 'nearest', not 'bilinear'"),
        (nn.Upsample(scale_factor=2, mode="bicubic"), "its mode must be 'nearest', not 'bicubic'"),
        (nn.Upsample(scale_factor=1.5), "its scale_factor must be a whole number, not 1.5"),
        (nn.Upsample(scale_factor=(2.0, 0.5)), "its scale_factor must be a whole number, not (2.0, 0.5)"),
        (nn.Upsample(size=8), "its scale_factor must be a whole number, not size 8"),
    ],
)
def test_another_upsampling_than_by_whole_factors_is_refused(layer: nn.Module, reason: str) -> None:
    with pytest.raises(LowerError, match=rf"0 \({type(layer).__name__}\): {re.escape(reason)}"):
        qnn.convert(nn.Sequential(layer))


def test_padding_that_is_read_elsewhere_is_refused_and_read_by_several_layers_is_taken() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad, self.a, self.b = nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pad(x)
            return self.b(self.pad(F.relu(self.a(x) + self.b(x))))

    x = torch.rand(4, 4, 5, 5)
    model = calibrated(Shared(), x)
    assert equals_torch(lower(model, x), model, x)
    assert isinstance(qnn.convert(nn.Sequential(nn.ZeroPad2d(1), nn.ReLU())).get_submodule("0"), qnn.ZeroPad)
    twice = nn.ZeroPad2d(1)
    assert isinstance(qnn.convert(nn.Sequential(twice, nn.Conv2d(1, 1, 3), twice)).get_submodule("0"), qnn.ZeroPad)


def test_an_overflow_mode_that_does_not_saturate_is_refused_for_relu6() -> None:
    with pytest.raises(
        LowerError, match=r"1 \(ReLU6\): it must have overflow SAT or SAT_SYM at 'elementwise', not WRAP"
    ):
        qnn.convert(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU6()), {"default": {"elementwise": {"overflow": "WRAP"}}})
    wraps = qnn.Spec(8, 0, True, overflow=Overflow.WRAP)
    model = nn.Sequential(qnn.Quantizer(qnn.Spec(8, 0, True)), qnn.Hardtanh(spec=wraps))
    with pytest.raises(LowerError, match="result of '1' must have overflow SAT or SAT_SYM, not WRAP: values"):
        lower(qnn.calibrate(model, [torch.zeros(1, 2, 2, 2)]).eval(), torch.zeros(1, 2, 2, 2))


def test_an_input_that_is_read_in_two_formats_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = qnn.Quantizer(qnn.Spec(8, 4, True)), qnn.Quantizer(qnn.Spec(4, 2, True))
            self.cat = qnn.Concat()

        def forward(self, x: Tensor) -> Tensor:
            return self.cat(self.a(x), self.b(x))

    with pytest.raises(LowerError, match="the input of 'b' must have one format; use a Quantizer on the model's input"):
        lower(Two().eval(), torch.zeros(1, 2, 2, 2))
