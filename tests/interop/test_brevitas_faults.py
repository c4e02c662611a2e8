"""from_brevitas names every layer that is at fault at once, with its own remedy, and none that only reads one."""

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.errors import LowerError

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
)

from qfx.interop.brevitas import from_brevitas
from tests.interop.nets import QUANT, add, conv, dense, differences, identity, relu, seen, transposed

ACT = "brevitas.quant.fixed_point.Int8ActPerTensorFixedPoint (Uint8ActPerTensorFixedPoint for QuantReLU)"
WEIGHT = "brevitas.quant.fixed_point.Int8WeightPerTensorFixedPoint"
NO_DATA = (
    "must have seen data, which its scale is taken from, but has not: give the network a batch in training mode, "
    "model.train()(x), or load a trained state_dict"
)
FLOAT = {"act_quant": Int8ActPerTensorFloat}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def faults(model: nn.Module, **options) -> list[str]:
    """What from_brevitas says of a network, line by line; numbers without their digits."""
    with pytest.raises(LowerError) as caught:
        from_brevitas(model.eval(), **options)
    first, *lines = str(caught.value).splitlines()
    assert first == "the Brevitas network must be fixed point throughout, but:"
    assert all(line.startswith("- ") for line in lines)
    return [line.removeprefix("- ") for line in lines]


def scale(line: str, layer: str, remedy: str) -> bool:
    """Whether a line says that a layer has a scale that is no power of two."""
    return line.startswith(f"layer '{layer}' must have a power-of-two scale, not 0.") and line.endswith(
        f"; use {remedy}"
    )


def test_scales_of_several_layers_are_named_at_once_and_nothing_that_follows(images: Tensor) -> None:
    layers = conv(3, 4, 1, bias=False, weight_quant=Int8WeightPerTensorFloat), nn.MaxPool2d(2), nn.Flatten()
    found = faults(seen(nn.Sequential(identity(**FLOAT), *layers, dense(64, 4)), images))
    assert len(found) == 2 and scale(found[0], "0", ACT) and scale(found[1], "1", WEIGHT)


def test_all_places_of_one_layer_are_named_at_once(images: Tensor) -> None:
    quant = {"input_quant": Int8ActPerTensorFloat, "output_quant": Int8ActPerTensorFloat}
    layer = conv(3, 4, 3, padding=1, padding_mode="circular", weight_quant=Int8WeightPerTensorFloat, **quant)
    found = faults(seen(nn.Sequential(layer, relu()), images))
    assert len(found) == 4 and scale(found[0], "0.input_quant", ACT) and scale(found[1], "0", WEIGHT)
    assert scale(found[2], "0.output_quant", ACT)
    assert found[3] == "layer '0' must have padding_mode 'zeros', not 'circular'"
    found = faults(seen(nn.Sequential(bnn.QuantReLU(input_quant=Int8ActPerTensorFloat, **FLOAT, **QUANT)), images))
    assert len(found) == 2 and scale(found[0], "0.input_quant", ACT) and scale(found[1], "0", ACT)


class Sums(nn.Module):
    """A sum whose operands and result have float scales, and one of a tensor that is not quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.enter = identity(**FLOAT), identity(**FLOAT), identity()
        self.add = add(input_quant=None, output_quant=Int8ActPerTensorFloat)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.add(self.a(x), self.b(x)), self.enter(x), x.relu()], 1)


def test_operands_of_sums_and_joins_are_named_where_they_are_at_fault(images: Tensor) -> None:
    found = faults(seen(Sums(), images))
    assert len(found) == 4 and scale(found[0], "a", ACT) and scale(found[1], "b", ACT)
    assert scale(found[2], "add.output_quant", ACT)
    assert found[3] == "layer 'relu' must read a quantized tensor; use brevitas.nn.QuantReLU"


def test_a_layer_called_behind_a_fault_and_elsewhere_is_not_at_fault(images: Tensor) -> None:
    class Twice(Sums):
        def forward(self, x: Tensor) -> Tensor:
            return self.pool(self.a(x)) + self.pool(self.enter(x))

    model = Twice()
    model.pool = nn.MaxPool2d(2)
    found = faults(seen(model, images))
    assert len(found) == 1 and scale(found[0], "a", ACT)


def test_a_batch_norm_that_is_kept_leaves_the_fault_to_the_layer_behind_it(images: Tensor) -> None:
    model = seen(nn.Sequential(identity(), conv(3, 4, 1), nn.BatchNorm2d(4), identity(**FLOAT)), images)
    found = faults(model, batch_norm="keep")
    assert len(found) == 1 and scale(found[0], "3", ACT)


def test_batch_norms_that_cannot_be_merged_are_named_beside_the_other_faults(images: Tensor) -> None:
    layers = conv(3, 4, 1, bias=False, bias_quant=None, weight_quant=Int8WeightPerTensorFloat), nn.BatchNorm2d(4)
    found = faults(seen(nn.Sequential(identity(), *layers, relu(), nn.BatchNorm2d(4)), images), batch_norm="merge")
    assert len(found) == 3 and scale(found[0], "1", WEIGHT)
    assert "for layer '1', though it has bias=False" in found[1] and found[2].startswith("layer '4' (BatchNorm2d) must")


def test_a_scale_that_was_never_taken_from_data_is_refused(images: Tensor) -> None:
    stats = {"scaling_impl_type": "stats"}
    for more in ({}, stats):
        model = nn.Sequential(identity(**more), conv(3, 4, 1, output_quant=Int8ActPerTensorFixedPoint), relu(**more))
        assert faults(model) == [f"layer '{path}' {NO_DATA}" for path in ("0", "1.output_quant", "2")]
        model.train()(images)  # one batch is enough
        assert differences(model.eval(), images) == [0, 0]
        again = nn.Sequential(
            identity(**more), conv(3, 4, 1, output_quant=Int8ActPerTensorFixedPoint), relu(**more)
        ).eval()
        again.load_state_dict(model.state_dict())
        assert differences(again, images, like=model) == [0, 0]


def test_scales_that_need_no_data_are_taken_without(images: Tensor) -> None:
    for how in ("const", "parameter"):
        model = nn.Sequential(identity(scaling_impl_type=how, scaling_init=4.0), conv(3, 4, 1)).eval()
        assert differences(model, images) == [0, 0]


@pytest.mark.parametrize("quant", [SignedBinaryWeightPerTensorConst, SignedTernaryWeightPerTensorConst])
def test_constant_scales_of_one_and_two_bits_keep_their_bits(quant: type, images: Tensor) -> None:
    """The remedy is a scale, not a class of eight bits; done as it says, the network converts."""
    few = {"weight_quant": quant, "width": 2, "bias": False}
    model = seen(nn.Sequential(identity(), conv(3, 4, 3, **few)), images)
    assert faults(model) == ["layer '1' must have a power-of-two scale, not 0.1; use weight_scaling_init=0.125"]
    mended = seen(nn.Sequential(identity(), conv(3, 4, 3, weight_scaling_init=0.125, **few)), images)
    assert differences(mended, images) == [0, 0] and all(differences(mended, images, fault=True))


def test_other_scales_of_few_bits_and_of_channels_have_remedies_of_their_own(images: Tensor) -> None:
    third = {"min_val": -0.3, "max_val": 0.3, **QUANT}
    binary = bnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, **third)
    ternary = bnn.QuantIdentity(act_quant=SignedTernaryActPerTensorConst, **third)
    mean = {"weight_scaling_impl_type": "stats", "weight_scaling_stats_op": "ave"}
    mean |= {"weight_scaling_per_output_channel": False, "bias": False}
    ones = {"weight_quant": SignedBinaryWeightPerTensorConst, **mean}
    channels = conv(4, 4, 1, bias=False, weight_quant=Int8WeightPerChannelFloat)
    found = faults(
        seen(nn.Sequential(identity(), ternary, identity(), binary, conv(3, 4, 1, **ones), channels), images)
    )
    assert scale(found[0], "1", "min_val=-0.25, max_val=0.25")
    assert scale(found[1], "3", "brevitas.quant.SignedBinaryActPerTensorConst with min_val=-1.0, max_val=1.0")
    assert scale(found[2], "4", "weight_restrict_scaling_type='power_of_two'")
    assert scale(found[3], "5", "brevitas.quant.fixed_point.Int8WeightPerChannelFixedPoint") and len(found) == 4
    power = conv(3, 4, 1, weight_restrict_scaling_type="power_of_two", **ones)
    assert differences(seen(nn.Sequential(identity(), power), images), images) == [0, 0]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_numbers_that_are_none_are_refused(name: str, images: Tensor) -> None:
    model = seen(nn.Sequential(identity(), conv(3, 4, 1)), images)
    with torch.no_grad():
        model[1].get_parameter(name).view(-1)[0] = torch.nan
    assert faults(model) == [f"the {name} of layer '1' must be finite, but holds NaN or infinity"]


class Recurrent(nn.Module):
    """Recurrent layers and attention of Brevitas, whose forwards no tracer follows."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.steps = identity(), bnn.QuantLSTM(3, 4)
        self.attend, self.simple = bnn.QuantMultiheadAttention(4, 2), nn.LSTM(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.steps(self.enter(x))
        return self.simple(self.attend(y, y, y)[0])[0]


def test_recurrent_layers_are_named_as_unsupported() -> None:
    model = Recurrent()
    model.enter.train()(torch.randn(2, 3))
    found = faults(model)
    kinds = "layer 'steps' (QuantLSTM)", "layer 'attend' (QuantMultiheadAttention)", "layer 'simple' (LSTM)"
    assert len(found) == 3
    for line, kind in zip(found, kinds, strict=True):
        assert line.startswith(f"{kind} must be one of QuantIdentity, ")
        assert line.endswith("; use QuantConv1d over time: no layer is recurrent") is ("attend" not in kind)


def test_a_view_that_is_refused_is_named_without_the_sizes_it_asks_for(images: Tensor) -> None:
    class View(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return x.view(x.size(0), x.shape[1], -1)

    found = faults(seen(View(), images))
    assert len(found) == 1 and found[0].startswith("call 'view' must be a layer; use ")


def test_convert_sends_brevitas_networks_to_from_brevitas() -> None:
    said = (
        r"^model must be a float network, not one with layers of Brevitas \('0' is a QuantIdentity\): use qfx.interop."
    )
    with pytest.raises(LowerError, match=rf"{said}brevitas.from_brevitas\(model\)$"):
        qfx.convert(nn.Sequential(identity(), conv(3, 4, 1)))
    with pytest.raises(LowerError, match=r"\(the model itself is a QuantConvTranspose2d\)"):
        qfx.convert(transposed(3, 4, 1))
