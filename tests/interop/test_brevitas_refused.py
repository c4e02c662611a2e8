"""What of a Brevitas network is not fixed point is refused, all of it at once, with the path and the class to use."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import LowerError

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
from brevitas.quant import (
    Fp8e4m3WeightPerTensorFloat,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    RoundTo8bit,
    ShiftedUint8ActPerTensorFixedPoint,
    SignedBinaryActPerTensorConst,
    TruncTo8bit,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.fixed_point import Int8BiasPerTensorFixedPointInternalScaling

from qfx.interop.brevitas import LearnedFixedPointWeight, from_brevitas
from tests.interop.nets import QUANT, TernaryAct, add, conv, identity, relu, seen, transposed

ACT = "brevitas.quant.fixed_point.Int8ActPerTensorFixedPoint (Uint8ActPerTensorFixedPoint for QuantReLU)"
BINARY = "brevitas.quant.SignedBinaryActPerTensorConst"
WEIGHT = "brevitas.quant.fixed_point.Int8WeightPerTensorFixedPoint"
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Calls(nn.Module):
    """Functional calls on what a layer gives."""

    def __init__(self, *layers: nn.Module, call) -> None:
        super().__init__()
        self.layers, self.call = nn.ModuleList(layers), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, *self.layers)


def refusal(model: nn.Module, x: Tensor = IMAGES, see: bool = True, **options) -> str:
    if see:
        seen(model, x)
    with pytest.raises(LowerError) as caught:
        from_brevitas(model, **options)
    return str(caught.value)


def test_everything_is_named_at_once_with_the_class_to_use() -> None:
    model = nn.Sequential(
        bnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
        bnn.QuantConv2d(3, 4, 1, bias=False, weight_quant=Int8WeightPerTensorFixedPoint),
        nn.Sigmoid(),
    )
    message = refusal(model)
    assert message.startswith(
        "the Brevitas network must be fixed point throughout, but:\n- layer '0' must have a power"
    )
    assert f"use {ACT}" in message
    assert "layer '1'" not in message  # it has no fault of its own
    assert "- layer '2' (Sigmoid) must be one of QuantIdentity, QuantReLU" in message
    assert "; use brevitas.nn.QuantSigmoid" in message


LAYERS = {
    "float weight scale": (
        lambda: [conv(3, 4, 1, weight_quant=Int8WeightPerTensorFloat)],
        "layer '1' must have a power-of-two scale, not 0.00",
    ),
    "minifloat weight": (
        lambda: [bnn.QuantConv2d(3, 4, 1, bias=False, weight_quant=Fp8e4m3WeightPerTensorFloat)],
        f"layer '1' must have a weight of integers, not FloatQuantTensor; use {WEIGHT}",
    ),
    "no weight quantizer": (
        lambda: [bnn.QuantConv2d(3, 4, 1, weight_quant=None)],
        f"layer '1' must quantize its weight; use weight_quant={WEIGHT}",
    ),
    "float bias": (
        lambda: [conv(3, 4, 1, bias_quant=None)],
        "layer '1' must quantize its bias; use bias_quant=brevitas.quant.Int32Bias",
    ),
    "bias on a grid of its own": (
        lambda: [conv(3, 4, 1, bias_quant=Int8BiasPerTensorFixedPointInternalScaling, width=2, bias_bit_width=16)],
        "the bias of layer '1' must be on the accumulator's grid; use brevitas.quant.Int32Bias",
    ),
    "zero point": (
        lambda: [bnn.QuantIdentity(act_quant=ShiftedUint8ActPerTensorFixedPoint, **QUANT)],
        "layer '1' must have zero point 0, not ",
    ),
    "binary activation of no power of two": (
        lambda: [bnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, min_val=-0.3, max_val=0.3, **QUANT)],
        f"layer '1' must have a power-of-two scale, not 0.3; use {BINARY} with min_val=-1.0, max_val=1.0",
    ),
    "binary sum": (
        lambda: [Calls(identity(), add(output_quant=SignedBinaryActPerTensorConst), call=lambda x, a, b: b(x, a(x)))],
        f"layer '1.layers.1.output_quant' must not be binary itself; put a QuantIdentity with {BINARY} there, and use "
        f"{ACT}",
    ),
    "ternary activation of another threshold": (
        lambda: [bnn.QuantIdentity(act_quant=TernaryAct, threshold=0.7, **QUANT)],
        f"layer '1' must have threshold 0.5, not 0.7; use {ACT}",
    ),
    "ceiling": (
        lambda: [identity(float_to_int_impl_type="ceil")],
        "layer '1' must round by one of ['FLOOR', 'ROUND', 'ROUND_TO_ZERO'], not ceil",
    ),
    "scale for each channel": (
        lambda: [
            identity(
                per_channel_broadcastable_shape=(1, 3, 1, 1),
                scaling_per_output_channel=True,
                scaling_stats_permute_dims=(1, 0, 2, 3),
            )
        ],  # fmt: skip
        f"layer '1' must have one scale, not one for each channel; use {ACT}",
    ),
    "hardtanh without quantizer": (
        lambda: [bnn.QuantHardTanh(act_quant=None, min_val=-1.0, max_val=1.0)],
        "layer '1' must quantize its result, and not its input; use act_quant=brevitas.quant.fixed_point.Int8ActPer",
    ),
    "sigmoid of a wide accumulator": (
        lambda: [conv(3, 4, 3), bnn.QuantSigmoid(act_quant=Uint8ActPerTensorFixedPoint)],
        "layer '2' must read at most 12 bits, not ",
    ),
    "accumulator too wide for a pool": (
        lambda: [identity(16), conv(3, 4, 3, width=16), nn.MaxPool2d(2)],
        f"; put a QuantIdentity with {ACT} there",
    ),
    "padding mode": (
        lambda: [conv(3, 4, 3, padding=1, padding_mode="circular")],
        "layer '1' must have padding_mode 'zeros', not 'circular'",
    ),
    "same padding with a stride": (
        lambda: [conv(3, 4, 3, stride=2, padding="same")],
        "layer '1' must have its padding in numbers, not 'same', where it has a stride",
    ),
    "transposed convolution with a scale for each channel of a group": (
        lambda: [
            transposed(3, 6, 3, groups=3, bias=False, weight_quant=LearnedFixedPointWeight, return_quant_tensor=False)
        ],
        f"layer '1' must have one scale, or one for each of its 6 filters, not 2; use {WEIGHT}",
    ),
    "pool of nine": (
        lambda: [bnn.TruncAvgPool2d(3, trunc_quant=RoundTo8bit)],
        "layer '1' must divide by a power of two, for its scale to be one, not by 9; use a window of such a size, or a "
        "divisor_override",
    ),
    "pool with ceil_mode": (
        lambda: [nn.AvgPool2d(2, ceil_mode=True)],
        "layer '1' must not have ceil_mode, and padding only with count_include_pad",
    ),
    "max pool with ceil_mode": (
        lambda: [nn.MaxPool2d(3, ceil_mode=True)],
        "layer '1' must have dilation 1, and neither ceil_mode nor return_indices",
    ),
    "adaptive pool without example": (
        lambda: [bnn.TruncAdaptiveAvgPool2d(1)],
        "the size of what layer '1' reads must be known: give an example, from_brevitas(model, example)",
    ),
    "float batch norm": (
        lambda: [conv(3, 4, 1), nn.BatchNorm2d(4), relu()],
        "layer '2' (BatchNorm2d) must not compute in float; use from_brevitas(model, batch_norm='merge'), which is "
        "exact, or 'keep' for a fixed-point BatchNorm",
    ),
    "bilinear upsampling": (
        lambda: [bnn.QuantUpsample(scale_factor=2, mode="bilinear")],
        "layer '1': its mode must be 'nearest', not 'bilinear'",
    ),
    "flatten of some axes": (
        lambda: [nn.Flatten(2)],
        "layer '1' must flatten all axes but the first; use torch.flatten(x, 1)",
    ),
    "float convolution": (
        lambda: [nn.Conv2d(3, 4, 1)],
        f"; use brevitas.nn.QuantConv2d with weight_quant={WEIGHT}",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_refused_with_its_remedy(name: str) -> None:
    layers, message = LAYERS[name]
    model = nn.Sequential(identity(), *layers())
    assert message in refusal(model, see=name not in ("bilinear upsampling", "scale for each channel"))


def test_scales_out_of_reach_and_wide_accumulators_are_told_with_what_they_are() -> None:
    for size, scale in ((1e-7, "2**-2"), (1e9, "2**2")):
        model = nn.Sequential(identity()).train()
        model(IMAGES * size)
        message = f"layer '0' must have a scale of 2**-21 to 2**21, not {scale}"
        assert message in refusal(model.eval(), see=False)
    model = nn.Sequential(identity(16), conv(3, 4, 3, width=16), nn.MaxPool2d(2))
    assert "what '2' reads or gives must fit 32 bits and a frac in -21..21, not 3" in refusal(model)


def test_an_uneven_adaptive_pool_is_refused() -> None:
    model = nn.Sequential(identity(), bnn.TruncAdaptiveAvgPool2d(3))
    assert "layer '1': its input must divide evenly into 3 windows, not be 8 wide" in refusal(model, example=IMAGES)


@pytest.mark.parametrize("bias", [False, True])
def test_truncation_of_what_has_a_scale_for_each_channel_is_refused(bias: bool) -> None:
    layers = (conv(3, 4, 1, per_channel=True, bias=bias), bnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit))
    model = nn.Sequential(identity(), *layers)
    with torch.no_grad():
        model[1].weight[0] *= 8
    assert (
        "layer '2' must read a QuantTensor of one scale, whose bits it drops; put a QuantIdentity before it, or use a "
        f"weight_quant per tensor, {WEIGHT}" in refusal(model)
    )


CALLS = {
    "relu of a float": (lambda x, a: F.relu(x), "layer 'relu' must read a quantized tensor; use brevitas.nn.QuantReLU"),
    "sum with a float": (lambda x, a: a(x) + x, "layer 'add' must read a quantized tensor; put a QuantIdentity with"),
    "sigmoid": (lambda x, a: torch.sigmoid(a(x)), "call 'sigmoid' must be a layer; use brevitas.nn.QuantSigmoid"),
    "product": (lambda x, a: a(x) * 2, "call 'mul' must be a layer; use a QuantConv2d with a weight for each channel"),
    "division": (
        lambda x, a: a(x / 255),
        "call 'truediv' must be a layer; use a QuantIdentity first, and",
    ),
    "joined rows": (lambda x, a: torch.cat([a(x), a(x)], 2), "call 'cat' must join channels: torch.cat(tensors, 1)"),
    "branch": (lambda x, a: a(x) if x.sum() > 0 else x, "the forward of Calls must be traceable by torch.fx, without"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_refused_with_its_remedy(name: str) -> None:
    call, message = CALLS[name]
    assert message in refusal(Calls(identity(return_quant_tensor=False), call=call))


def test_a_transposed_convolution_is_refused_a_size_in_its_call() -> None:
    layers = identity(), transposed(3, 4, 3, stride=2)
    message = "layer 'layers.1' must have output_padding, and no output_size in its call"
    assert message in refusal(Calls(*layers, call=lambda x, a, b: b(a(x), [18, 18])))
    assert message in refusal(Calls(*layers, call=lambda x, a, b: b(a(x), output_size=[18, 18])))


def test_the_sign_of_what_is_not_quantized_is_refused() -> None:
    model = nn.Sequential(bnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, **QUANT))
    assert f"layer '0' must read a quantized tensor; put a QuantIdentity with {ACT} before it" in refusal(model)


def test_a_layer_called_with_two_scales_is_refused() -> None:
    layers = (identity(), identity(4), conv(3, 3, 1, return_quant_tensor=False))
    model = Calls(*layers, call=lambda x, a, b, c: b(c(a(x))) + b(c(b(a(x)))))
    assert (
        "layer 'layers.2' must read tensors of one scale, but is called again with another; put one QuantIdentity, "
        "called each time, before it, or use a layer for each call" in refusal(model)
    )


def test_batch_norms_that_cannot_be_merged_or_kept_are_named() -> None:
    model = nn.Sequential(identity(), nn.BatchNorm2d(3), identity())
    assert (
        "layer '1' (BatchNorm2d) must stand alone behind a QuantConv or QuantLinear to be merged; use batch_norm='keep'"
        in refusal(model, batch_norm="merge")
    )
    model = nn.Sequential(identity(), conv(3, 3, 1, bias=False), nn.BatchNorm2d(3), conv(3, 3, 1))
    message = "layer '2' (BatchNorm2d) must have running statistics, and only a QuantReLU or QuantIdentity behind it"
    model[3].bias = None
    assert message in refusal(model.train().eval(), see=False, batch_norm="keep")
    model = nn.Sequential(identity(), transposed(3, 3, 1, groups=3, bias=False), nn.BatchNorm2d(3), relu())
    message = "layer '2' must not be merged into a transposed convolution of groups, which Brevitas does not; use batch"
    assert message in refusal(model, batch_norm="merge")
    readers = [identity(), bnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, **QUANT)]
    layers = [identity(), conv(3, 3, 1), nn.BatchNorm2d(3), *readers]
    model = Calls(*layers, call=lambda x, a, b, c, d, e: (lambda y: d(y) + e(y))(c(b(a(x)))))
    message = "'layers.2' (BatchNorm2d) must not have both binary and other quantizers behind it; use a layer for each"
    assert message in refusal(model, batch_norm="keep")
    model = nn.Sequential(identity(), conv(3, 3, 1, bias=False, bias_quant=None), nn.BatchNorm2d(3), relu())
    message = (
        "- layer '2' (BatchNorm2d) must be merged into a layer that quantizes the bias it gets by that; use "
        "bias_quant=brevitas.quant.Int32Bias for layer '1', though it has bias=False"
    )
    assert refusal(model, batch_norm="merge").endswith(f", but:\n{message}")


def test_arguments_are_checked() -> None:
    with pytest.raises(LowerError, match="model must be a torch module, not 3"):
        from_brevitas(3)
    with pytest.raises(LowerError, match="batch_norm must be 'refuse', 'merge' or 'keep', not 'fold'"):
        from_brevitas(nn.Sequential(identity()), batch_norm="fold")
    with pytest.raises(LowerError, match="example must be a tensor, not 8"):
        from_brevitas(nn.Sequential(identity()), 8)
