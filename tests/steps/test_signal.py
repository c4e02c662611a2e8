"""A design of signals (length, channels) goes through the whole build, and a planted fault stops it."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qfx import steps
from qfx.errors import MismatchError, TrainError
from qfx.graph import Graph
from qfx.steps import hardware

DESIGN = """\
name: signal
model: model.py:Net
data: model.py:data
input: {format: s3.0, shape: [8, 2]}
board: ultra96v2
target: {cycles: 100}
training:
  float: {epochs: 1, lr: 0.02}
  fixed: {epochs: 1, lr: 0.01}
  batch: 16
  widths: [3]
vectors: 8
"""
MODEL = '''\
"""Is the second channel larger than the first?"""

import torch
from torch import nn

from qfx.train import Data


def Net() -> nn.Module:
    layers = nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2)
    return nn.Sequential(*layers)


def data() -> Data:
    signals = torch.randint(-4, 4, (48, 2, 8), generator=torch.Generator().manual_seed(1)).float()
    labels = (signals[:, 1].sum(1) > signals[:, 0].sum(1)).long()
    return Data(signals[:32], labels[:32], signals[32:], labels[32:])
'''


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory, unchanged_sources: None) -> Path:
    folder = tmp_path_factory.mktemp("signal")
    (folder / "design.yaml").write_text(DESIGN)
    (folder / "model.py").write_text(MODEL)
    steps.train(folder)
    steps.lower(folder)
    steps.plan(folder)
    return folder


@pytest.fixture
def copy(lowered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lowered, tmp_path / "signal"))


def test_torch_and_the_interpreter_give_the_same_integers_of_a_signal(lowered: Path) -> None:
    figures = steps.open_build(lowered).find("lower").figures  # type: ignore[union-attr]
    assert figures["exact"]["equal"] and figures["exact"]["frames"] == 8
    shapes = {node["name"]: node["shape"] for node in figures["nodes"]}
    assert shapes["0"] == [1, 8, 3] and shapes["2"] == [1, 4, 3]


def test_csim_gives_them_too_and_a_wrong_rounding_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps.hls(copy).figures["equal"]
    whole = hardware.write_hls

    def planted(graph: Graph, plan: Any, folder: Path) -> None:
        whole(graph, plan, folder)
        types = folder / "firmware" / "defines.h"
        wrong = re.sub(r"(ap_ufixed<3,-?\d+),AP_RND,", r"\1,AP_TRN,", types.read_text(), count=1)
        assert wrong != types.read_text()
        types.write_text(wrong)

    monkeypatch.setattr(hardware, "write_hls", planted)
    with pytest.raises(MismatchError, match=r"csim: node '[\w.]+' \(Requantize\) must give code"):
        steps.hls(copy, force=True)


def test_the_rtl_gives_them_too_and_a_wrong_weight_fails(copy: Path) -> None:
    steps.rtl(copy)
    assert steps.sim(copy).figures["equal"]
    rom = next((copy / "build" / "rtl" / "hdl").glob("*weight*.mem"))
    words = rom.read_text().split()
    words[0] = f"{int(words[0], 16) ^ 1:x}"
    rom.write_text("\n".join(words) + "\n")
    with pytest.raises(MismatchError, match=r"RTL: node '[\w.]+' must give code"):
        steps.sim(copy, force=True)


def test_synth_counts_its_parts_and_the_report_shows_it(copy: Path) -> None:
    steps.rtl(copy)
    figures = steps.synth(copy).figures
    assert figures["total"]["lut"] == sum(part["lut"] for part in figures["parts"]) > 0
    assert {"0", "4"} <= {part["node"] for part in figures["parts"]}
    steps.report(copy)
    page = (copy / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert "32 training inputs, 16 test inputs" in page and "<td>Conv2d</td><td>1x8x3</td>" in page
    assert f"{figures['total']['lut']:,}" in page and "not run: hls, sim" in page


def test_data_of_another_shape_is_refused(copy: Path) -> None:
    design = copy / "design.yaml"
    design.write_text(re.sub(r"\[8, 2\]", "[2, 8]", design.read_text()))
    said = r"train data must have shape \(N, 8, 2\), channels first, as input.shape \[2, 8\] says, not \(32, 2, 8\)"
    with pytest.raises(TrainError, match=said):
        steps.train(copy)
