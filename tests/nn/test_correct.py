"""Bias correction: the mean results of layers are those of float arithmetic again, in order, and on all ranks."""

import copy

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.errors import TrainError
from qfx.nn.calibrate import floating
from tests.nn.nets import RECIPE, Net, digits_like

COARSE = {
    "default": {
        "input": "u5.0",
        "weight": 3,
        "activation": 3,
        "elementwise": {"width": 16, "signed": True},
        "constant": 16,
    }
}
CHANGED = (".running_", ".scale_quant.", ".shift_quant.", "bias")
LAYERS = ("stem", "block.bn1", "block.conv2", "block.bn2", "deform.offset_conv", "deform", "bn", "fc")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = Net().train()
    for norm in (net.block.bn1, net.block.bn2, net.bn):
        norm.momentum = 1.0  # the running statistics are those of the images below
    net(digits_like(256, 1))
    return qfx.calibrate(qfx.convert(net, COARSE, digits_like(4, 0)).eval(), [digits_like(256, 1)])


def means(model: nn.Module, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The mean of each channel of the layers' results."""
    found: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda layer, given, result, name=name: found.__setitem__(
                name, result.double().transpose(0, 1).flatten(1).mean(1)
            )
        )
        for name in names
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return found


def half_step(layer: nn.Module) -> float:
    """Half the step of the grid on which a layer's bias lies; it is the most that correction leaves."""
    quantizers = (layer.input_quant, layer.weight_quant) if hasattr(layer, "weight_quant") else (layer.shift_quant,)
    return float(2.0 ** -sum(quantizer.frac_now.min().item() for quantizer in quantizers)) / 2


def errors(model: nn.Module, x: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """How far the mean results are from those of float arithmetic with the same weights."""
    fixed = means(model, x, names)
    with floating(model):
        real = means(model, x, names)
    return {name: (fixed[name] - real[name]).abs().max().item() for name in names}


def test_mean_results_are_those_of_float_arithmetic(model: nn.Module) -> None:
    x = digits_like(256, 1)
    names = tuple(name for name, _ in model.named_modules() if name in LAYERS)
    assert {"stem", "block.bn1", "bn", "fc"} <= set(names)
    before = copy.deepcopy(model)
    with floating(before):
        wanted = means(before, x, names)
    assert qfx.correct(model, x.split(64)) is model
    for name, mean in means(model, x, names).items():
        assert (mean - wanted[name]).abs().max() < half_step(model.get_submodule(name)) + 1e-4, name
    shifted = errors(before, x, names)
    assert max(shifted.values()) > 0.1  # it was not so before
    assert {name: p.shape for name, p in before.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_only_biases_and_statistics_change_and_the_mode_stays(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    model.train()
    qfx.correct(model, [(digits_like(64, 1), None)])
    assert model.training and all(module.training for module in model.modules())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(any(part in name for part in CHANGED) for name in changed)
    trained = {name for name, _ in model.named_parameters()} & changed
    assert not any("bn" in name and name.endswith(("weight", "bias")) for name in trained)  # training mode is as it was


def test_a_folded_norm_gives_its_bias() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net[1].running_mean.fill_(0.1)
    recipe = {"default": {"input": "u5.0", "weight": 2, "activation": 3}, "layers": {"1": {"fold": True}}}
    x = digits_like(128, 2)
    model = qfx.calibrate(qfx.convert(net.eval(), recipe, x).eval(), [x])
    kept = model.get_submodule("1").bias.clone()
    assert max(errors(model, x, ("0", "4")).values()) > 0.01
    with floating(model):
        wanted = means(model, x, ("0", "4"))
    qfx.correct(model, [x])
    assert not torch.equal(model.get_submodule("1").bias, kept)
    for name, mean in means(model, x, ("0", "4")).items():
        assert (mean - wanted[name]).abs().max() < half_step(model.get_submodule(name)) + 1e-4, name


def test_it_asks_for_data_and_for_formats() -> None:
    model = qfx.convert(Net(), RECIPE, digits_like(4, 0))
    with pytest.raises(TrainError, match="correction must have at least one batch, but there was none"):
        qfx.correct(model, [])
    with pytest.raises(TrainError, match=r"quantizer '.*' must be calibrated before it runs"):
        qfx.correct(model, [digits_like(4, 0)])


def test_constants_with_one_binary_point_are_corrected_too() -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 3, 6, 6)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    net[1].running_mean.fill_(0.1)
    model = qfx.convert(net, {"default": {"constant": {"width": 8, "granularity": "tensor"}, "weight": 3}}, x).eval()
    corrected = qfx.correct(qfx.calibrate(model, [x]), [x]).get_submodule("1").running_mean
    assert not torch.equal(corrected, net[1].running_mean)


def test_scales_that_start_at_zero_keep_their_room_to_learn() -> None:
    x, net = torch.rand(8, 3, 6, 6), nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    nn.init.zeros_(net[1].weight), net[1].running_mean.fill_(0.1)
    model = qfx.calibrate(qfx.convert(net, {"default": {"constant": 8}}, x).eval(), [x])
    scale = model.get_submodule("1").scale_quant
    assert scale.format().fracs(4).tolist() == [6, 6, 6, 6]  # 127 / 64 holds 1
    qfx.correct(model, [x])
    assert scale.format().fracs(4).tolist() == [6, 6, 6, 6]
