"""Lowering: the graph's integers are those of the torch model, and a fault in lowering shows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph.lower import lower
from qfx.graph.ops import Add, Affine, Clamp, Conv2d, DeformConv2d, Dense, Flatten, MaxPool, Requantize, SumPool
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong, torch_codes


class Everything(nn.Module):
    """Every layer that lowering knows, with asymmetric weights, strides and a Flatten of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = qnn.Normalize([0.4, 0.5, 0.3], [0.25, 0.2, 0.3])
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.grouped = nn.Conv2d(8, 8, (1, 3), padding=(0, 1), groups=2)
        self.deform = qnn.SquareDeformConv2d(8, 3, bias=True)
        self.norm = nn.BatchNorm2d(8)
        self.average = nn.AvgPool2d(3, stride=1, padding=1)
        self.hidden = nn.Linear(8 * 3 * 4, 12)
        self.classify = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(self.normalize(x))))
        x = F.relu(x + self.grouped(F.relu(self.depthwise(x))))
        x = self.norm(self.deform(x))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = torch.flatten(self.average(x), 1)
        return self.classify(F.relu(self.hidden(x)))


@pytest.fixture
def everything() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    x = torch.randint(0, 256, (6, 3, 12, 16)).float() / 256
    recipe = {
        "default": {"weight": 5, "activation": 4, "input": "u8.8"},
        "layers": {
            "stem": {"weight": {"width": 8, "digits": {"k": 2, "signed": True}}},
            "norm": {"constant": {"width": 8, "digits": {"k": 2, "signed": False}}},
            "grouped": {"activation": {"width": 5, "rounding": "RND_CONV"}},
        },
    }
    return calibrated(Everything(), x, recipe), x


def test_every_node_that_stands_for_a_layer_or_a_quantizer_is_compared(everything: tuple[nn.Module, Tensor]) -> None:
    model, x = everything
    graph = lower(model, x)
    layers = (Conv2d, DeformConv2d, Dense, MaxPool, Flatten)
    asked = {n.name for n in graph.nodes if isinstance(n.op, layers) or n.name.endswith((".in", ".a", ".b", ".out"))}
    assert asked <= {*torch_codes(graph, model, x)}
    assert first_wrong(graph, model, x) is None


def test_a_layer_that_is_called_twice_is_compared_in_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = qnn.Conv2d(2, 2, 3, padding=1), qnn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(F.relu(self.conv(self.pool(F.relu(self.conv(x))))))

    torch.manual_seed(0)
    x = torch.rand(4, 2, 8, 8)
    model = qnn.calibrate(Twice(), [x]).eval()
    graph = lower(model, x)
    assert {"conv", "conv.call2", "pool", "pool.call2"} <= {*torch_codes(graph, model, x)}
    assert first_wrong(graph, model, x) is None


def test_every_layer_gives_the_integers_of_torch(everything: tuple[nn.Module, Tensor]) -> None:
    model, x = everything
    graph = lower(model, x)
    kinds = {type(node.op) for node in graph.nodes}
    assert kinds >= {Conv2d, DeformConv2d, Dense, Affine, Add, MaxPool, SumPool, Requantize, Clamp, Flatten}
    assert equals_torch(graph, model, x)
    assert (model(x).detach().numpy() == graph.evaluate(x.numpy(), "NCHW")).all()


def test_khot_weights_keep_their_promise_in_the_graph(everything: tuple[nn.Module, Tensor]) -> None:
    graph = lower(*everything)
    assert graph.constants["stem.weight"].max_digits == 2
    assert graph.constants["norm.scale"].max_digits == 2


@pytest.mark.parametrize("name", ["stem.weight", "depthwise.weight", "deform.weight", "classify.weight", "norm.shift"])
def test_a_swapped_channel_in_lowering_shows(everything: tuple[nn.Module, Tensor], name: str) -> None:
    model, x = everything
    graph = changed(lower(model, x), name, lambda codes: codes[..., [1, 0, *range(2, codes.shape[-1])]])
    assert not equals_torch(graph, model, x)
    assert first_wrong(graph, model, x) == {"norm.shift": "norm.out"}.get(name, name.removesuffix(".weight"))


def test_a_flatten_in_torch_order_shows(everything: tuple[nn.Module, Tensor]) -> None:
    model, x = everything

    def torch_order(codes: np.ndarray) -> np.ndarray:
        return codes.reshape(3, 4, 8, -1).transpose(2, 0, 1, 3).reshape(codes.shape)

    graph = changed(lower(model, x), "hidden.weight", torch_order)
    assert not equals_torch(graph, model, x)
    assert first_wrong(graph, model, x) == "hidden"


def test_a_wrong_shift_in_lowering_shows(everything: tuple[nn.Module, Tensor]) -> None:
    model, x = everything
    graph = lower(model, x)
    for victim in (node for node in graph.nodes if isinstance(node.op, Requantize) and node.name.endswith(".in")):
        fixed = victim.op.to  # type: ignore[attr-defined]
        wrong = replace(victim.op, to=replace(fixed, frac=fixed.frac + 1))
        nodes = [replace(node, op=wrong) if node is victim else node for node in graph.nodes]
        assert first_wrong(replace(graph, nodes=tuple(nodes)), model, x) == victim.name


def test_a_model_written_with_our_layers_lowers_without_convert() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(qnn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), qnn.MaxPool2d(2), qnn.Flatten(), qnn.Linear(16, 3))
    x = torch.randn(8, 2, 4, 4)
    qnn.calibrate(model, [x])
    graph = lower(model.eval(), x)
    assert equals_torch(graph, model, x)


@pytest.mark.parametrize(
    ("layers", "path"),
    [
        ((qnn.Quantizer(qnn.Spec(8)), qnn.ReLU()), "0"),
        ((qnn.Quantizer(qnn.Spec(8, 4, True)), qnn.MaxPool2d(2)), "1.input_quant"),
    ],
)
def test_formats_that_nothing_has_chosen_are_refused_by_path(layers: tuple[nn.Module, ...], path: str) -> None:
    model, x = nn.Sequential(*layers), torch.rand(2, 1, 4, 4)
    with pytest.raises(LowerError, match=f"- quantizer '{path}' must be calibrated before it runs: call qfx.calibr"):
        lower(model, x)
    qnn.calibrate(model, [x])
    assert equals_torch(lower(model, x), model, x)


def test_two_convolutions_of_one_tensor_read_one_requantize() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            return self.a(x) + self.b(x)

    torch.manual_seed(0)
    x = torch.rand(4, 1, 5, 5)
    model = calibrated(Fork(), x)
    graph = lower(model, x)
    assert graph.by_name["a"].inputs[0] == graph.by_name["b"].inputs[0]
    assert equals_torch(graph, model, x)


@pytest.mark.parametrize("relu_last", [False, True])
def test_a_flatten_right_behind_a_convolution_waits_for_one_binary_point(relu_last: bool) -> None:
    torch.manual_seed(0)
    middle = [nn.Flatten(), nn.ReLU()] if relu_last else [nn.ReLU(), nn.Flatten()]
    x = torch.rand(6, 2, 4, 6)
    model = calibrated(nn.Sequential(nn.Conv2d(2, 5, 3), *middle, nn.Linear(40, 3)), x)
    assert equals_torch(lower(model, x), model, x)


def test_everything_that_cannot_be_lowered_is_named_at_once() -> None:
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = qnn.Conv2d(1, 4, 1)
            self.plain = nn.Conv2d(1, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.plain(x)

    x = torch.rand(2, 1, 4, 4)
    model = Bad()
    qnn.calibrate(model, [x])
    with pytest.raises(LowerError) as caught:
        lower(model.eval(), x)
    assert str(caught.value).splitlines() == [
        "the model must be lowered whole, but:",
        "- module 'plain' (Conv2d) must be a layer of qfx.nn; "
        "use qfx.convert(model), which replaces it or says what to use",
    ]


def test_a_sum_without_a_format_is_refused_with_the_layer_to_use() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = qnn.Conv2d(1, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return y + y

    x = torch.rand(2, 1, 4, 4)
    model = Sum()
    qnn.calibrate(model, [x])
    with pytest.raises(LowerError, match=r"'add' must be a layer of qfx.nn, not a call; use qfx.nn.Add"):
        lower(model.eval(), x)


def test_an_activation_with_a_binary_point_for_each_channel_is_refused_by_its_path() -> None:
    conv = qnn.Conv2d(2, 4, 1)
    conv.input_quant = qnn.Quantizer(qnn.Spec(per_channel=True), 2, axis=1)
    model, x = nn.Sequential(qnn.Quantizer(qnn.Spec(), axis=1), nn.Sequential(conv)), torch.rand(2, 2, 4, 4)
    qnn.calibrate(model, [x])
    message = "the activation at '1.0.in' must have one binary point, not one for each channel: give its quantizer the"
    with pytest.raises(LowerError, match=message):
        lower(model.eval(), x)


def test_a_flattened_image_as_output_is_refused() -> None:
    model = nn.Sequential(qnn.Conv2d(1, 4, 1), qnn.MaxPool2d(2), nn.Flatten())
    x = torch.rand(2, 1, 4, 4)
    qnn.calibrate(model, [x])
    with pytest.raises(LowerError, match="output '2' must not be a flattened image"):
        lower(model.eval(), x)


def test_a_sum_of_flattened_images_of_two_shapes_is_refused() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.add, self.fc = qnn.Quantizer(qnn.Spec(), axis=1), qnn.Add(), qnn.Linear(32, 2)
            self.rows, self.columns = qnn.MaxPool2d((2, 1)), qnn.MaxPool2d((1, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.input(x)
            return self.fc(self.add(self.rows(x).flatten(1), self.columns(x).flatten(1)))

    model, x = Sum(), torch.rand(2, 4, 4, 4)
    qnn.calibrate(model, [x])
    with pytest.raises(
        LowerError, match="the operands of 'add' must be flattened from images of one shape: put it before"
    ):
        lower(model.eval(), x)
