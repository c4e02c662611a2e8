"""What networks are written with: sizes, keywords, zeros, dropouts; all of it gives torch's integers, or a sentence."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError, TrainError
from qfx.graph.lower import lower
from qfx.graph.ops import Conv2d
from tests.graph.lowering import calibrated, equals_torch
from tests.graph.test_lower_table import differences


class Written(nn.Module):
    """A forward that the test writes, with the layers it may use, on 3x8x6 inputs."""

    def __init__(self, use: Callable) -> None:
        super().__init__()
        self.use = use
        self.conv, self.wide, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 6, 1), nn.Linear(144, 4)
        self.cube, self.norm = qnn.Table(lambda x: x**3), nn.BatchNorm2d(3)
        self.drop, self.pool = nn.Dropout2d(0.3), nn.MaxPool2d(3, 2, 1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


def _view(m, x):  # type: ignore[no-untyped-def]
    y = m.conv(x)
    b, c, h, w = y.shape
    return m.fc(y.view(b, c * h * w))


def _branch(m, x):  # type: ignore[no-untyped-def]
    assert x.shape[1] == 3 and x.dim() == x.ndim == 4 and x.dtype == torch.float32
    y = m.conv(x)[:, :, :7]
    if y.shape != x.shape:
        y = F.pad(y, (0, 0, 0, x.size(2) - y.size(-2)))
    return torch.cat([x, y], 1)


def _unet(m, x):  # type: ignore[no-untyped-def]
    y = F.interpolate(F.max_pool2d(m.conv(x), 2), scale_factor=2)
    high, wide = x.size()[2] - y.size()[2], x.size()[3] - y.size()[3]
    return torch.cat([x, F.pad(y, [wide // 2, wide - wide // 2, high // 2, high - high // 2])], 1)


def _parts(m, x):  # type: ignore[no-untyped-def]
    first, *others = m.wide(x).chunk(3, 1)
    halves = torch.split(m.conv(x), (1, 2), dim=1)
    return torch.cat([first, *[F.relu(part) for part in others], halves[len(halves) - 1]], 1)


CONVERTED: dict[str, Callable] = {
    "a layer by keyword": lambda m, x: m.conv(input=x),
    "sizes of a shape": _view,
    "functions by keyword": lambda m, x: m.fc(torch.flatten(input=torch.add(input=m.conv(x), other=x), start_dim=1)),
    "branches on shapes": _branch,
    "a pad of nothing": _unet,
    "loops over parts": _parts,
    "zeros around a result": lambda m, x: F.pad(F.relu(m.conv(x)), (1, 0, 2, 3)),
    "zeros before a convolution and a sum": lambda m, x: m.conv(z := F.pad(m.conv(x)[:, :, 1:], (0, 0, 1, 0))) + z,
    "zeros that may win a pool": lambda m, x: F.max_pool2d(F.pad(m.conv(x) - 2, (1, 1, 1, 1)), 2),
    "a functional dropout": lambda m, x: F.dropout(m.conv(x), 0.5, m.training) + F.dropout2d(x, training=m.training),
    "a dropout of channels": lambda m, x: m.drop(m.conv(x)),
    "a last window beyond the image": lambda m, x: m.pool(m.conv(x)[:, :, :, :5]) + 1,
    "gated linear units": lambda m, x: F.glu(m.wide(x), dim=1),
    "the larger of halves": lambda m, x: torch.max(*m.wide(x).chunk(2, 1)),
    "the smaller of two": lambda m, x: torch.minimum(m.conv(x), x.mean((2, 3), keepdim=True)).maximum(x - 0.4),
    "pixels into channels": lambda m, x: F.pixel_unshuffle(m.conv(x), 2),
    "powers": lambda m, x: m.conv(x) ** 3 + torch.pow(x, 2.5),
    "a table in the float network": lambda m, x: m.cube(m.conv(x)),
    "calls that change no value": lambda m, x: m.conv(x.detach().to(torch.float32)).to(x.dtype).to(x.device).detach(),
    "a layer that nothing reads": lambda m, x: (m.conv(x), m.fc(x.flatten(1)))[0],
}


@pytest.mark.parametrize("name", CONVERTED)
def test_the_graph_gives_the_integers_of_torch(name: str) -> None:
    torch.manual_seed(4)
    network, x = Written(CONVERTED[name]), torch.rand(5, 3, 8, 6)
    model = calibrated(network, x)
    graph = lower(model, x)
    assert equals_torch(graph, model, x) and equals_torch(graph, model, x[:2])
    assert (qnn.exact(model)(x) - network.eval()(x)).abs().mean() < 0.1 * network(x).abs().mean()
    with torch.no_grad():
        for layer in (each for each in model.modules() if isinstance(each, qnn.Conv2d)):
            layer.weight.mul_(-0.6)  # twice where two calls share it
    assert not equals_torch(graph, model, x)


def test_zeros_around_a_result_are_those_of_csim_and_rtl(tmp_path: Path) -> None:
    torch.manual_seed(4)
    x = torch.rand(3, 3, 8, 6)
    graph = lower(calibrated(Written(CONVERTED["zeros around a result"]), x), x)
    assert differences(graph, graph, x, tmp_path) == [None, None]
    (pad,) = [node for node in graph.nodes if isinstance(node.op, Conv2d) and node.name == "pad"]
    assert pad.op.padding == (2, 3, 1, 0)
    ones = graph.constants["pad.weight"]
    wrong = replace(graph, constants={**graph.constants, "pad.weight": replace(ones, codes=-ones.codes)})
    assert [found.node for found in differences(wrong, graph, x, tmp_path) if found] == ["pad", "pad"]


@pytest.mark.parametrize("training", [False, True])
def test_a_functional_dropout_drops_in_training_alone(training: bool) -> None:
    x = torch.rand(4, 3, 8, 6)
    network = Written(CONVERTED["a functional dropout"]).train(training)
    model = qnn.calibrate(qnn.convert(network, None, x).eval(), [x])
    assert isinstance(model.dropout, nn.Dropout) and isinstance(model.dropout2d, nn.Dropout2d)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_no_gradient_passes_a_detach() -> None:
    x = torch.rand(4, 3, 8, 6)
    network = Written(lambda m, x: m.wide(m.conv(x).detach()))
    model = qnn.calibrate(qnn.convert(network, None, x), [x])
    model(x).sum().backward()
    assert model.conv.weight.grad is None and model.wide.weight.grad.abs().sum() > 0


def test_a_synchronized_batch_norm_is_a_batch_norm() -> None:
    torch.manual_seed(5)
    x = torch.rand(6, 3, 8, 6)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network(x)
    same = nn.SyncBatchNorm.convert_sync_batchnorm(network).eval()
    model = qnn.calibrate(qnn.convert(same, None, x), [x])
    graph = lower(model, x)
    assert equals_torch(graph, model, x)
    with torch.no_grad():
        model.get_submodule("1").running_mean.add_(1)
    assert not equals_torch(graph, model, x)


def test_a_table_has_the_formats_of_its_recipe_or_its_own() -> None:
    x = torch.rand(2, 3, 8, 6)
    network = Written(CONVERTED["a table in the float network"])
    assert torch.equal(network.cube(x), x**3)
    recipe = {"default": {"elementwise": 6}, "layers": {"cube": {"elementwise": 5, "table": "learned"}}}
    model = qnn.convert(network, recipe, x)
    assert model.cube.input_quant.width == 5 and model.cube.offset is not None
    assert qnn.convert(network, {"default": {"elementwise": 6}}, x).cube.output_quant.width == 6
    network.cube = qnn.Table(torch.sin, input_spec=qnn.Spec(4), output_spec=qnn.Spec(7))
    model = qnn.convert(network, {"default": {"elementwise": 6}}, x)
    assert (model.cube.input_quant.width, model.cube.output_quant.width) == (4, 7)
    with pytest.raises(TrainError, match=r"quantizer '.*' must be calibrated before it runs"):
        model.cube(x)


BATCH = "must leave open how many inputs a batch has: use x.shape[0] as it is, without len(x), int(x.shape[0]), or a"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m, x: m.fc(m.conv(x).view(len(x), -1)), BATCH),
        (lambda m, x: m.fc(m.conv(x).view(int(x.size(0)), -1)), BATCH),
        (lambda m, x: m.conv(x) if x.size(0) > 1 else x, BATCH),
        (lambda m, x: torch.cat([m.conv(x[i : i + 1]) for i in range(x.shape[0])]), BATCH),
        (lambda m, x: m.conv(x) if x.shape == (4, 3, 8, 6) else x, BATCH),
        (
            lambda m, x: m.conv(x)[:, 0].__setitem__(0, 0),
            "must not assign to a part of a tensor, x[...] = y: join the parts with torch.cat(parts, 1), or multiply",
        ),
        (
            lambda m, x: m.conv(x) if x.sum() > 0 else x,
            "must be traceable by torch.fx, without branches or loops that depend on data: take the decision out of",
        ),
        (
            lambda m, x: m.conv(x) + torch.zeros(x.size(0), 3, 8, 6),
            "must be traceable by torch.fx, which calls it with symbols instead of tensors, but ends in TypeError: ",
        ),
        (
            lambda m, x: (y := m.conv(x).transpose(0, 1)).reshape(3, y.shape[1], 48).sum(1),
            "must be what torch.fx sees of it, but gives other values: it changes a tensor in place that another name "
            "stands for, branches on self.training, drops values in evaluation, or depends on how many inputs a batch",
        ),
    ],
)
def test_what_a_trace_cannot_show_is_refused_with_its_own_reason(use: Callable, message: str) -> None:
    with pytest.raises(LowerError, match=re.escape(f"the forward of Written {message}")):
        qnn.convert(Written(use), None, torch.rand(2, 3, 8, 6))


@pytest.mark.parametrize(
    "use",
    [
        lambda m, x: torch.cat([F.relu(part) for part in m.conv(x).chunk(3, 1)], 1),
        lambda m, x: m.conv(x) if x.shape[1] == 3 else x,
        lambda m, x: F.pixel_unshuffle(m.conv(x), 2),
    ],
)
def test_without_an_example_it_is_asked_for_where_sizes_decide(use: Callable) -> None:
    message = r"the forward of Written must know sizes where it branches, loops or counts: give convert an example, qfx"
    with pytest.raises(LowerError, match=message):
        qnn.convert(Written(use))


def _lines(use: Callable, example: Tensor | None = None) -> list[str]:
    with pytest.raises(LowerError) as caught:
        qnn.convert(Written(use).eval(), None, example)
    return str(caught.value).splitlines()[1:]


def test_calls_of_one_kind_are_listed_by_the_names_that_recipes_use() -> None:
    def use(m, x):  # type: ignore[no-untyped-def]
        y = F.relu(torch.cumsum(F.relu(m.conv(x)), 2))
        return F.relu(torch.cumsum(torch.cumsum(y, 3), 2))

    named = [line.partition(":")[0] for line in _lines(use)]
    assert named == ["  cumsum (cumsum)", "  cumsum_1 (cumsum)", "  cumsum_2 (cumsum)"]


def test_what_follows_from_a_refusal_is_no_line_of_its_own() -> None:
    def norm(m, x):  # type: ignore[no-untyped-def]
        held = m.norm
        return F.batch_norm(m.conv(x), held.running_mean, held.running_var, held.weight, held.bias, m.training)

    def sized(m, x):  # type: ignore[no-untyped-def]
        y = torch.cumsum(m.conv(x), 2)
        return F.avg_pool2d(y, y.size()[2:])

    assert _lines(norm) == ["  batch_norm (batch_norm): use the module nn.BatchNorm2d instead"]
    assert [line.split()[0] for line in _lines(sized)] == ["cumsum", "avg_pool2d"]


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (
            lambda m, x: F.dropout(m.conv(x), 0.1),
            "dropout (dropout): use training=self.training, since it drops values",
        ),
        (lambda m, x: m.conv(x).half().float(), "half (half): use float32 throughout instead"),
        (
            lambda m, x: F.pad(x.flatten(1), (1, 1)),
            "pad (ConstantPad1d): it must pad an image or a signal, not features",
        ),
        (lambda m, x: nn.functional.rrelu(m.conv(x)), "rrelu (rrelu): use nn.LeakyReLU instead"),
    ],
)
def test_what_has_no_form_is_refused_with_what_has(use: Callable, line: str) -> None:
    assert _lines(use, torch.rand(2, 3, 8, 6))[0].startswith(f"  {line}")


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (nn.ReflectionPad2d(1), "1 (ReflectionPad2d): use nn.ZeroPad2d instead"),
        (
            nn.UpsamplingBilinear2d(scale_factor=2),
            "its mode must be 'nearest', not 'bilinear': use that, or an nn.Conv",
        ),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "it must have an example where it has ceil_mode, which tells how large"),
    ],
)
def test_a_layer_that_has_no_form_is_refused_with_what_has(layer: nn.Module, line: str) -> None:
    with pytest.raises(LowerError, match=re.escape(line)):
        qnn.convert(nn.Sequential(nn.Conv2d(3, 3, 1), layer))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("conv9", "but matches none; there are 'input', '0', '2', 'output'"),
        ("1", "but matches '1' alone, which has none: what reads or gives its values has the format"),
        ("outputs", "but matches none; the nearest is 'output'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_told_what_there_is(pattern: str, message: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(TrainError, match=re.escape(message) + "$"):
        qnn.convert(network, {"layers": {pattern: {"weight": 3}}})
