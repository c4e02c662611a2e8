"""A float checkpoint in place of float training: found, checked, loaded, or refused with the keys at fault."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qfx.design import Design
from qfx.errors import DesignError, TrainError
from qfx.nn import Normalize
from qfx.train.float_checkpoint import load_float

MICRO = Path(__file__).parents[1] / "steps" / "micro"


def network() -> nn.Module:
    return nn.Sequential(Normalize([1.0], [2.0]), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def weights(seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {key: value for key, value in network().state_dict().items() if key[0] != "0" and "tracked" not in key}


@pytest.mark.parametrize("form", ["state_dict", "DataParallel", "safetensors"])
def test_every_form_loads(form, tmp_path) -> None:
    path, state = tmp_path / "net.th", weights()
    if form == "safetensors":
        path = tmp_path / "net.safetensors"
        save_file(state, path)
    else:
        prefixed = {f"module.{key}": value for key, value in state.items()}
        torch.save(state if form == "state_dict" else {"state_dict": prefixed, "best": 91.7}, path)
    model = load_float(network(), path)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert model[0].scale.item() == 0.5


def test_another_architecture_is_refused_with_its_keys(tmp_path) -> None:
    state = weights()
    del state["4.bias"]
    state |= {f"extra.{n}": torch.zeros(1) for n in range(5)} | {"1.weight": torch.zeros(2, 1, 5, 5)}
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(
        TrainError,
        match=r"net.th must hold the weights of Sequential, but misses 4.bias; also holds extra.0, extra.1, extra.2 "
        r"and 2 more; has other shapes at 1.weight$",
    ):
        load_float(network(), tmp_path / "net.th")


def test_weights_that_are_not_finite_are_refused_with_their_keys(tmp_path) -> None:
    state = weights()
    state["1.weight"][0, 0, 0, 0], state["2.running_var"][1] = float("nan"), float("inf")
    torch.save(state, tmp_path / "net.th")
    with pytest.raises(
        TrainError, match="net.th must hold finite weights, but holds NaN or infinity at 1.weight, 2.running_var$"
    ):
        load_float(network(), tmp_path / "net.th")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    path = tmp_path / "net.th"
    damaged = "net.th must be a checkpoint of tensors alone, but is damaged or another kind of file: write it with tor"
    torch.save(weights(), path)
    whole = path.read_bytes()
    for content in (b"nothing", b"", b"import torch\n", b"# A network.\n", whole[:99], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(TrainError, match=damaged):
            load_float(network(), path)
    (tmp_path / "net.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainError, match="net.safetensors must be .* alone, but is damaged or another kind of file"):
        load_float(network(), tmp_path / "net.safetensors")
    torch.save(network(), path)  # objects, which could run code
    with pytest.raises(TrainError, match="net.th must be .* alone, but holds other objects too: write it with torch.s"):
        load_float(network(), path)
    with pytest.raises(TrainError, match="must be a checkpoint of tensors alone, but cannot be read: Is a directory$"):
        load_float(network(), tmp_path)
    torch.save([1, 2], path)
    with pytest.raises(TrainError, match="net.th must hold a state_dict, tensors by name, not list"):
        load_float(network(), path)


def test_a_design_names_the_file_and_misses_it_in_words(tmp_path, monkeypatch) -> None:
    folder = Path(shutil.copytree(MICRO, tmp_path / "micro"))
    text = (folder / "design.yaml").read_text()
    named = text.replace("float: {epochs: 2, lr: 0.02}", "float: {checkpoint: $QFX_TEST/net.th}")
    assert named != text and Design.load(folder).float_checkpoint is None
    (folder / "design.yaml").write_text(named)
    with pytest.raises(
        DesignError,
        match=r"design.yaml:10: training.float.checkpoint must name a file, not '\$QFX_TEST/net.th' \(the environment "
        r"variable QFX_TEST is not set\): put the checkpoint there, or leave the key out",
    ):
        _ = Design.load(folder).float_checkpoint
    monkeypatch.setenv("QFX_TEST", str(tmp_path))
    with pytest.raises(DesignError, match=rf"\(there is no {tmp_path}/net.th\)"):
        _ = Design.load(folder).float_checkpoint
    (tmp_path / "net.th").touch()
    assert Design.load(folder).float_checkpoint == tmp_path / "net.th"
