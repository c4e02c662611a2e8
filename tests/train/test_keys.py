"""Every key below `training` of design.yaml reaches what it is for."""

from pathlib import Path
from typing import Any

import pytest

from qfx import steps
from qfx.design import Design
from qfx.errors import DesignError
from qfx.nn import calibrate
from qfx.train import Freeze, Schedule, Settings, runs
from tests.train.test_preflight import changed

KEYS = """\
  batch: 16
  accumulate: 2
  precision: bfloat16
  clip: 1.5
  ema: 0.9
  checkpoint: 3
  label_smoothing: 0.1
  formats: frozen
  frac_lr: 0.004
  compile: true
  seed: 7
  freeze: {bn: 0.5, formats: 0.25}
"""


def design(folder: Path, keys: str, fixed: str = "{epochs: 1, lr: 0.01}") -> Design:
    """The micro design with other keys of training."""
    changed(folder, "design.yaml", "  batch: 16\n", keys)
    path = folder / "design.yaml"
    path.write_text(path.read_text().replace("{epochs: 1, lr: 0.01}", fixed))
    return Design.load(folder)


def test_the_loop_is_told_what_design_yaml_says(tmp_path: Path) -> None:
    phase = "{epochs: 9, lr: 0.01, schedule: {kind: step, warmup: 0.1, milestones: [4, 6], factor: 0.2}}"
    made = design(tmp_path, KEYS, phase)
    assert runs.settings(made, made.content.training.fixed) == Settings(
        epochs=9,
        lr=0.01,
        batch=16,
        seed=7,
        label_smoothing=0.1,
        freeze=Freeze(0.5, 0.25),
        schedule=Schedule("step", 0.1, (4, 6), 0.2),
        accumulate=2,
        precision="bfloat16",
        clip=1.5,
        ema=0.9,
        checkpoint=3,
        formats="frozen",
        frac_lr=0.004,
        compile=True,
    )


def test_without_keys_the_loop_has_its_own_defaults(tmp_path: Path) -> None:
    made = design(tmp_path, "")
    assert runs.settings(made, made.content.training.fixed) == Settings(epochs=1, lr=0.01)


@pytest.mark.parametrize(
    ("keys", "method", "percentile", "images"),
    [
        ("", "error", 99.9, 1024),
        ("  calibration: {method: max, images: 5}\n", "max", 99.9, 5),
        ("  calibration: {method: percentile, percentile: 90}\n", "percentile", 90, 1024),
    ],
)
def test_initial_formats_are_chosen_as_design_yaml_says(
    keys: str, method: str, percentile: float, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def noted(model: Any, batches: Any, *rest: Any) -> Any:
        seen.append((sum(map(len, batches)), *rest))
        return calibrate(model, batches, *rest)

    monkeypatch.setattr(runs, "calibrate", noted)
    made = design(tmp_path, keys)
    count = len(runs.load_data(made).train_x)
    steps.train(made)
    assert seen == [(min(images, count), method, percentile)]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "  calibration: {method: max, percentile: 99}\n",
            "design.yaml:12: training.calibration.percentile must be left out where method is not percentile, not 99",
        ),
        ("  calibration: {images: 0}\n", "design.yaml:12: training.calibration.images must be greater than 0, not 0"),
        ("  calibration: {method: best}\n", "training.calibration.method must be 'error', 'max' or 'percentile', not"),
        ("  freeze: {formats: 1.5}\n", "design.yaml:12: training.freeze.formats must be less than or equal to 1, not"),
        ("  freeze: {weights: 0.5}\n", r"training.freeze.weights must be one of the known keys \(bn, formats\)"),
        ("  frac_lr: 0\n", "training.frac_lr must be greater than 0, not 0"),
    ],
)
def test_a_wrong_key_is_refused_with_its_line(keys: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DesignError, match=said):
        design(tmp_path, keys)


def test_frozen_formats_of_a_design_do_not_move(tmp_path: Path) -> None:
    made = design(tmp_path, "  batch: 16\n  freeze: {formats: 1}\n  frac_lr: 0.9\n")
    run = steps.train(made).figures["widths"]["3"]
    assert all(move["before"] == move["now"] for move in run["moves"].values())
    (tmp_path / "other").mkdir()
    loose = design(tmp_path / "other", "  batch: 16\n  freeze: {formats: 0}\n  frac_lr: 0.9\n")
    run = steps.train(loose).figures["widths"]["3"]
    assert any(move["before"] != move["now"] for move in run["moves"].values())
