"""Training and evaluation elsewhere than on the CPU: on a second device that every machine has, and on a GPU.

Each network goes there with `.to`, its inputs as the function in question says. Nothing may be left behind, and on the
second device, which computes as the CPU does without our kernels, every bit is that of the CPU.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import qfx
import qfx.nn as qnn
from qfx.design import Design
from qfx.errors import TrainError
from qfx.graph import save
from qfx.graph.lower import lower
from qfx.nn import fused
from qfx.nn.inputs import home
from qfx.steps import open_build
from qfx.train import Data, accuracy, device, fit, runs
from qfx.train.hardware import Hardware
from tests import other_device
from tests.nn.nets import RECIPE, Net, settled
from tests.train import job

MICRO = Path(__file__).resolve().parents[1] / "steps" / "micro"
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine")
DEVICES = [other_device.NAME, pytest.param("cuda", marks=NO_GPU)]


@pytest.fixture(autouse=True)
def in_place() -> Iterator[None]:
    """Parameters stay the objects that they are when they go to the second device, as with a GPU."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager training on a CPU by the formulas, as on other devices."""
    monkeypatch.setattr(fused, "available", lambda source: False)


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randint(0, 32, (16, 1, 8, 8)).float()
    return qnn.convert(settled(Net()), RECIPE, x[:2]).eval(), x


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same bits everywhere."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == same and torch.equal(a.cpu(), b.cpu()) for (name, a), (same, b) in pairs)


@pytest.mark.parametrize("name", DEVICES)
def test_calibration_and_correction_give_the_formats_of_the_cpu(name: str) -> None:
    found = []
    for place in ("cpu", name):
        model, x = network()
        x = x.to(place)
        found.append(qnn.correct(qnn.calibrate(model.to(place), [x]), [x]))
    here, there = found
    formats = [{path: str(quantizer.format()) for path, quantizer in qnn.quantizers(each).items()} for each in found]
    assert formats[0] == formats[1]
    assert home(there) == torch.device(name, 0)
    assert name != other_device.NAME or equal(here, there)
    with torch.no_grad():
        there.get_submodule("stem").weight_quant.frac += 1
    assert not equal(here, there)


@pytest.mark.parametrize("name", DEVICES)
def test_exact_evaluation_gives_the_integers_of_the_cpu(name: str) -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    here = qnn.exact(model)(x)
    there = qnn.exact(model.to(name))(x.to(name))
    assert there.device.type == name and torch.equal(there.cpu(), here)
    with torch.no_grad():
        model.get_submodule("stem").weight_quant.frac += 1
    assert not torch.equal(qnn.exact(model)(x.to(name)).cpu(), here)


@pytest.mark.parametrize("name", DEVICES)
def test_a_network_there_is_lowered_to_the_graph_of_the_cpu(name: str, tmp_path: Path) -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    for place in ("cpu", name):
        save(lower(model.to(place), x[:2].to(place)), tmp_path / place)
    files = [{path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} for place in ("cpu", name)]
    assert files[0] == files[1] and len(files[0]) > 1


@pytest.mark.parametrize("name", DEVICES)
def test_widths_are_allocated_alike(name: str) -> None:
    x = torch.randint(0, 32, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    recipe = {"default": {"input": "u5.0"}}
    found = []
    for place in ("cpu", name):
        task = {"recipe": recipe, "budget": {"weight_bits": 4_000}, "widths": (2, 4, 8)}
        torch.manual_seed(0)
        found.append(qfx.allocate(settled(Net()).to(place), [x.to(place)], **task).widths)
    assert found[0] == found[1] and len({width for each in found[0].values() for width in each.values()}) > 1


@pytest.mark.usefixtures("without_kernels")
def test_training_on_the_second_device_gives_the_bits_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(job.SETTINGS, precision="float32")

    def trained(place: str, lr: float = settings.lr) -> nn.Module:
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).to(place)
        with torch.no_grad():
            teacher[1].weight.copy_(torch.linspace(-1, 1, 72).reshape(2, 36))
        distill = replace(settings, lr=lr, distill=qfx.train.Distill())
        return fit(job.network().to(place), job.data(), distill, augment=lambda x: x + torch.rand(1), teacher=teacher)

    here, there = trained("cpu"), trained(other_device.NAME)
    assert home(there).type == other_device.NAME and equal(here, there)
    assert not equal(here, trained(other_device.NAME, lr=0.011))


@NO_GPU
def test_training_on_a_gpu_gives_the_same_bits_each_time() -> None:
    one, again = (fit(job.network().to("cuda"), job.data(), job.SETTINGS) for _ in range(2))
    assert equal(one, again)
    assert not equal(one, fit(job.network().to("cuda"), job.data(), replace(job.SETTINGS, seed=4)))


@pytest.mark.parametrize("name", DEVICES)
def test_training_goes_on_where_it_was_stopped_on_another_device_too(name: str, tmp_path: Path) -> None:
    def stopped(place: str, folder: Path, epochs: int) -> None:
        def stop(done: float, doing: str) -> None:
            if doing.startswith(f"epoch {epochs}/"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(job.network().to(place), job.data(), replace(job.SETTINGS, checkpoint=1), stop, folder=folder)

    whole = fit(job.network().to(name), job.data(), replace(job.SETTINGS, checkpoint=1))
    stopped(name, tmp_path / "same", 3)
    assert equal(whole, fit(job.network().to(name), job.data(), replace(job.SETTINGS, checkpoint=1), folder=tmp_path / "same"))
    for first, then in ((name, "cpu"), ("cpu", name)):
        folder = tmp_path / f"from_{first}"
        stopped(first, folder, 3)
        moved = fit(job.network().to(then), job.data(), replace(job.SETTINGS, checkpoint=1), folder=folder)
        assert home(moved).type == then and not equal(moved, job.network())


def micro(folder: Path, training: str, recipe: str = "default: {weight: 3, activation: 3}", more: str = "") -> Path:
    """The micro design, trained on a device as ``training`` says."""
    shutil.copytree(MICRO, folder, ignore=shutil.ignore_patterns("build"))
    text = (MICRO / "design.yaml").read_text().replace("default: {weight: 3, activation: 3}", recipe)
    (folder / "design.yaml").write_text(text.replace("  batch:", f"{training}\n  batch:") + more)
    return folder


LEARNED = "default: {weight: {width: 3, learn_width: true}, activation: {width: 3, learn_width: true}}"
DESIGNS = {
    "plain": ("", "default: {weight: 3, activation: 3}"),
    "within a budget": ("  budget: {lut: 2000}\n", LEARNED),
    "allocated": ("  budget: {lut: 2000}\n  allocate: {images: 16}\n", "default: {input: u4.0}"),
    "digits": ("  digits: {mean: 1.2}\n", "default: {weight: {width: 3, digits: {k: 2, learn: true}}, activation: 3}"),
    "taught": ("  teacher: {temperature: 2}\n", "default: {weight: 3, activation: 3}"),
}


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", DESIGNS)
def test_a_design_is_trained_on_the_device_that_it_states(kind: str, name: str, tmp_path: Path, monkeypatch) -> None:
    training, recipe = DESIGNS[kind]
    places = set()
    monkeypatch.setattr(runs, "fit", lambda model, *rest: places.add(home(model).type) or fit(model, *rest))
    work = open_build(str(micro(tmp_path / "micro", f"{training}  device: {name}", recipe)), None)
    figures = work.run("train", lambda done, doing: None).figures
    work.run("lower", lambda done, doing: None)
    assert places == {name}
    assert figures["widths"][str(figures["lowered"])]["accuracy"] > 0


def test_a_device_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    design = Design.load(micro(tmp_path / "micro", "  device: cuda:77"))
    said = (
        r"design.yaml:\d+: device must be auto, or one that torch can train on here, such as cpu or cuda, not cuda:77: "
    )
    with pytest.raises(TrainError, match=said):
        runs.device_of(design)
    with pytest.raises(TrainError, match=said):
        open_build(str(design.folder), None).run("train", lambda done, doing: None)
    with pytest.raises(TrainError, match="device must be .*, not meta: it has no float64|device must be .*, not gpu"):
        device.choose("gpu")


def test_a_network_on_two_devices_is_refused() -> None:
    model = job.network()
    model.get_submodule("0").to(other_device.NAME)
    said = r"the network must be on one device, but '0.weight' is on other:0 and '1.weight' on cpu: call model.to\('cpu'\)"
    with pytest.raises(TrainError, match=said):
        fit(model, job.data(), job.SETTINGS)


@pytest.mark.parametrize("name", DEVICES)
def test_a_network_and_inputs_on_two_devices_are_refused(name: str) -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    for call in (lambda: qnn.exact(model.to(name))(x), lambda: qnn.calibrate(model.to(name), [x])):
        with pytest.raises(TrainError, match="the network must take an input of shape 1x8x8, but torch says: .*device"):
            call()


@pytest.mark.parametrize("name", DEVICES)
def test_accuracy_is_that_of_the_cpu(name: str) -> None:
    model, data = job.network(), job.data()
    here = accuracy(qnn.exact(model), data.test_x, data.test_y)
    model.to(name)
    assert accuracy(qnn.exact(model), data.test_x, data.test_y, name) == here
    assert accuracy(qnn.exact(model), data.test_x.to(name), data.test_y.to(name)) == here


def test_ranks_that_have_a_gpu_each_use_nccl_and_others_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device.backend(torch.device("cuda:1")) == "cpu:gloo,cuda:nccl"
    assert device.backend(torch.device("cpu")) == "gloo"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert device.backend(torch.device("cuda:1")) == "gloo"
