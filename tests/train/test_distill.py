"""Quantized distillation: the loss is the published one, the student follows the teacher, the teacher stays."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from qfx import steps
from qfx.design import Design
from qfx.errors import DesignError, QfxError, TrainError
from qfx.train import Data, Distill, Settings, fit
from qfx.train.distill import distilled
from tests.train.test_loop import job
from tests.train.test_preflight import changed

PLAIN = Settings(epochs=6, lr=0.01, batch=20)
TEACHER = "  fixed: {epochs: 1, lr: 0.01}\n"


def teacher(classes: int = 2) -> nn.Module:
    """A float network of its own opinion."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, classes))


def labels_of(model: nn.Module, data: Data) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(data.test_x).argmax(1)


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 1.0), (4.0, 0.7), (0.5, 0.1)])
def test_the_loss_is_the_published_one(temperature: float, weight: float) -> None:
    torch.manual_seed(0)
    scores, wanted, loss = torch.randn(5, 3), torch.randn(5, 3), torch.tensor(1.25)
    found = distilled(loss, scores, wanted, Distill(temperature, weight))
    student, master = (log_softmax(each.double().numpy() / temperature, 1) for each in (scores, wanted))
    soft = (np.exp(master) * (master - student)).sum(1).mean()
    assert found.item() == pytest.approx((1 - weight) * 1.25 + weight * temperature**2 * soft, rel=1e-5)
    assert distilled(loss, wanted, wanted, Distill(temperature, 1.0)).item() == pytest.approx(0, abs=1e-6)


def test_a_student_follows_its_teacher_which_stays_as_it_is() -> None:
    data, master = job.data(), teacher()
    before = copy.deepcopy(master.state_dict())
    wanted = labels_of(copy.deepcopy(master), data)
    alone = fit(job.network(), data, PLAIN)
    taught = fit(job.network(), data, replace(PLAIN, distill=Distill(2.0, 1.0)), teacher=master)
    follows = [(labels_of(model, data) == wanted).float().mean().item() for model in (taught, alone)]
    assert follows[0] > 0.85 > follows[1]
    assert all(torch.equal(value, before[name]) for name, value in master.state_dict().items())


def test_teacher_and_settings_belong_together(tmp_path: Path) -> None:
    data, distill = job.data(), replace(PLAIN, epochs=1, distill=Distill())
    for settings, master in ((PLAIN, teacher()), (distill, None)):
        with pytest.raises(TrainError, match="a teacher must come with settings.distill, and only with it"):
            fit(job.network(), data, settings, teacher=master)
    with pytest.raises(TrainError, match="temperature must be a number above 0, not 0"):
        Distill(0, 0.5)
    fit(job.network(), data, distill, folder=tmp_path, teacher=teacher())
    other = teacher()
    with torch.no_grad():
        other[1].weight[0, 0] += 1
    with pytest.raises(TrainError, match=r"must be a checkpoint of this training, but its teacher is \d+, not \d+"):
        fit(job.network(), data, distill, folder=tmp_path, teacher=other)


def test_a_design_may_have_its_own_float_network_as_teacher(tmp_path: Path) -> None:
    plain = Design.load(changed(tmp_path, "design.yaml", "batch: 16", "batch: 16"))
    first = steps.train(plain).figures["widths"]["3"]
    taught = Design.load(changed(tmp_path, "design.yaml", TEACHER, f"{TEACHER}  teacher: {{weight: 1.0}}\n"))
    result = steps.train(taught)
    assert not result.skipped and result.figures["widths"]["3"]["quantized"] == first["quantized"]


def test_a_design_may_name_a_teacher_and_its_weights(tmp_path: Path) -> None:
    model = "model: model.py:Net, checkpoint: net.th"
    folder = changed(tmp_path, "design.yaml", TEACHER, f"{TEACHER}  teacher: {{{model}}}\n")
    said = r"design.yaml:12: training.teacher.checkpoint must name a file, not 'net.th' \(there is no .*net.th\)"
    with pytest.raises(DesignError, match=said):
        steps.train(folder)
    weights = Design.load(folder).object("model.py:Net", "model")().state_dict()
    torch.save(weights, folder / "net.th")
    assert not steps.train(folder).skipped and steps.train(folder).skipped
    torch.save({name: value + 1 for name, value in weights.items()}, folder / "net.th")
    assert not steps.train(folder).skipped


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("model: model.py:Net", "design.yaml:12: training.teacher must have a checkpoint where it has a model"),
        ("temperature: 0", "design.yaml:12: training.teacher.temperature must be greater than 0, not 0"),
        ("weight: 2.0", "design.yaml:12: training.teacher.weight must be less than or equal to 1, not 2.0"),
    ],
)
def test_a_wrong_teacher_is_refused(tmp_path: Path, given: str, said: str) -> None:
    folder = changed(tmp_path, "design.yaml", TEACHER, f"{TEACHER}  teacher: {{{given}}}\n")
    with pytest.raises(QfxError, match=re.escape(said)):
        steps.train(folder)


def test_a_teacher_of_other_classes_is_refused_before_training(tmp_path: Path) -> None:
    folder = changed(
        tmp_path, "design.yaml", TEACHER, f"{TEACHER}  teacher: {{model: model.py:Other, checkpoint: net.th}}\n"
    )
    (folder / "model.py").write_text(
        (folder / "model.py").read_text()
        + "\n\ndef Other():\n    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).state_dict(), folder / "net.th")
    with pytest.raises(
        QfxError, match="design.yaml:12: the teacher must give 2 scores an input, as the network does, not 3"
    ):
        steps.train(folder)
