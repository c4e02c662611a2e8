"""Training and evaluation elsewhere than on the CPU: on a GPU, or where there is none on tests.other_device.

Networks go there with `.to`, inputs as the function in question says; nothing may be left behind. The device of
tests.other_device computes as the CPU does without our kernels, so that every bit must be that of the CPU.
"""

import re
import shutil
from collections.abc import Iterator
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
from qfx.train import accuracy, device, fit, runs
from tests.nn.nets import RECIPE, Net, settled
from tests.train import job

MICRO = Path(__file__).resolve().parents[1] / "steps" / "micro"
GPU = torch.cuda.is_available()
if GPU:  # beside which torch cannot have the other
    THERE = "cuda"
else:
    from tests.other_device import NAME as THERE


@pytest.fixture(autouse=True)
def in_place() -> Iterator[None]:
    """Parameters stay the objects that they are when they go to the second device, as with a GPU."""
    torch.__future__.set_swap_module_params_on_conversion(not GPU)
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


def test_calibration_and_correction_give_the_formats_of_the_cpu() -> None:
    found = []
    for place in ("cpu", THERE):
        model, x = network()
        x = x.to(place)
        found.append(qnn.correct(qnn.calibrate(model.to(place), [x]), [x]))
    here, there = found
    formats = [{path: str(quantizer.format()) for path, quantizer in qnn.quantizers(each).items()} for each in found]
    assert formats[0] == formats[1]
    assert home(there) == torch.device(THERE, 0)
    assert GPU or equal(here, there)
    with torch.no_grad():
        there.get_submodule("stem").weight_quant.frac += 1
    assert not equal(here, there)


def test_exact_evaluation_gives_the_integers_of_the_cpu() -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    here = qnn.exact(model)(x)
    there = qnn.exact(model.to(THERE))(x.to(THERE))
    assert there.device.type == THERE and torch.equal(there.cpu(), here)
    with torch.no_grad():
        model.get_submodule("stem").weight_quant.frac += 1
    assert not torch.equal(qnn.exact(model)(x.to(THERE)).cpu(), here)


def test_a_network_there_is_lowered_to_the_graph_of_the_cpu(tmp_path: Path) -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    for place in ("cpu", THERE):
        save(lower(model.to(place), x[:2].to(place)), tmp_path / place)
    files = [{path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} for place in ("cpu", THERE)]
    assert files[0] == files[1] and len(files[0]) > 1


def test_widths_are_allocated_alike() -> None:
    x = torch.randint(0, 32, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    recipe = {"default": {"input": "u5.0"}}
    found = []
    for place in ("cpu", THERE):
        task = {"recipe": recipe, "budget": {"weight_bits": 4_000}, "widths": (2, 4, 8)}
        torch.manual_seed(0)
        found.append(qfx.allocate(settled(Net()).to(place), [x.to(place)], **task).widths)
    assert found[0] == found[1] and len({width for each in found[0].values() for width in each.values()}) > 1


@pytest.mark.skipif(GPU, reason="a GPU adds up in another order")
@pytest.mark.usefixtures("without_kernels")
def test_training_gives_the_bits_of_the_cpu() -> None:
    settings = replace(job.SETTINGS, precision="float32")

    def trained(place: str, lr: float = settings.lr) -> nn.Module:
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).to(place)
        with torch.no_grad():
            teacher[1].weight.copy_(torch.linspace(-1, 1, 72).reshape(2, 36))
        distill = replace(settings, lr=lr, distill=qfx.train.Distill())
        return fit(job.network().to(place), job.data(), distill, augment=lambda x: x + torch.rand(1), teacher=teacher)

    here, there = trained("cpu"), trained(THERE)
    assert home(there).type == THERE and equal(here, there)
    assert not equal(here, trained(THERE, lr=0.011))


def test_training_gives_the_same_bits_each_time() -> None:
    one, again = (fit(job.network().to(THERE), job.data(), job.SETTINGS) for _ in range(2))
    assert equal(one, again)
    assert not equal(one, fit(job.network().to(THERE), job.data(), replace(job.SETTINGS, seed=4)))


def test_training_goes_on_where_it_was_stopped_on_another_device_too(tmp_path: Path) -> None:
    settings = replace(job.SETTINGS, checkpoint=1)

    def train(place: str, folder: Path | None = None) -> nn.Module:
        return fit(job.network().to(place), job.data(), settings, folder=folder)

    def stopped(place: str, folder: Path, epochs: int) -> None:
        def stop(done: float, doing: str) -> None:
            if doing.startswith(f"epoch {epochs}/"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(job.network().to(place), job.data(), settings, stop, folder=folder)

    stopped(THERE, tmp_path / "same", 3)
    assert equal(train(THERE), train(THERE, tmp_path / "same"))
    for first, then in ((THERE, "cpu"), ("cpu", THERE)):
        folder = tmp_path / f"from_{first}"
        stopped(first, folder, 3)
        moved = train(then, folder)
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


@pytest.mark.parametrize("kind", DESIGNS)
def test_a_design_is_trained_on_the_device_that_it_states(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, recipe = DESIGNS[kind]
    places = set()
    monkeypatch.setattr(runs, "fit", lambda model, *rest: places.add(home(model).type) or fit(model, *rest))
    work = open_build(str(micro(tmp_path / "micro", f"{training}  device: {THERE}", recipe)), None)
    figures = work.run("train", lambda done, doing: None).figures
    work.run("lower", lambda done, doing: None)
    assert places == {THERE}
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
    with pytest.raises(TrainError, match="device must be .*, not gpu"):
        device.choose("gpu")


def test_a_network_on_two_devices_is_refused() -> None:
    model = job.network()
    model.get_submodule("0").to(THERE)
    said = (
        f"the network must be on one device, but '0.weight' is on {THERE}:0 and '1.weight' on cpu: call model.to('cpu')"
    )
    with pytest.raises(TrainError, match=re.escape(said)):
        fit(model, job.data(), job.SETTINGS)


def test_a_network_and_inputs_on_two_devices_are_refused() -> None:
    model, x = network()
    qnn.calibrate(model, [x])
    for call in (lambda: qnn.exact(model.to(THERE))(x), lambda: qnn.calibrate(model.to(THERE), [x])):
        with pytest.raises(TrainError, match="the network must take an input of shape 1x8x8, but torch says: .*device"):
            call()


def test_accuracy_is_that_of_the_cpu() -> None:
    model, data = job.network(), job.data()
    here = accuracy(qnn.exact(model), data.test_x, data.test_y)
    model.to(THERE)
    assert accuracy(qnn.exact(model), data.test_x, data.test_y, THERE) == here
    assert accuracy(qnn.exact(model), data.test_x.to(THERE), data.test_y.to(THERE)) == here


def test_ranks_that_have_a_gpu_each_use_nccl_and_others_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device.backend(torch.device("cuda:1")) == "cpu:gloo,cuda:nccl"
    assert device.backend(torch.device("cpu")) == "gloo"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert device.backend(torch.device("cuda:1")) == "gloo"
