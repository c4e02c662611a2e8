"""Each Brevitas layer, in a small network: its own output, exact evaluation and the graph have the same values."""

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
import torch.nn.functional as F
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int16Bias,
    RoundTo8bit,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    TruncTo8bit,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPointMinMaxInit,
    Int8WeightPerChannelFixedPointMSE,
)

from qfx.interop.brevitas import KHotWeight, LearnedFixedPointWeight, from_brevitas
from qfx.nn.sharing import used
from tests.interop.nets import (
    QUANT,
    TernaryAct,
    TernaryWeight,
    add,
    conv,
    dense,
    differences,
    identity,
    relu,
    seen,
    transposed,
)


class Residual(nn.Module):
    """A block as in Brevitas' own examples: one quantizer for what is added, and the assertion that it is quantized."""

    def __init__(self, add: nn.Module | None = None, join: bool = False) -> None:
        super().__init__()
        self.enter, self.share = identity(), identity(7)
        self.conv1, self.act, self.conv2 = conv(3, 4, 3, padding=1, width=5), relu(4), conv(4, 3, 3, padding=1)
        self.add, self.join, self.out = add, join, relu(5)
        self.last = conv(6 if join else 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.share(self.enter(x))
        y = self.share(self.conv2(self.act(self.conv1(x))))
        assert isinstance(x, bnn.quant_layer.QuantTensor)
        if self.join:
            return self.last(torch.cat([x, y], dim=1))
        return self.last(self.out(self.add(x, y) if self.add else x + y))


class Functional(nn.Module):
    """The calls that users write between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv, self.act = identity(), conv(3, 4, 3, per_channel=True), identity(6)
        self.fc, self.drop = dense(16, 5), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.act(self.conv(self.enter(x))))
        x = F.max_pool2d(x, 2)
        return self.fc(self.drop(torch.flatten(x, 1))).value


class Apart(nn.Module):
    """Sums and joins of plain tensors on different grids: nothing but floats to Brevitas."""

    def __init__(self, join: bool) -> None:
        super().__init__()
        plain = {"return_quant_tensor": False}
        self.enter, self.a, self.b = identity(), identity(7, **plain), identity(4, **plain)
        self.conv1, self.conv2 = conv(3, 3, 1, bias=False, **plain), conv(3, 3, 3, padding=1, bias=False, **plain)
        self.join, self.out, self.last = join, identity(), conv(6 if join else 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        a, b = self.conv1(self.a(x)), self.conv2(self.b(x))
        return self.last(self.out(torch.cat((a, b), 1) if self.join else a + b))


class Twice(nn.Module):
    """One convolution and one activation, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.conv, self.act = identity(), conv(3, 3, 3, padding=1), identity(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.conv(self.act(self.enter(x)))))


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(identity(), *layers)


class Sum(nn.Module):
    def __init__(self, channels: int = 3, same: nn.Module | None = None) -> None:
        super().__init__()
        self.enter, self.conv, self.same = identity(), conv(channels, channels, 1), same or identity(7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.same(self.conv(x)) + self.same(x)


def truncated(**more) -> nn.Module:
    """A TruncQuantAccumulator; Brevitas 0.13's constructor leaves out that of nn.Module."""
    layer = bnn.TruncQuantAccumulator.__new__(bnn.TruncQuantAccumulator)
    nn.Module.__init__(layer)
    layer.__init__(**more)
    return layer


def signs(scale: float = 1.0) -> nn.Module:
    return bnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, min_val=-scale, max_val=scale, **QUANT)


UNIT = {"weight_scaling_const": 1.0, "bias": False}


NETWORKS = {
    "grouped, strided, dilated, padded": lambda: sequence(
        conv(3, 6, 3, stride=2, padding=(2, 1), dilation=(2, 1), groups=3, per_channel=True)
    ),
    "depthwise, 2 bits": lambda: sequence(conv(3, 3, 3, groups=3, width=2, per_channel=True, bias=False)),
    "same padding": lambda: sequence(conv(3, 4, (3, 5), padding="same", width=3)),
    "binary point by error": lambda: sequence(conv(3, 4, 3, weight_quant=Int8WeightPerChannelFixedPointMSE)),
    "transposed, scale for each channel": lambda: sequence(
        transposed(3, 4, 3, stride=2, padding=1, output_padding=1, width=5, per_channel=True), relu(4), conv(4, 2, 1)
    ),
    "transposed, in groups, dilated": lambda: sequence(
        transposed(3, 6, (2, 3), stride=(1, 3), dilation=(2, 1), padding=(1, 2), groups=3, bias=False), identity(5)
    ),
    "transposed, of one tap, padded": lambda: sequence(transposed(3, 2, 1, stride=2, padding=1, width=3)),
    "transposed, our binary points": lambda: sequence(
        transposed(3, 4, 4, stride=2, padding=1, weight_quant=LearnedFixedPointWeight), relu(4)
    ),
    "transposed, two ones in groups": lambda: sequence(
        transposed(3, 6, 2, stride=2, groups=3, weight_quant=KHotWeight, weight_per_channel=False)
    ),
    "transposed, binary weights and both quantizers": lambda: nn.Sequential(
        transposed(
            *(3, 4, 2),
            stride=2,
            bias=False,
            weight_quant=SignedBinaryWeightPerTensorConst,
            weight_scaling_const=0.25,
            input_quant=Int8ActPerTensorFixedPoint,
            output_quant=Int8ActPerTensorFixedPoint,
        )
    ),
    "8-bit bias": lambda: sequence(conv(3, 4, 3, bias_quant=Int8Bias, width=4), relu()),
    "16-bit bias": lambda: sequence(conv(3, 4, 3, bias_quant=Int16Bias, width=4), relu(2)),
    "input and output quantizers": lambda: nn.Sequential(
        conv(
            3, 4, 3, input_quant=Int8ActPerTensorFixedPoint, output_quant=Int8ActPerTensorFixedPoint, output_bit_width=5
        ),
        conv(4, 2, 1, return_quant_tensor=False, bias=False),
        identity(3),
    ),
    "binary weights": lambda: sequence(
        conv(3, 4, 3, weight_quant=SignedBinaryWeightPerTensorConst, weight_scaling_const=0.25, bias=False), relu(3)
    ),
    "ternary weights": lambda: sequence(
        conv(3, 4, 3, weight_quant=SignedTernaryWeightPerTensorConst, width=2, weight_scaling_const=0.125, bias=False),
        relu(3),
    ),
    "signs": lambda: sequence(
        conv(3, 4, 3), signs(), conv(4, 3, 3, padding=1, weight_quant=SignedBinaryWeightPerTensorConst, **UNIT)
    ),
    "signs of half, pooled and added": lambda: sequence(
        conv(3, 4, 1, per_channel=True), signs(0.5), nn.MaxPool2d(2), Sum(4, signs(2.0)), conv(4, 2, 1), nn.AvgPool2d(2)
    ),
    "signs of a bound": lambda: sequence(
        conv(3, 4, 1),
        bnn.QuantHardTanh(act_quant=SignedBinaryActPerTensorConst, min_val=-0.25, max_val=0.25, **QUANT),
        conv(4, 2, 1),
    ),
    "signs by quantizers of a layer": lambda: sequence(
        conv(
            3,
            4,
            3,
            input_quant=SignedBinaryActPerTensorConst,
            output_quant=SignedBinaryActPerTensorConst,
            input_min_val=-0.5,
            input_max_val=0.5,
            output_min_val=-4.0,
            output_max_val=4.0,
        ),
        conv(4, 2, 1),
    ),  # fmt: skip
    "signs, truncated": lambda: sequence(
        conv(3, 4, 1), signs(), bnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=2)
    ),
    "signs into a sigmoid": lambda: sequence(
        conv(3, 4, 1), signs(2.0), bnn.QuantSigmoid(act_quant=Uint8ActPerTensorFixedPoint, bit_width=5, **QUANT)
    ),
    "ternary": lambda: sequence(
        conv(3, 4, 1), bnn.QuantIdentity(act_quant=SignedTernaryActPerTensorConst, **QUANT), conv(4, 2, 1)
    ),
    "ternary by quant_type": lambda: sequence(
        conv(3, 4, 3, weight_quant=TernaryWeight, bias=False),
        bnn.QuantIdentity(act_quant=TernaryAct, **QUANT),
        conv(4, 2, 1),
    ),
    "narrow and signed": lambda: sequence(conv(3, 4, 1), identity(4, narrow_range=True), conv(4, 2, 1)),
    "floor": lambda: sequence(conv(3, 4, 1), identity(4, float_to_int_impl_type="floor"), conv(4, 2, 1)),
    "hardtanh": lambda: sequence(
        conv(3, 4, 1),
        bnn.QuantHardTanh(
            act_quant=Int8ActPerTensorFixedPointMinMaxInit, min_val=-1.0, max_val=1.0, bit_width=4, **QUANT
        ),
    ),
    "sigmoid": lambda: sequence(
        conv(3, 4, 1),
        identity(6),
        bnn.QuantSigmoid(act_quant=Uint8ActPerTensorFixedPoint, bit_width=5, **QUANT),
        conv(4, 2, 1),
    ),
    "tanh": lambda: sequence(
        conv(3, 4, 1),
        bnn.QuantTanh(
            act_quant=Int8ActPerTensorFixedPoint, bit_width=5, input_quant=Int8ActPerTensorFixedPoint, **QUANT
        ),
    ),
    "max pools": lambda: sequence(nn.MaxPool2d(3, 2, 1), conv(3, 4, 1), nn.MaxPool2d(2), nn.Identity(), nn.Dropout()),
    "upsampling": lambda: sequence(bnn.QuantUpsample(scale_factor=2), conv(3, 2, 3), nn.Upsample(scale_factor=2)),
    "rounded pool": lambda: sequence(bnn.TruncAvgPool2d(2, trunc_quant=RoundTo8bit), conv(3, 2, 1)),
    "truncated pool": lambda: sequence(bnn.TruncAvgPool2d(4, 2, trunc_quant=TruncTo8bit, bit_width=5), conv(3, 2, 1)),
    "truncated pool, widened": lambda: sequence(bnn.TruncAvgPool2d((1, 2), trunc_quant=TruncTo8bit, bit_width=12)),
    "truncated unsigned pool": lambda: sequence(relu(4), bnn.TruncAvgPool2d(2, trunc_quant=TruncTo8bit, bit_width=4)),
    "pool of nine, divided by eight": lambda: sequence(
        bnn.TruncAvgPool2d(3, divisor_override=8, trunc_quant=RoundTo8bit)
    ),
    "exact pool": lambda: sequence(nn.AvgPool2d(2), conv(3, 2, 1)),
    "truncated accumulator": lambda: sequence(
        conv(3, 4, 3, width=5), truncated(trunc_quant=TruncTo8bit, bit_width=12), conv(4, 2, 1)
    ),
    "rounded sum": lambda: nn.Sequential(Sum(), truncated(trunc_quant=RoundTo8bit, bit_width=6)),
    "residual": Residual,
    "residual by a layer": lambda: Residual(add()),
    "residual by a layer that gives the sum": lambda: Residual(add(output_quant=None)),
    "residual by a layer that takes operands": lambda: Residual(add(input_quant=None)),
    "joined": lambda: Residual(join=True),
    "sum of plain tensors": lambda: Apart(join=False),
    "plain tensors joined": lambda: Apart(join=True),
    "calls": Functional,
    "called twice": Twice,
}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_brevitas_exact_evaluation_and_the_graph_agree(name: str, images: Tensor) -> None:
    torch.manual_seed(3)
    model = seen(NETWORKS[name](), images)
    assert differences(model, images) == [0, 0]
    assert all(differences(model, images, fault=True))


def test_each_quantizer_that_a_layer_uses_is_saved_and_trained(images: Tensor) -> None:
    for make in NETWORKS.values():
        ours = from_brevitas(seen(make(), images))
        owned = [id(module) for module in ours.modules()]
        assert all(id(quantizer) in owned for _, quantizer in used(ours))


@pytest.mark.parametrize("size", [1, 2, (1, None)])
def test_adaptive_pools_take_their_divisor_from_an_example(size, images: Tensor) -> None:
    images = images[:, :, :4, :4]
    pool = bnn.TruncAdaptiveAvgPool2d(size, trunc_quant=TruncTo8bit, bit_width=6)
    model = seen(nn.Sequential(identity(), pool, conv(3, 2, 1), nn.AdaptiveAvgPool2d(1)), images)
    assert differences(model, images, example=images) == [0, 0]


def test_signals_and_features_agree() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(8, 3, 12, generator=generator)
    conv1d = conv(3, 4, 3, stride=2, padding=1, dilation=2, per_channel=True, kind=bnn.QuantConv1d)
    model = seen(nn.Sequential(identity(), conv1d, relu(5), nn.MaxPool1d(2), nn.Flatten(), dense(8, 3)), x)
    assert differences(model, x) == [0, 0]
    back = conv(4, 2, 3, stride=2, output_padding=1, dilation=2, per_channel=True, kind=bnn.QuantConvTranspose1d)
    model = seen(nn.Sequential(identity(), conv(3, 4, 3, kind=bnn.QuantConv1d), relu(5), back), x)
    assert differences(model, x) == [0, 0] and all(differences(model, x, fault=True))
    x = torch.randn(8, 10, generator=generator)
    model = seen(nn.Sequential(identity(), dense(10, 6, per_channel=True), relu(4), dense(6, 3, bias=False)), x)
    assert differences(model, x) == [0, 0]
