"""Each layer's forward in fixed point against its formula in integers."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import Fixed, decode, digits_of
from qfx.nn import Digits, Spec, calibrate, freeze_bn
from qfx.nn.pool import reciprocal
from qfx.nn.quantizer import CONSTANT


def test_constants_are_what_evaluation_computes_with(rng) -> None:
    model = nn.Sequential(
        qnn.Conv2d(2, 6, 3, groups=2, weight_spec=Spec(5, signed=True, per_channel=True)), qnn.BatchNorm2d(6)
    )
    nn.init.normal_(model[1].weight, 1.0, 0.5)
    x = torch.tensor(rng.normal(0, 1, (4, 2, 6, 6))).float()
    model.train()
    calibrate(model, [x])
    model(x)
    model.eval()
    conv, norm = model[0].constants(), model[1].constants()
    weight, bias = decode(conv["weight"].codes, conv["weight"].fixed), decode(conv["bias"].codes, conv["bias"].fixed)
    assert conv["weight"].codes.shape == (3, 3, 1, 6) and conv["bias"].codes.shape == (6,)
    assert tuple(conv["bias"].fixed.fracs(6)) == tuple(
        conv["weight"].fixed.fracs(6) + model[0].input_quant.format().frac
    )
    y = F.conv2d(
        model[0].input_quant(x).double(), torch.tensor(weight.transpose(3, 2, 0, 1)), torch.tensor(bias), groups=2
    )
    assert torch.equal(model[0](x).double(), y)
    scale, shift = (torch.tensor(decode(norm[k].codes, norm[k].fixed)) for k in ("scale", "shift"))
    z = model[1].output_quant(y * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))
    assert torch.equal(model(x).double(), z)
    assert not torch.equal(
        z, model[1].output_quant(y * scale.flip(0).reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))
    )


def test_batch_norm_learns_the_statistics_that_torchs_learns(rng) -> None:
    for momentum in (0.1, None):
        ours, torchs = qnn.BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum)
        x = torch.tensor(rng.normal(2, 3, (8, 3, 4, 4))).float()
        calibrate(ours, [x])
        for part in x.split(4):
            ours.train()(part)
            torchs.train()(part)
        torch.testing.assert_close(ours.running_mean, torchs.running_mean)
        torch.testing.assert_close(ours.running_var, torchs.running_var)
        assert ours.num_batches_tracked == torchs.num_batches_tracked


def test_a_single_value_a_channel_meets_the_running_statistics() -> None:
    norm = qnn.BatchNorm2d(2)
    calibrate(norm, [torch.randn(64, 2, generator=torch.Generator().manual_seed(0))])
    x, kept = torch.tensor([[0.5, -1.0]]), norm.running_var.clone()
    assert torch.equal(norm.train()(x), norm.eval()(x)) and torch.equal(norm.running_var, kept)
    assert not torch.equal(norm.train()(x.repeat(2, 1) * torch.tensor([[1.0], [2.0]]))[:1], norm.eval()(x))


def test_frozen_batch_norm_uses_running_statistics_in_training(rng) -> None:
    norm = qnn.BatchNorm2d(3)
    norm.running_mean.fill_(0.5)
    x = torch.tensor(rng.normal(2, 3, (8, 3, 4, 4))).float()
    calibrate(norm.eval(), [x])
    before = norm(x)
    assert not torch.equal(norm.train()(x), before)
    norm.running_mean.fill_(0.5), norm.running_var.fill_(1.0)
    freeze_bn(norm)
    assert torch.equal(norm(x), before) and (norm.running_mean == 0.5).all()
    norm(x).sum().backward()
    assert norm.weight.grad.abs().sum() > 0


def test_batch_norm_shift_takes_up_the_error_of_the_scale() -> None:
    norm = qnn.BatchNorm2d(
        1, constant_spec=Spec(8, signed=True, per_channel=True, digits=Digits(2)), output_spec=Spec(16)
    )
    norm.running_mean.fill_(96.0)
    norm.weight.data.fill_(1.4)  # 1.5 in two digits
    norm.eval()
    calibrate(norm, [torch.full((1, 1, 2, 2), 96.0), torch.full((1, 1, 2, 2), 128.0)])
    assert norm(torch.full((1, 1, 2, 2), 96.0)).abs().max() == 0  # not (1.5 - 1.4) * 96, since -144 has two digits


def test_khot_constants_have_few_digits(rng) -> None:
    spec = Spec(8, signed=True, per_channel=True, digits=Digits(2, True))
    conv = qnn.Conv2d(4, 4, 3, weight_spec=spec)
    calibrate(conv, [torch.tensor(rng.normal(0, 1, (2, 4, 5, 5))).float()])
    weight = conv.constants()["weight"]
    assert (weight.max_digits, weight.signed_digits) == (2, True)
    counts = {len(digits_of(int(code), 8, True)) for code in weight.codes.reshape(-1)}
    assert max(counts) == 2
    plain = qnn.Conv2d(4, 4, 3)
    calibrate(plain, [torch.rand(1, 4, 5, 5)])
    assert max(len(digits_of(int(code), 8, True)) for code in plain.constants()["weight"].codes.reshape(-1)) > 2


@pytest.mark.parametrize("divisor", [1, 2, 3, 6, 9, 49, 64, 1000])
def test_reciprocals_are_the_nearest_codes_and_powers_of_two_are_exact(divisor: int) -> None:
    constant = reciprocal(divisor, CONSTANT)
    value = decode(constant.codes, constant.fixed)[0]
    if divisor & (divisor - 1) == 0:
        assert value == 1 / divisor and constant.codes[0] == 1
    else:
        assert abs(value - 1 / divisor) <= 2.0 ** -(constant.fixed.frac + 1) and 64 <= constant.codes[0] <= 127
    assert reciprocal(49, Spec(8, signed=True, digits=Digits(1))).codes[0] in (64, 32)


def test_average_pooling_multiplies_by_the_reciprocals_code(rng) -> None:
    x = torch.tensor(rng.integers(0, 16, (2, 3, 6, 6))).float()
    kept = Spec(16, 10, True)
    for layer, kernel, padding in (
        (qnn.AvgPool2d(3, 2, 1, input_spec=Spec(4, 0, False), output_spec=kept), 3, 1),
        (qnn.AdaptiveAvgPool2d((2, None), input_spec=Spec(4, 0, False), output_spec=kept), (3, 1), 0),
    ):
        constants = layer.constants() if isinstance(layer, qnn.AvgPool2d) else layer.constants(6, 6)
        code = decode(constants["scale"].codes, constants["scale"].fixed)[0]
        stride = 2 if padding else kernel
        total = F.avg_pool2d(x.double(), kernel, stride, padding, divisor_override=1)
        assert torch.equal(layer(x).double(), torch.floor(total * code * 1024 + 0.5) / 1024)


def deformed_by_hand(x: np.ndarray, d: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Taps one by one: x (H, W, C), d (H, W)."""
    y = np.zeros(x.shape) + bias
    height, width, _ = x.shape
    for (row, column), step in np.ndenumerate(d):
        for i in range(3):
            for j in range(3):
                r, c = row + (i - 1) * step, column + (j - 1) * step
                if 0 <= r < height and 0 <= c < width:
                    y[row, column] += x[r, c] * weight[i, j]
    return y


@pytest.mark.parametrize("max_dilation", [0, 1, 3, 7])
def test_deformable_convolution_equals_its_taps(rng, max_dilation: int) -> None:
    layer = qnn.SquareDeformConv2d(4, max_dilation, bias=True)
    x = torch.tensor(rng.normal(0, 2, (2, 4, 9, 7))).float()
    nn.init.normal_(layer.offset.weight, 0, 0.4)
    d = torch.floor(layer.offset(x) + 0.5).clamp(0, max_dilation)[:, 0]
    assert len(d.unique()) == max_dilation + 1
    weight, bias = layer.weight.detach().numpy()[:, 0].transpose(1, 2, 0), layer.bias.detach().numpy()
    y = layer(x).detach().numpy().transpose(0, 2, 3, 1)
    pixels = x.numpy().transpose(0, 2, 3, 1)
    for n in range(2):
        steps = d[n].detach().numpy().astype(int)
        np.testing.assert_allclose(y[n], deformed_by_hand(pixels[n], steps, weight, bias), rtol=1e-4, atol=1e-5)
    if max_dilation:
        wrong = deformed_by_hand(pixels[0], np.clip(steps + 1, 0, max_dilation), weight, bias)
        assert not np.allclose(y[0], wrong, atol=1e-2)


def test_fixed_point_deformable_convolution_is_exact_on_codes(rng) -> None:
    model = nn.Sequential(qnn.DeformConv2d(4, 3, bias=True))
    nn.init.normal_(model[0].offset.weight, 0, 0.4)
    x = torch.tensor(rng.normal(0, 2, (2, 4, 9, 7))).float()
    calibrate(model, [x])
    layer, q = model.eval()[0], model[0].input_quant(x)
    d = torch.floor(layer.offset(q) + 0.5).clamp(0, 3)[:, 0].detach().numpy().astype(int)
    constants = layer.constants()
    weight, bias = (decode(constants[k].codes, constants[k].fixed) for k in ("weight", "bias"))
    assert weight.shape == (3, 3, 4) and str(layer.offset_format) == "u2.0"
    pixels = q.detach().double().numpy().transpose(0, 2, 3, 1)
    expected = np.stack([deformed_by_hand(pixels[n], d[n], weight, bias) for n in range(2)])
    np.testing.assert_array_equal(model(x).detach().double().numpy().transpose(0, 2, 3, 1), expected)


def test_the_offset_convolution_learns_which_dilation_fits() -> None:
    torch.manual_seed(0)
    layer = qnn.SquareDeformConv2d(1, 3)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 2] = 1.0  # looks d pixels to the right
        layer.offset.weight.zero_()
        layer.offset.bias.fill_(0.6)
    layer.weight.requires_grad_(False)
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    wanted = ramp + 2  # d = 2 everywhere
    optimizer = torch.optim.SGD([layer.offset.bias], lr=0.05)
    for _ in range(60):
        loss = ((layer(ramp) - wanted)[..., :8] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == 0.0 and layer.offset.weight.grad.abs().sum() > 0


def test_max_dilation_out_of_range_is_refused() -> None:
    for make in (qnn.SquareDeformConv2d, qnn.DeformConv2d):
        with pytest.raises(LowerError, match="max_dilation must lie in 0..31, not 40"):
            make(4, 40)


def test_max_pooling_pads_with_nothing_that_could_win() -> None:
    pool = qnn.MaxPool2d(3, 2, 1, input_spec=Spec(4, 0, True))
    x = torch.full((1, 1, 4, 4), -5.0)
    assert torch.equal(pool(x), torch.full((1, 1, 2, 2), -5.0))


def test_add_aligns_its_operands_exactly() -> None:
    add = qnn.Add(operand_spec=Spec(8, None, True), output_spec=Spec(8, 3, True))
    add.a_quant.start_at(torch.tensor(1.0), True)
    add.b_quant.start_at(torch.tensor(5.0), True)
    a, b = torch.tensor([[3.3]]), torch.tensor([[0.71]])
    assert add(a, b).item() == np.floor((3.5 + 23 / 32) * 8 + 0.5) / 8
    with pytest.raises(
        LowerError,
        match=r"the operands at 'Quantizer' must have one shape, or axes of length 1, not \[1, 1\] and \[2, 1\]",
    ):
        add(a, torch.zeros(2, 1))


def test_layers_written_by_hand_train_and_evaluate(rng) -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm = qnn.Conv2d(1, 4, 3), qnn.BatchNorm2d(4)
            self.relu, self.pool, self.b = qnn.ReLU(), qnn.MaxPool2d(2), qnn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.pool(self.relu(self.norm(self.a(x)))).flatten(1))

    model = Hand()
    x = torch.tensor(rng.normal(0, 1, (4, 1, 8, 8))).float()
    calibrate(model, [x])
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(copy.deepcopy(model).eval()(x), model.eval()(x))
    assert str(Fixed(8, 0)) == "s8.0"
