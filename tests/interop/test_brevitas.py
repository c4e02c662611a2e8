"""A Brevitas network with power-of-two scales lowers to the integers that Brevitas computes, and is trained on."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qfx
import qfx.nn as qnn
from qfx.graph.lower import lower

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    RoundTo8bit,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    TruncTo8bit,
)

from qfx.interop.brevitas import from_brevitas
from tests.interop.nets import QUANT, conv, dense, differences, identity, relu, seen, transposed, values


class Block(nn.Module):
    """A residual block, its BatchNorm in float where ``norms``."""

    def __init__(self, channels: int, filters: int, stride: int, norms: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if norms else lambda _: nn.Identity()
        self.conv1, self.norm1, self.act = conv(channels, filters, 3, stride, 1, width=4), norm(filters), relu(4)
        self.conv2, self.norm2 = conv(filters, filters, 3, padding=1, width=4, per_channel=norms), norm(filters)
        self.share, self.out, self.down = identity(), relu(8), nn.Sequential()
        if stride > 1:
            self.down = nn.Sequential(conv(channels, filters, 1, stride, bias=False), norm(filters))

    def forward(self, x: Tensor) -> Tensor:
        y = self.share(self.norm2(self.conv2(self.act(self.norm1(self.conv1(x))))))
        return self.out(y + self.share(self.down(x)))


def resnet(norms: bool = False) -> nn.Module:
    torch.manual_seed(0)
    norm = [nn.BatchNorm2d(4)] if norms else []
    return nn.Sequential(
        *(identity(), conv(3, 4, 3, padding=1), *norm, relu()),
        *(Block(4, 4, 1, norms), Block(4, 8, 2, norms), bnn.TruncAvgPool2d(4, trunc_quant=RoundTo8bit)),
        *(nn.Flatten(), dense(8, 4)),
    )


@pytest.fixture
def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def train(model: nn.Module, x: Tensor, parameters, steps: int) -> list[float]:
    """Losses of a classification by the first pixels' mean."""
    labels = (x[:, 0, :2].mean((1, 2)) > 0).long() + 2 * (x[:, 1, :2].mean((1, 2)) > 0).long()
    optimizer, losses = torch.optim.Adam(parameters), []
    for _ in range(steps):
        optimizer.zero_grad()
        result = model(x)
        loss = nn.functional.cross_entropy(getattr(result, "value", result), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_residual_network_gives_the_same_integers(images: Tensor) -> None:
    model = seen(resnet(), images)
    assert differences(model, images) == [0, 0]
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed[1].weight[0, 0, 0, 0] += changed[1].weight.abs().max() / 2
    assert all(differences(changed, images, like=model))


def test_it_gives_them_after_some_training_with_brevitas_too(images: Tensor) -> None:
    model = seen(resnet(), images)
    losses = train(model.train(), images, [{"params": model.parameters(), "lr": 0.01}], 8)
    assert losses[-1] < losses[0]
    assert differences(model.eval(), images) == [0, 0]


def test_it_is_trained_on_with_our_quantizers_and_stays_exact(images: Tensor) -> None:
    ours = from_brevitas(seen(resnet(), images)).train()
    before = {name: quantizer.frac.clone() for name, quantizer in qnn.quantizers(ours).items()}
    losses = train(ours, images, qfx.param_groups(ours, lr=0.02, frac_lr=0.2), 12)
    assert losses[-1] < losses[0] - 0.1
    moved = [name for name, quantizer in qnn.quantizers(ours).items() if not torch.equal(quantizer.frac, before[name])]
    rounded = [name for name in moved if (qnn.quantizers(ours)[name].frac_now != before[name].round()).any()]
    assert rounded and len(moved) >= len(before) - 2  # what is on its grid already has no gradient
    ours.eval()
    graph = lower(ours, images)
    assert (graph.evaluate(images.numpy(), "NCHW") == qnn.exact(ours)(images).numpy()).all()


def random_network(seed: int) -> nn.Module:
    """A chain of layers of random kinds, widths and shapes for images of 3x8x8."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    layers, channels, size = [identity(choose.randint(3, 8), narrow_range=choose.random() < 0.3)], 3, 8
    for _ in range(choose.randint(1, 4)):
        groups = choose.choice([1, channels])
        filters, kernel = groups * choose.randint(1, 3) if groups > 1 else choose.randint(2, 6), choose.choice([1, 3])
        more = {"per_channel": choose.random() < 0.5, "bias": choose.random() < 0.7, "groups": groups}
        stride = choose.choice([1, 1, 2]) if size > 2 else 1
        layers.append(conv(channels, filters, kernel, stride, kernel // 2, width=choose.randint(2, 8), **more))
        channels, size = filters, (size + stride - 1) // stride
        width, floor = choose.randint(3, 8), choose.choice(["round", "floor", "round_to_zero"])
        layers.append(choose.choice([identity, relu])(width, float_to_int_impl_type=floor))
        if size % 2 == 0 and choose.random() < 0.5:
            trunc = {"trunc_quant": choose.choice([RoundTo8bit, TruncTo8bit]), "bit_width": choose.randint(2, 9)}
            layers.append(choose.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), bnn.TruncAvgPool2d(2, **trunc)]))
            size //= 2
    return nn.Sequential(*layers, nn.Flatten(), dense(channels * size * size, 5, bias=choose.random() < 0.5))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_give_the_same_integers(seed: int, images: Tensor) -> None:
    model = seen(random_network(seed), images)
    assert len(np.unique(values(model(images)))) > 8
    assert differences(model, images) == [0, 0]
    assert all(differences(model, images, fault=True))


def test_masters_are_the_float_weights_and_the_brevitas_network_is_left_alone(images: Tensor) -> None:
    model = seen(resnet(), images)
    state = copy.deepcopy(model.state_dict())
    ours = from_brevitas(model.train())
    assert torch.equal(ours.get_submodule("1").weight, model[1].weight) and model.training and not ours.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    train(ours.train(), images, [{"params": ours.parameters(), "lr": 0.1}], 1)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_one_quantizer_is_one_parameter_for_all_that_reads_it(images: Tensor) -> None:
    ours = from_brevitas(seen(resnet(), images))
    found = qnn.quantizers(ours)
    again = copy.deepcopy(ours)
    assert again.get_submodule("1").input_quant is again.get_submodule("0") is not found["0"]
    assert "0" in found and "1.input_quant" not in found
    assert ours.get_submodule("1").input_quant is found["0"]
    names = {id(quantizer): name for name, quantizer in found.items()}
    add = next(module for name, module in ours.named_modules() if isinstance(module, qnn.Add))
    assert names[id(add.a_quant)] == names[id(add.b_quant)] == "3.share"


def test_a_batch_norm_is_merged_as_brevitas_merges_it(images: Tensor) -> None:
    model = seen(resnet(norms=True), images)
    merged = copy.deepcopy(model)
    pairs = [(merged[1], merged[2])]
    for block in (merged[4], merged[5]):
        pairs += [(block.conv1, block.norm1), (block.conv2, block.norm2)]
    pairs.append((merged[5].down[0], merged[5].down[1]))
    for layer, norm in pairs:
        layer.merge_bn_in(norm)
        norm.forward = lambda x: x
    assert differences(model, images, like=merged, batch_norm="merge") == [0, 0]
    assert all(differences(model, images, batch_norm="merge"))  # Brevitas' own, unmerged, computes in float


@pytest.mark.parametrize(("per_channel", "bias"), [(False, False), (False, True), (True, False)])
def test_a_batch_norm_is_merged_into_a_transposed_convolution(per_channel: bool, bias: bool, images: Tensor) -> None:
    torch.manual_seed(2)
    back = transposed(3, 5, 3, stride=2, padding=1, output_padding=1, per_channel=per_channel, bias=bias)
    model = seen(nn.Sequential(identity(), back, nn.BatchNorm2d(5), relu(5)), images, 20)
    merged = copy.deepcopy(model)
    merged[1].merge_bn_in(merged[2])
    merged[2].forward = lambda x: x
    assert differences(model, images, like=merged, batch_norm="merge") == [0, 0]
    assert all(differences(model, images, like=merged, fault=True, batch_norm="merge"))
    assert all(differences(model, images, batch_norm="merge"))  # Brevitas' own, unmerged, computes in float


def test_a_batch_norm_is_kept_in_fixed_point_within_a_step_of_brevitas(images: Tensor) -> None:
    torch.manual_seed(4)
    layers = (identity(), conv(3, 6, 3, per_channel=True, bias=False), nn.BatchNorm2d(6), relu(6))
    model = seen(nn.Sequential(*layers, conv(6, 4, 1), nn.BatchNorm2d(4), identity(5)), images, 20)
    ours = from_brevitas(model, batch_norm="keep")
    assert isinstance(ours.get_submodule("2"), qnn.BatchNorm2d)
    found = qnn.exact(ours)(images).numpy()
    assert (lower(ours, images).evaluate(images.numpy(), "NCHW") == found).all()
    step = model[-1].act_quant.scale().item()
    away = abs(found - values(model(images))) / step
    assert (away > 0).mean() < 0.02 and away.max() <= 2
    ours.get_submodule("2").weight.data.neg_()
    assert (abs(qnn.exact(ours)(images).numpy() - values(model(images))) > 0).mean() > 0.1


def binarised() -> nn.Module:
    """A network of binary weights and signs, each behind a float BatchNorm."""
    torch.manual_seed(4)
    weight = {"weight_quant": SignedBinaryWeightPerTensorConst, "weight_scaling_const": 0.125, "bias": False}
    sign = {"act_quant": SignedBinaryActPerTensorConst, **QUANT}
    return nn.Sequential(
        *(identity(), conv(3, 8, 3, **weight), nn.BatchNorm2d(8)),
        *(bnn.QuantIdentity(min_val=-0.5, max_val=0.5, **sign), conv(8, 6, 3, **weight), nn.BatchNorm2d(6)),
        *(bnn.QuantHardTanh(min_val=-1.0, max_val=1.0, **sign), nn.MaxPool2d(2), nn.Flatten()),
        *(dense(24, 16, **weight), nn.BatchNorm1d(16), bnn.QuantIdentity(**sign), dense(16, 4, **weight)),
    )


def test_a_binarised_network_is_kept_with_the_signs_of_brevitas(images: Tensor) -> None:
    model = seen(binarised(), images, 20)
    ours = from_brevitas(model, batch_norm="keep")
    found = qnn.exact(ours)(images).numpy()
    graph = lower(ours, images)
    assert (graph.evaluate(images.numpy(), "NCHW") == found).all() and len(np.unique(found)) > 4
    assert (found != values(model(images))).mean() < 0.02
    assert all(graph.constants[f"{path}.weight"].fixed.width == 2 for path in (1, 4, 9, 12))
    ours.train()(images).square().sum().backward()
    assert ours.get_submodule("1").weight.grad.abs().sum() > 0
    ours.get_submodule("5").weight.data.neg_()
    assert (qnn.exact(ours.eval())(images).numpy() != values(model(images))).mean() > 0.3


def test_truncation_drops_bits_as_the_integers_say() -> None:
    """Sum, then ``clamp(floor(sum / 2**(bits of the sum - bits)))``, half to even where it rounds."""
    x = torch.tensor([[[[3.0, 4.0], [2.0, 1.0]]], [[[-3.0, -4.0], [-2.0, -1.0]]], [[[127.0, 127.0], [127.0, 127.0]]]])
    for quantizer, wanted in ((TruncTo8bit, [2, -3, 127]), (RoundTo8bit, [2, -2, 127])):
        enter = identity(scaling_init=128.0, scaling_impl_type="const")
        model = nn.Sequential(enter, bnn.TruncAvgPool2d(2, trunc_quant=quantizer)).eval()
        ours = from_brevitas(model)
        assert values(model(x)).ravel().tolist() == wanted == qnn.exact(ours)(x).ravel().tolist()
        pool = ours.get_submodule("1")
        assert str(pool.output_quant.format()) == "s8.0" and pool.divisor == 4


def test_quantizers_at_both_ends_of_a_layer_may_be_one(images: Tensor) -> None:
    shared = identity()
    layer = bnn.QuantEltwiseAdd(input_quant=None, output_quant=Int8ActPerTensorFixedPoint, **QUANT)
    layer.input_quant = shared.act_quant

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.conv, self.add = shared, conv(3, 3, 1), layer

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.add(x, self.conv(x))

    model = seen(Two(), images)
    assert differences(model, images) == [0, 0]
    ours = from_brevitas(model)
    assert ours.get_submodule("add").a_quant is ours.get_submodule("enter")
