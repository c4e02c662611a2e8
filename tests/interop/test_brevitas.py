"""A Brevitas block with power-of-two scales lowers to the integers that Brevitas computes."""

import copy

import pytest
import torch
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph.lower import lower

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFixedPoint,
    Int32Bias,
    Uint8ActPerTensorFixedPoint,
)

from qfx.interop.brevitas import from_brevitas

WEIGHT = {"weight_quant": Int8WeightPerTensorFixedPoint, "return_quant_tensor": True}


def block() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        bnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, return_quant_tensor=True),
        bnn.QuantConv2d(3, 8, 3, padding=1, weight_bit_width=4, bias_quant=Int32Bias, **WEIGHT),
        bnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=6, return_quant_tensor=True),
        bnn.QuantConv2d(8, 8, 3, groups=8, bias=False, **WEIGHT),
        bnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=5, return_quant_tensor=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        bnn.QuantLinear(72, 4, bias=True, bias_quant=Int32Bias, **WEIGHT),
    )
    for _ in range(4):
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


def values(result: Tensor) -> Tensor:
    return getattr(result, "value", result).detach()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return block()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_graph_torch_and_brevitas_give_the_same_integers(trained: nn.Module, images: Tensor) -> None:
    ours = from_brevitas(trained)
    wanted = values(trained(images)).double()
    assert torch.equal(qnn.exact(ours)(images), wanted)
    assert (lower(ours, images).evaluate(images.numpy(), "NCHW") == wanted.numpy()).all()


def test_a_changed_weight_shows(trained: nn.Module, images: Tensor) -> None:
    changed = copy.deepcopy(trained)
    with torch.no_grad():
        changed[1].weight[0, 0, 0, 0] += changed[1].weight.abs().max() / 2
    graph = lower(from_brevitas(changed), images)
    assert (graph.evaluate(images.numpy(), "NCHW") != values(trained(images)).numpy()).any()


def test_the_network_can_be_trained_on(trained: nn.Module, images: Tensor) -> None:
    ours = from_brevitas(trained).train()
    ours(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())


def test_what_is_not_fixed_point_is_named_with_the_class_to_use(images: Tensor) -> None:
    model = nn.Sequential(
        bnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
        bnn.QuantConv2d(3, 4, 1, bias=False, weight_quant=Int8WeightPerTensorFixedPoint),
        nn.Sigmoid(),
    )
    model(images)
    with pytest.raises(LowerError) as caught:
        from_brevitas(model)
    message = str(caught.value)
    assert "- layer '0' must have a power-of-two scale, not " in message
    assert "use brevitas.quant.fixed_point.Int8ActPerTensorFixedPoint" in message
    assert "- layer '1' must read a quantized tensor; put a QuantIdentity" in message
    assert "- layer '2' (Sigmoid) must be one of QuantIdentity, QuantReLU" in message
