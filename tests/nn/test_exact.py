"""Exact evaluation against integers computed a second way, inside and beyond float64."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError, TrainError
from qfx.fixed import Fixed, decode, encode, requantize
from qfx.graph.lower import lower
from qfx.nn import Spec, calibrate, convert, exact
from qfx.nn.integer import grid_of
from tests.nn.nets import RECIPE, Net, digits_like


def fixed_net(seed: int = 0) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    net = Net()
    for name, parameter in net.named_parameters():
        if "bn" in name:
            nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.3)
    x = digits_like(32, seed)
    net.train()(x)
    return calibrate(convert(net, RECIPE).eval(), [x]), x


def conv_by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: qnn.Conv2d) -> np.ndarray:
    """Python integers, channels last, tap by tap."""
    top, bottom, left, right = layer.padding
    x = np.pad(x.astype(object), ((0, 0), (top, bottom), (left, right), (0, 0)))
    kernel_h, kernel_w, per_group, filters = weight.shape
    height = (x.shape[1] - (kernel_h - 1) * layer.dilation[0] - 1) // layer.stride[0] + 1
    width = (x.shape[2] - (kernel_w - 1) * layer.dilation[1] - 1) // layer.stride[1] + 1
    y = np.zeros((len(x), height, width, filters), dtype=object)
    for o in range(filters):
        first = o // (filters // layer.groups) * per_group
        for (i, j, c), w in np.ndenumerate(weight[..., o]):
            rows = slice(i * layer.dilation[0], i * layer.dilation[0] + height * layer.stride[0], layer.stride[0])
            columns = slice(j * layer.dilation[1], j * layer.dilation[1] + width * layer.stride[1], layer.stride[1])
            y[..., o] += int(w) * x[:, rows, columns, first + c][:, :height, :width]
        y[..., o] += int(bias[o])
    return y


@pytest.mark.parametrize("bits", [4, 8, 16, 31])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 1), (4, 1, 2)])
def test_convolution_is_exact_at_any_width(rng, bits: int, shape: tuple[int, int, int]) -> None:
    groups, stride, dilation = shape
    specs = {"weight_spec": Spec(min(bits, 24), signed=True), "input_spec": Spec(bits, 3, True)}
    conv = qnn.Conv2d(4, 4, 3, stride, (1, 2, 0, 1), dilation, groups, **specs)
    conv.weight_quant.start_at(torch.tensor(float(min(bits, 20) - 2)), True)
    x = torch.tensor(rng.normal(0, 2.0 ** (bits - 5), (1, 4, 7, 6)))
    y = exact(conv)(x)
    constants = conv.constants()
    codes = encode(x.numpy().transpose(0, 2, 3, 1), Fixed(bits, 3))
    expected = conv_by_hand(codes, constants["weight"].codes, constants["bias"].codes, conv)
    frac = constants["bias"].fixed.scalar_frac
    found = torch.ldexp(y, torch.tensor(frac)).numpy().transpose(0, 2, 3, 1)
    assert (found == expected.astype(np.float64)).all() and (np.abs(expected.astype(float)) < 2.0**53).all()
    expected[0, 0, 0, 0] += 1
    assert (found != expected.astype(np.float64)).any()


def test_float64_alone_would_be_wrong_where_int64_takes_over(rng) -> None:
    conv = qnn.Conv2d(64, 1, 3, bias=False, weight_spec=Spec(24, signed=True), input_spec=Spec(31, frac=0, signed=True))
    conv.weight_quant.start_at(torch.tensor(21.0), True)
    with torch.no_grad():  # huge products that nearly cancel
        conv.weight.uniform_(1.0, 3.9)
        conv.weight[:, 1::2] = -conv.weight[:, ::2]
    x = torch.tensor(rng.integers(-(2**30), 2**30, (1, 64, 3, 3))).double()
    x[:, 1::2] = x[:, ::2] + torch.tensor(rng.integers(-3, 4, (1, 32, 3, 3)))
    weight = conv.constants()["weight"].codes.astype(object)
    expected = int((weight[..., 0].transpose(2, 0, 1) * x[0].long().numpy().astype(object)).sum())
    assert exact(conv)(x).item() * 2.0**21 == expected
    assert torch.nn.functional.conv2d(x, conv.weight_quant(conv.weight).double()).item() * 2.0**21 != expected


def test_what_leaves_int64_is_refused_by_name() -> None:
    model = nn.Sequential(qnn.Linear(512, 1, weight_spec=Spec(32, signed=True), input_spec=Spec(32, 0, True)))
    model[0].weight_quant.start_at(torch.tensor(21.0), True)
    nn.init.constant_(model[0].weight, 900.0)
    with pytest.raises(TrainError, match=r"the static bound of layer '0' must stay below 2\*\*62, not"):
        exact(model)(torch.ones(1, 512))
    narrow = nn.Sequential(qnn.Linear(512, 1, False, weight_spec=Spec(24, signed=True), input_spec=Spec(28, 0, True)))
    narrow[0].weight_quant.start_at(torch.tensor(13.0), True)
    nn.init.constant_(narrow[0].weight, 900.0)
    with pytest.raises(TrainError, match=r"results of layer '0' must stay below 2\*\*53 codes: narrow its operands"):
        exact(narrow)(torch.full((1, 512), 2.0**27 - 1))


@pytest.mark.parametrize("bits", [8, 24, 30])
def test_affine_rounds_once_at_any_width(rng, bits: int) -> None:
    norm = qnn.BatchNorm2d(3, constant_spec=Spec(bits, signed=True, per_channel=True), output_spec=Spec(8, 2, True))
    for quantizer in (norm.scale_quant, norm.shift_quant):
        quantizer.start_at(torch.full((3,), min(bits - 3.0, 20.0)), True)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.23, -0.77, 3.1]))
        norm.bias.copy_(torch.tensor([0.5, -0.3, 0.1]))
    codes = rng.integers(-(2**30), 2**30, (4, 5, 5, 3))
    x = torch.ldexp(torch.tensor(codes).double(), torch.tensor(-26))
    found = exact(norm)(x.movedim(-1, 1)).movedim(1, -1).numpy()
    scale, shift = norm.constants()["scale"], norm.constants()["shift"]
    frac = 26 + scale.fixed.fracs(3)
    total = codes * scale.codes + (shift.codes << (frac - shift.fixed.fracs(3)))
    assert np.abs(codes).max() * np.abs(scale.codes).max() < 2**62
    source, target = Fixed(62, tuple(frac.tolist())), Fixed(8, 2)
    expected = decode(requantize(total, source, target), target)
    np.testing.assert_array_equal(found, expected)


def test_grid_of_finds_the_fewest_fraction_bits() -> None:
    x = torch.tensor([[1.0, 0.375, 0.0], [6.0, 12.0, 0.0]])
    assert grid_of(x).tolist() == [0, 3, -64]
    assert grid_of(torch.tensor([[6.0, 2.0**-30 + 1.0]], dtype=torch.float64)).tolist() == [-1, 30]


def test_exact_equals_float32_evaluation_while_bounds_are_small_and_leaves_the_model_alone() -> None:
    model, x = fixed_net()
    y = exact(model)(x)
    assert y.dtype == torch.float64 and torch.equal(y, model(x).double())
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(exact(model)(x.to(torch.uint8)), y)
    assert all(module.training for module in model.modules())
    assert not any(getattr(module, "exact", False) for module in model.modules())


def test_exact_notices_one_weight_bit() -> None:
    model, x = fixed_net()
    y = exact(model)(x)
    with torch.no_grad():
        weight, step = model.fc.weight[3], 2.0 ** -model.fc.weight_quant.frac_now[3]
        weight[5] -= torch.sign(weight[5]) * step
    assert not torch.equal(exact(model)(x), y)


@pytest.mark.parametrize("name", ["stem.weight", "fc.bias", "bn.running_var", "fc.weight_quant.frac"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_constant_that_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    net = nn.Sequential()
    net.stem, net.bn, net.flat, net.fc = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)
    x = torch.rand(2, 1, 4, 4)
    model = calibrate(convert(net, None, x).eval(), [x])
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    path, _, role = name.rpartition(".")
    message = (
        f"{role} of '{path}' must be finite, but holds NaN or infinity: training has diverged; load an earlier "
        "checkpoint, and train on with a lower learning rate"
    )
    with pytest.raises(TrainError) as caught:
        exact(model)(x)
    assert str(caught.value) == message
    with pytest.raises(LowerError) as refused:
        lower(model, x)
    assert str(refused.value) == message


def test_addition_beyond_float64_is_refused() -> None:
    add = qnn.Add(operand_spec=Spec(32, signed=True), output_spec=Spec(8, 0, True))
    add.a_quant.start_at(torch.tensor(21.0), True)
    add.b_quant.start_at(torch.tensor(-10.0), True)
    one = torch.ones(1, 1)
    with pytest.raises(TrainError, match="the operands of .* must span fewer than 53 bits together"):
        exact(add)(one + 2.0**-21, one * 2.0**41 - 1024)
