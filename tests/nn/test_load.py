"""load: float and converted networks take each other's checkpoints, and nothing of another network's."""

import pytest
import torch
from torch import Tensor, nn

import qfx
from qfx.errors import TrainError
from qfx.nn import calibrate, convert, exact, quantizers
from tests.nn.nets import RECIPE, Net, digits_like


def trained() -> tuple[nn.Module, dict[str, Tensor]]:
    """A converted network that is calibrated, and its checkpoint."""
    torch.manual_seed(0)
    model = calibrate(convert(Net(), RECIPE), [digits_like(8, 0)]).eval()
    return model, model.state_dict()


def changed(state: dict[str, Tensor], model: nn.Module) -> list[str]:
    return [name for name, value in model.state_dict().items() if not torch.equal(value, state[name])]


def test_a_checkpoint_of_the_converted_network_brings_its_integers_back() -> None:
    model, state = trained()
    torch.manual_seed(1)
    other = convert(Net(), RECIPE).eval()
    report = qfx.load(other, state)
    assert set(report.loaded) == state.keys() and not report.missing + report.unexpected + report.wrong_shape
    x = digits_like(4, 1)
    assert torch.equal(exact(other)(x), exact(model)(x))


def test_a_float_checkpoint_loads_into_the_converted_network_whose_formats_stay() -> None:
    model, before = trained()
    formats = {name: str(quantizer.format()) for name, quantizer in quantizers(model).items()}
    torch.manual_seed(1)
    float_state = Net().state_dict()
    report = qfx.load(model, float_state)
    assert set(report.loaded) == float_state.keys() and not report.unexpected
    assert {name.rpartition(".")[0] for name in report.missing} == quantizers(model).keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in float_state.items())
    assert {name: str(quantizer.format()) for name, quantizer in quantizers(model).items()} == formats
    assert str(report).splitlines()[0].startswith("  loaded (")
    assert before.keys() == {*report.loaded, *report.missing}


def test_a_converted_checkpoint_loads_into_the_float_network() -> None:
    _, state = trained()
    torch.manual_seed(1)
    net = Net()
    report = qfx.load(net, state)
    assert set(report.loaded) == net.state_dict().keys() and not report.missing and not changed(state, net)
    assert {*report.loaded, *report.unexpected} == state.keys()


@pytest.mark.parametrize("converted", [False, True])
def test_a_checkpoint_of_another_network_is_refused_whole(converted: bool) -> None:
    torch.manual_seed(1)
    model: nn.Module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model = convert(model) if converted else model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), nn.Linear(4, 3)).state_dict()
    with pytest.raises(TrainError) as caught:
        qfx.load(model, other)
    lines = str(caught.value).splitlines()
    formats = {f"{name}.{part}" for name in quantizers(model) for part in ("frac", "initial", "_extra_state")}
    weights = before.keys() - formats  # the only ones that a checkpoint of a float network must have
    assert lines[0] == (
        f"the checkpoint must be of the network Sequential, but of {len({*weights, *other})} keys only 1 fit, "
        "so that nothing was loaded:"
    )
    assert lines[1] == "  loaded (1): 0.bias"
    assert lines[2].startswith(f"  missing ({len(weights) - 2}): 1.weight, 1.bias, ")
    assert all(name in lines[2] for name in weights - {"0.weight", "0.bias"})
    assert "  unexpected (2): 2.weight, 2.bias" in lines
    assert "  wrong shape (1): 0.weight (4, 1, 5, 5) in the checkpoint and (4, 1, 3, 3) in the model" in lines
    assert not changed(before, model)


def test_a_missing_weight_is_refused_even_where_all_else_fits() -> None:
    model, state = trained()
    before = {name: value.clone() for name, value in state.items()}
    for name in ("stem.bias", "stem.weight_quant.frac", "input.initial"):
        with pytest.raises(TrainError, match=rf"missing \(1\): {name}\n"):
            qfx.load(model, {key: value + 1 for key, value in before.items() if key != name})
        with pytest.raises(TrainError, match=r"unexpected \(1\): extra.bias\n"):
            qfx.load(model, {**before, "extra.bias": torch.zeros(1)})
        assert not changed(before, model)


def test_a_checkpoint_of_another_recipe_is_refused_before_anything_changes() -> None:
    _, state = trained()
    torch.manual_seed(1)
    model = convert(Net(), {**RECIPE, "layers": {**RECIPE["layers"], "fc": {"weight": 7}}})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        TrainError, match="quantizer 'fc.weight_quant' must have the checkpoint's width 4, not 7: convert"
    ):
        qfx.load(model, state)
    assert not changed(before, model)
    model = convert(Net(), {"default": {"weight": {"width": 4, "granularity": "tensor"}}})
    with pytest.raises(
        TrainError, match="\nconvert with the recipe that the checkpoint was trained with, or load only"
    ):
        qfx.load(model, state)


def test_what_is_no_state_dict_is_refused_with_what_to_pass() -> None:
    net = Net()
    with pytest.raises(TrainError, match="must hold tensors by name, not int at 'epoch': pass the part of it that is"):
        qfx.load(net, {"epoch": 3, "model": net.state_dict()})
    with pytest.raises(TrainError, match="its keys begin with 'module.', as DistributedDataParallel saves them: leave"):
        qfx.load(net, {f"module.{name}": value for name, value in net.state_dict().items()})


def test_a_module_called_twice_has_its_keys_once() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(self.norm(self.conv(x))))

    net, model = Again(), convert(Again())
    assert set(qfx.load(model, net.state_dict()).loaded) == net.state_dict().keys()
    assert torch.equal(model.conv_1.weight, net.conv.weight)
    assert not qfx.load(net, model.state_dict()).missing
