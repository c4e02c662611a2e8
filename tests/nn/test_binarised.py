"""Binarised networks: odd levels, thermometer digits and gated convolutions, in torch and in every engine."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx import emit
from qfx.boards import Board
from qfx.design import Design
from qfx.errors import LowerError
from qfx.graph import Graph
from qfx.nn import BinaryActivation, GatedConv2d, PrecisionGatedConv2d, Quantizer, Spec, Thermometer
from qfx.plan import plan
from qfx.tools import csim
from qfx_sim.design import simulate
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong

RPReLU = Design.load(Path(__file__).parents[2] / "designs" / "fracbnn").object("model.py:RPReLU", "model")
RECIPE = {
    "default": {"input": "u5.0", "weight": {"levels": "binary", "frac": 0}, "elementwise": 8, "activation": 8},
    "layers": {"last": {"weight": 6}, "norm1": {"constant": {"digits": {"k": 2}}}},
}


class Fractional(nn.Module):
    """Thermometer digits, gated convolutions with a shortcut, RPReLU and a sign, on 2x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.digits, self.stem, self.norm0 = (
            Thermometer([4.5, 12, 20]),
            nn.Conv2d(6, 4, 3, bias=False),
            nn.BatchNorm2d(4),
        )
        self.gate1, self.norm1 = PrecisionGatedConv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act, self.norm2 = RPReLU(4), nn.BatchNorm2d(4)
        self.gate2 = PrecisionGatedConv2d(4, 6, (2, 3), (2, 1), width=3)
        self.sign, self.last = BinaryActivation(), nn.Conv2d(6, 3, (2, 1))
        nn.init.normal_(self.gate1.threshold, 0, 2)
        nn.init.normal_(self.gate2.threshold, 0, 4)
        for shift in (self.act.shift_x, self.act.shift_y):
            nn.init.normal_(shift.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.stem(self.digits(x)))
        x = self.norm2(self.act(self.norm1(self.gate1(x))) + x)
        return self.last(self.sign(self.gate2(F.pad(x, (1, 0, 0, 0)))))


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 32, (count, 2, 6, 6), generator=torch.Generator().manual_seed(seed)).float()


def fractional(recipe: dict | None = None) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(5)
    network, x = Fractional(), images(16)
    return network, calibrated(network, x, recipe or RECIPE), x


# Activations --------------------------------------------------------------------------------------------------------


def test_one_bit_is_the_sign_and_the_sign_of_zero_is_one() -> None:
    x = torch.tensor([-torch.inf, -3.0, -1e-30, -0.0, 0.0, 1e-30, 0.7, torch.inf])
    assert BinaryActivation()(x).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("width", range(1, 9))
def test_levels_are_the_odd_integers_that_lie_evenly_between_minus_one_and_one(width: int) -> None:
    largest = 2**width - 1
    x = torch.arange(-1280, 1281, dtype=torch.float64) / 1024 + 1 / 4096  # no ties
    nearest = torch.round((x.clamp(-1, 1) + 1) / 2 * largest) * 2 - largest
    assert torch.equal(BinaryActivation(width)(x), nearest)


def test_a_tie_between_two_levels_goes_up() -> None:
    assert BinaryActivation(2)(torch.tensor([-4 / 6, 0.0], dtype=torch.float64)).tolist() == [-1, 1]


def test_the_gradient_is_the_slope_within_one() -> None:
    x = torch.tensor([-1.1, -1.0, -0.2, 0.0, 0.9, 1.1], requires_grad=True)
    BinaryActivation(2)(x).sum().backward()
    assert x.grad.tolist() == [0, 3, 3, 3, 3, 0]


def test_a_thermometer_has_a_digit_for_each_threshold() -> None:
    x = torch.tensor([[[[0.0, 4.5]], [[4.4, 30.0]]]])
    assert Thermometer([4.5, 12])(x)[0, :, 0].tolist() == [[-1, 1], [-1, -1], [-1, 1], [-1, 1]]


@pytest.mark.parametrize(("width", "high"), [(2, 1), (3, 1), (3, 2), (5, 2)])
def test_a_gated_convolution_adds_the_low_part_where_the_high_one_exceeds_the_threshold(width: int, high: int) -> None:
    torch.manual_seed(width)
    layer = PrecisionGatedConv2d(3, 5, 3, 2, 1, width=width, high=high)
    nn.init.normal_(layer.threshold, 0, 2)
    x = torch.randn(4, 3, 7, 7)
    full, step = BinaryActivation(width)(x), 2 ** (width - high)
    upper = (torch.floor(full / (2 * step)) * 2 + 1) * step
    assert set(((full - upper) % 2).unique().tolist()) == {1.0} and (full - upper).abs().max() < step

    def convolved(part: Tensor) -> Tensor:
        return F.conv2d(part, layer.weight, None, 2, 1)

    gate = convolved(upper) > layer.threshold.reshape(-1, 1, 1)
    assert 0 < gate.float().mean() < 1
    torch.testing.assert_close(layer(x), torch.where(gate, convolved(full), convolved(upper)), rtol=1e-5, atol=1e-4)


def test_two_bits_one_of_them_high_are_three_times_the_layer_of_fracbnn() -> None:
    torch.manual_seed(0)
    layer = PrecisionGatedConv2d(4, 4, 3)
    layer.weight.data.sign_()
    layer.threshold.data.normal_(0, 3)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    thirds = torch.round((x.clamp(-1, 1) + 1) * 1.5) / 1.5 - 1
    high = F.conv2d(torch.sign(thirds), layer.weight.double()) * 2 / 3
    mask = high > layer.threshold.reshape(-1, 1, 1) / 3
    wanted = torch.where(mask, F.conv2d(thirds, layer.weight.double()), high)
    torch.testing.assert_close(layer.double()(x) / 3, wanted)


def test_thresholds_weights_and_input_learn_through_the_gate() -> None:
    torch.manual_seed(0)
    layer, x = PrecisionGatedConv2d(2, 3, 3), torch.randn(4, 2, 5, 5, requires_grad=True)
    layer(x).square().sum().backward()
    for gradient in (layer.threshold.grad, layer.weight.grad, x.grad):
        assert gradient.abs().sum() > 0
    assert not x.grad[x.abs() > 1].any()


# In every engine ------------------------------------------------------------------------------------------------------


def test_training_and_every_engine_agree(tmp_path: Path) -> None:
    _, model, x = fractional()
    optimizer = torch.optim.Adam(qfx.param_groups(model.train(), lr=0.01))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    for name in ("gate1.threshold", "act.shift_x.bias", "act.shift_y.bias", "gate2.weight"):
        assert not torch.equal(dict(model.named_parameters())[name], before[name])
    graph = qfx.lower(model.eval(), x)
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None
    assert np.array_equal(model(x).detach().numpy(), graph.evaluate(x.numpy(), "NCHW"))
    codes = graph.encode(x[:3].numpy(), "NCHW")
    golden = graph.evaluate_codes(codes, all_nodes=True)
    assert 0 < golden["gate1.gate"].mean() < 1 and 0 < golden["gate2.gate"].mean() < 1
    made = plan(graph, Board.load("ultra96v2"), 4096)
    found = csim.run(emit.hls(graph, made, tmp_path / "hls"), codes)
    assert all(np.array_equal(seen, golden[name]) for name, seen in found.items())
    assert simulate(emit.rtl(graph, made, tmp_path / "rtl"), codes, golden).difference is None
    golden[graph.outputs[0]] = golden[graph.outputs[0]] ^ 1
    assert simulate(tmp_path / "rtl", codes, golden).difference is not None


@pytest.mark.parametrize(
    ("constant", "change", "where"),
    [
        ("digits.above.shift", lambda codes: codes + 1, "digits"),
        ("digits.table", lambda codes: -codes, "digits"),
        ("gate1.beyond.shift", lambda codes: codes - 1, "gate1"),
        ("gate1.lower.table", lambda codes: codes[::-1].copy(), "gate1"),
        ("gate2.upper.table", lambda codes: -codes, "gate2"),
        ("act.shift_y.add.shift", lambda codes: codes + 4, "act.shift_y.add.out"),
        ("sign.table", lambda codes: -codes, "sign"),
    ],
)
def test_a_planted_fault_shows_at_its_layer(constant: str, change, where: str) -> None:
    _, model, x = fractional()
    assert first_wrong(changed(qfx.lower(model, x), constant, change), model, x) == where


@pytest.mark.parametrize("frac", [-2, 0, 3])
def test_the_gate_compares_codes_with_any_real_threshold(frac: int) -> None:
    """Thresholds on, and next to, the values that the high part takes; one below and one above all of them."""
    torch.manual_seed(1)
    float_layer = PrecisionGatedConv2d(2, 7, 1)
    layer = GatedConv2d(float_layer, Spec(width=3, frac=frac, signed=True))
    on = 2.0 ** (1 - frac) * 2
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-3, 4, layer.weight.shape) * 2.0**-frac)
        layer.threshold.copy_(torch.tensor([on, np.nextafter(on, 0), on * 1.1, -on, 0.0, -1e30, 1e30]))
    model = nn.Sequential(Quantizer(Spec(6, 4, True)), layer, Quantizer(Spec(10, frac, True))).eval()
    x = torch.randint(-32, 32, (4, 2, 8, 8)) / 16
    graph = qfx.lower(model, x)
    assert equals_torch(graph, model, x.float())
    gate = graph.evaluate_codes(graph.encode(x.numpy(), "NCHW"), all_nodes=True)["1.gate"]
    assert gate[..., 5].all() and not gate[..., 6].any() and 0 < gate[..., :5].mean() < 1


def test_what_reads_odd_levels_has_their_format_unless_a_pattern_says_another() -> None:
    network, model, x = fractional()
    assert [str(layer.input_quant.format()) for layer in (model.stem, model.last)] == ["s2.0", "s2.0"]
    assert not model.stem.input_quant.frac.requires_grad
    other = {**RECIPE, "layers": {**RECIPE["layers"], "last": {"weight": 6, "activation": "s4.1"}}}
    model = calibrated(network, x, other)
    assert str(model.last.input_quant.format()) == "s4.1" and equals_torch(qfx.lower(model, x), model, x)


def test_digits_and_signs_cost_no_product_but_their_own() -> None:
    graph: Graph = qfx.lower(fractional()[1], images(1))
    kinds = {
        name: graph.by_name[name].type.fixed for name in ("digits", "sign", "gate1.upper", "gate1.lower", "gate1.gate")
    }
    assert {name: str(fixed) for name, fixed in kinds.items()} == {
        "digits": "s2.0",
        "sign": "s2.0",
        "gate1.upper": "s2.-1",
        "gate1.lower": "s2.0",
        "gate1.gate": "u1.0",
    }
    assert graph.constants["gate1.weight"].max_digits == 1


def test_layers_called_twice_share_what_they_learn() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.norm = PrecisionGatedConv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(2):
                x = self.norm(self.gate(x))
            return x

    torch.manual_seed(0)
    x = torch.randn(8, 3, 5, 5)
    model = calibrated(Twice(), x)
    assert model.gate_1.threshold is model.gate.threshold
    graph = qfx.lower(model, x)
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None


def test_levels_are_those_of_exact_products_of_any_binary_points() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 2, 6, 6)
    for levels, channels in ((BinaryActivation(), 5), (BinaryActivation(3), 5), (Thermometer([-0.5, 0.1]), 10)):
        model = calibrated(nn.Sequential(nn.Conv2d(2, 5, 3), levels, nn.Conv2d(channels, 2, 1)), x)
        assert equals_torch(qfx.lower(model, x), model, x)


def test_a_signal_and_features_can_be_binary() -> None:
    torch.manual_seed(0)
    x = torch.rand(6, 2, 9) * 8
    net = nn.Sequential(
        Thermometer([1, 2.5, 5]), nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4), BinaryActivation(2), nn.Conv1d(4, 2, 3)
    )
    model = calibrated(net, x)
    assert equals_torch(qfx.lower(model, x), model, x)
    x = torch.randn(6, 5)
    net = nn.Sequential(
        Thermometer([-0.5, 0.5]), nn.Linear(10, 8), nn.BatchNorm1d(8), BinaryActivation(), nn.Linear(8, 3)
    )
    model = calibrated(net, x)
    assert str(model.get_submodule("4").input_quant.format()) == "s2.0" and equals_torch(qfx.lower(model, x), model, x)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: BinaryActivation(9), "the width of a binary activation must lie in 1..8, not 9"),
        (lambda: Thermometer([]), r"the thresholds of a Thermometer must be finite numbers, at least one, not \[\]"),
        (lambda: Thermometer([0.5, np.inf]), "must be finite numbers, at least one"),
        (
            lambda: PrecisionGatedConv2d(1, 1, 1, high=2),
            "the high bits of a gated convolution must be 1..1 of 2, not 2",
        ),
        (
            lambda: GatedConv2d(PrecisionGatedConv2d(1, 1, 1), Spec(width=17)),
            "the weights of a gated convolution must be at most 16 bits wide, not 17",
        ),
    ],
)
def test_what_they_cannot_be_is_refused(made, said: str) -> None:
    with pytest.raises(LowerError, match=said):
        made()


@pytest.mark.parametrize(
    ("layers", "shape", "said"),
    [
        (
            [nn.Conv2d(1, 2, 1), nn.Flatten(), Thermometer([1]), nn.Linear(32, 2)],
            (1, 4, 4),
            r"2 \(Thermometer\): it must not read a flattened image: put it before the Flatten",
        ),
        (
            [nn.Conv2d(1, 2, 1), nn.Flatten(), BinaryActivation(), nn.Linear(32, 2)],
            (1, 4, 4),
            r"2 \(BinaryActivation\): it must not read a flattened image: put it before the Flatten",
        ),
    ],
)
def test_a_place_where_they_cannot_stand_is_refused(layers: list[nn.Module], shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(LowerError, match=said):
        qfx.convert(nn.Sequential(*layers), None, torch.rand(2, *shape))


def test_wide_weights_of_a_gated_convolution_are_refused_by_path() -> None:
    net = nn.Sequential(PrecisionGatedConv2d(1, 2, 1))
    with pytest.raises(
        LowerError, match=r"0 \(PrecisionGatedConv2d\): its weights must be at most 16 bits wide, not 20"
    ):
        qfx.convert(net, {"default": {"weight": 20}}, torch.rand(2, 1, 4, 4))
