"""The quantizers of qfx as ``weight_quant`` and ``act_quant`` of Brevitas' own layers."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qfx
import qfx.nn as qnn
from qfx.errors import LowerError, TrainError
from qfx.graph.lower import lower

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
from brevitas.quant import Int32Bias

from qfx.interop.brevitas import (
    KHotWeight,
    LearnedFixedPointAct,
    LearnedFixedPointUnsignedAct,
    LearnedFixedPointWeight,
    from_brevitas,
)
from tests.interop.nets import QUANT, differences, values

BIAS = {"bias_quant": Int32Bias, **QUANT}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        bnn.QuantIdentity(act_quant=LearnedFixedPointAct, bit_width=6, **QUANT),
        bnn.QuantConv2d(3, 6, 3, padding=1, weight_quant=LearnedFixedPointWeight, weight_bit_width=4, **BIAS),
        bnn.QuantReLU(act_quant=LearnedFixedPointUnsignedAct, bit_width=4, **QUANT),
        bnn.QuantConv2d(6, 6, 3, groups=6, weight_quant=KHotWeight, weight_digits=2, weight_signed_digits=True, **BIAS),
        bnn.QuantIdentity(act_quant=LearnedFixedPointAct, **QUANT),
        bnn.TruncAvgPool2d(2),
        nn.Flatten(),
        bnn.QuantLinear(
            *(54, 4, True), weight_quant=KHotWeight, weight_per_channel=False, input_quant=LearnedFixedPointAct, **BIAS
        ),
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calibrated(images: Tensor) -> nn.Module:
    model = network().train()
    model(images)
    return model.eval()


def integers(values: Tensor, frac: Tensor) -> Tensor:
    shape = [-1] + [1] * (values.dim() - 1) if frac.dim() else []
    return torch.ldexp(values.double(), frac.reshape(shape))


def test_the_first_batch_calibrates_and_scales_are_powers_of_two(calibrated: nn.Module, images: Tensor) -> None:
    tensor = calibrated[1].quant_weight()
    assert tensor.scale.shape == (6, 1, 1, 1) and tensor.bit_width == 4 and tensor.is_valid and tensor.signed
    assert tensor.int().abs().max() <= 7 and (torch.log2(tensor.scale) % 1 == 0).all()
    result = calibrated(images)
    assert result.zero_point.abs().max() == 0 and (torch.log2(result.scale) % 1 == 0).all()
    codes = result.value / result.scale
    assert torch.equal(codes, codes.round()) and result.is_valid
    given = calibrated[2](calibrated[1](calibrated[0](images)))
    assert not given.signed and given.bit_width == 4 and given.int().max() == 15
    assert calibrated[2].act_quant.scale() == given.scale and calibrated[2].act_quant.bit_width() == 4


def test_khot_words_have_so_many_digits(calibrated: nn.Module) -> None:
    words = calibrated[7].quant_weight().int().abs().numpy().astype(int)
    assert max(bin(word).count("1") for word in np.unique(words)) == 2
    ours = from_brevitas(calibrated)
    graph = lower(ours, torch.zeros(1, 3, 8, 8))
    assert graph.constants["7.weight"].max_digits == 2 and graph.constants["3.weight"].signed_digits


def test_brevitas_exact_evaluation_and_the_graph_agree(calibrated: nn.Module, images: Tensor) -> None:
    assert differences(calibrated, images) == [0, 0]
    assert all(differences(calibrated, images, fault=True))


def test_training_in_brevitas_moves_the_binary_points_and_stays_exact(calibrated: nn.Module, images: Tensor) -> None:
    labels = (images[:, 0, :2].mean((1, 2)) > 0).long()
    model = calibrated.train()
    before = {name: quantizer.frac.clone() for name, quantizer in qnn.quantizers(model).items()}
    optimizer = torch.optim.Adam(qfx.param_groups(model, lr=0.01, frac_lr=0.2))
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images).value, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    after = qnn.quantizers(model)
    assert losses[-1] < losses[0] - 0.1
    still = [name for name in before if (after[name].frac == before[name]).all()]
    assert len(before) == 7 and all(name.startswith("7.input_quant") for name in still)  # what it reads is on its grid
    assert any((after[name].frac_now != before[name].round()).any() for name in before)
    assert differences(model.eval(), images) == [0, 0]


def test_gradients_are_those_of_our_quantizer(calibrated: nn.Module) -> None:
    layer = calibrated[1].train()
    layer.quant_weight().value.square().sum().backward()
    theirs = layer.weight_quant.tensor_quant.quantizer
    plain = qnn.Quantizer(theirs.spec, 6)
    plain.start_at(theirs.frac.detach(), True)
    weight = layer.weight.detach().clone().requires_grad_()
    plain(weight).square().sum().backward()
    assert torch.equal(layer.weight.grad, weight.grad) and torch.equal(theirs.frac.grad, plain.frac.grad)
    assert theirs.frac.grad.abs().max() > 0


def test_calibrate_sees_brevitas_networks_too(images: Tensor) -> None:
    model = qfx.calibrate(network().eval(), [images[:16], images[16:]], "max")
    assert all(quantizer.calibrated for quantizer in qnn.quantizers(model).values())
    peak = images.abs().max().item()
    assert (
        2.0 ** -qnn.quantizers(model)["0.act_quant.fused_activation_quant_proxy.tensor_quant.quantizer"].frac_now.item()
        * 32
        >= peak
    )
    assert differences(model, images) == [0, 0]


def test_a_state_dict_brings_formats_and_calibration(calibrated: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        for quantizer in qnn.quantizers(calibrated).values():
            quantizer.frac.add_(1)
    other = network()
    other.load_state_dict(calibrated.state_dict())
    assert (values(other.eval()(images)) == values(calibrated(images))).all()
    assert qnn.quantizers(other).keys() == qnn.quantizers(calibrated).keys()


def test_merged_batch_norms_give_the_weight_new_binary_points(images: Tensor) -> None:
    model = nn.Sequential(
        bnn.QuantIdentity(act_quant=LearnedFixedPointAct, **QUANT),
        bnn.QuantConv2d(3, 4, 3, weight_quant=LearnedFixedPointWeight, **BIAS),
        nn.BatchNorm2d(4),
        bnn.QuantReLU(act_quant=LearnedFixedPointUnsignedAct, bit_width=5, **QUANT),
    )
    model.train()(images)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([0.1, 1.0, 4.0, 20.0]))
    merged = copy.deepcopy(model).eval()
    merged[1].merge_bn_in(merged[2])
    merged[2] = nn.Identity()
    assert differences(model.eval(), images, like=merged, batch_norm="merge") == [0, 0]
    assert len(merged[1].quant_weight().scale.unique()) > 1


def test_frozen_binary_points_stay(images: Tensor) -> None:
    layer = bnn.QuantLinear(4, 2, False, weight_quant=LearnedFixedPointWeight, weight_learned=False)
    assert not layer.weight_quant.tensor_quant.quantizer.frac.requires_grad


INSIDE = "act_quant.fused_activation_quant_proxy.tensor_quant.quantizer"


def test_values_that_are_not_finite_are_refused_by_name(images: Tensor) -> None:
    model = network().train()
    with torch.no_grad():
        model[1].bias.fill_(float("nan"))
    with pytest.raises(TrainError, match=f"the values that reach quantizer '2.{INSIDE}' must be finite"):
        model(images)


def test_a_state_of_another_width_is_refused_by_name(images: Tensor) -> None:
    def layers(width: int) -> nn.Module:
        weight = {"weight_quant": LearnedFixedPointWeight, "weight_bit_width": width}
        first = bnn.QuantIdentity(act_quant=LearnedFixedPointAct, bit_width=6, **QUANT)
        return nn.Sequential(nn.Sequential(first, bnn.QuantConv2d(3, 4, 3, **weight, **BIAS)))

    made = layers(4).train()
    made(images)
    for load in (nn.Module.load_state_dict, qfx.load):
        with pytest.raises(TrainError) as caught:
            load(layers(6), made.state_dict())
        assert str(caught.value) == (
            "quantizer '0.1.weight_quant.tensor_quant.quantizer' must have the checkpoint's width 4, not 6: build its "
            "layer with the bit width that the checkpoint was trained with"
        )
        load(layers(4), made.state_dict())


def test_what_was_not_calibrated_is_refused_by_name(images: Tensor) -> None:
    model = network().eval()
    with pytest.raises(TrainError) as caught:
        nn.Sequential(model)(images)
    assert str(caught.value) == (
        f"quantizer '0.0.{INSIDE}' must be calibrated before it runs: call qfx.calibrate(model, batches), or give it a "
        "batch in training mode"
    )
    assert nn.Sequential(model).get_submodule(f"0.0.{INSIDE}").path == f"0.0.{INSIDE}"
    with pytest.raises(LowerError) as refused:
        from_brevitas(model)
    assert "- the quantizer of layer '0' must be calibrated: call qfx.calibrate(model, batches)" in str(refused.value)
    with pytest.raises(TrainError, match=r"the width of a quantizer must lie in 0\.\.32, not 40"):
        bnn.QuantLinear(4, 2, False, weight_quant=LearnedFixedPointWeight, weight_bit_width=40)
