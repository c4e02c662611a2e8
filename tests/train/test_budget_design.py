"""training.budget in design.yaml: what is refused, with its place, and a small design that keeps it."""

from pathlib import Path

import pytest

from qfx import steps
from qfx.design import Design
from qfx.errors import QfxError
from qfx.plan import Plan
from qfx.steps.engine import Build
from qfx.train import runs
from qfx.train.preflight import preflight

MICRO = Path(__file__).resolve().parents[1] / "steps" / "micro"
RECIPE = "default: {weight: {width: 3, learn_width: true}, activation: {width: 3, learn_width: true}}"


def design(folder: Path, budget: str, recipe: str = RECIPE, target: str = "target: {cycles: 200}") -> Path:
    """The micro design with a budget."""
    (folder / "model.py").write_text((MICRO / "model.py").read_text())
    text = (MICRO / "design.yaml").read_text().replace("default: {weight: 3, activation: 3}", recipe)
    text = text.replace("target: {cycles: 200}", target).replace("  batch:", f"  budget: {budget}\n  batch:")
    (folder / "design.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{luts: 5}", r"design.yaml:\d+: training.budget.luts must be one of the known keys .fps, lut"),
        ("{lut: -0.5}", r"budget.lut must be a share of the board such as 0.7, at most 1.0, or a count, not -0.5"),
        ("{lut: 1.5}", r"design.yaml:12: training.budget.lut must be a share .* or a count, not 1.5"),
        ("{dsp: many}", r"training.budget.dsp must be a share .* or a count, not 'many'"),
        ("{fps: 0}", r"training.budget.fps must be greater than 0, not 0"),
        (
            "{fps: 3000, lut: 500}",
            r"must say the rate where it has training.budget: either there as fps, or in",
        ),
    ],
)
def test_a_wrong_budget_is_refused_with_its_place(tmp_path: Path, budget: str, said: str) -> None:
    with pytest.raises(QfxError, match=said):
        Design.load(design(tmp_path, budget))


@pytest.mark.parametrize(
    ("budget", "recipe", "said"),
    [
        (
            "{lut: 60}",
            RECIPE,
            r"design.yaml:\d+: a budget must allow the smallest widths, 2 bits wherever they are learned, which need "
            r"[\d,]+ of 60 LUT on ultra96v2 at 200 cycles a frame: ",
        ),
        ("{lut: 0.5}", "default: {weight: 3, activation: 3}", r"design.yaml:\d+: a budget must have widths to choose"),
        ("{dsp: 1000}", RECIPE, r"design.yaml:\d+: budget dsp must be .* a count in 0..360, not 1000"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(tmp_path: Path, budget: str, recipe: str, said: str) -> None:
    made = Design.load(design(tmp_path, budget, recipe))
    with pytest.raises(QfxError, match=said):
        preflight(made, runs.load_data(made))


def test_frames_per_second_are_cycles_at_the_clock(tmp_path: Path) -> None:
    made = Design.load(design(tmp_path, "{fps: 1000000}", target=""))
    assert made.cycles == 250


def test_a_design_keeps_its_budget_and_says_so(tmp_path: Path) -> None:
    made = Design.load(design(tmp_path, "{lut: 600, dsp: 0}"))
    build = Build(made, steps.STEPS)
    result = build.run("train")
    budget = result.figures["widths"]["3"]["budget"]
    assert budget["fits"] and budget["reached"]["lut"] <= 600 and budget["asked"]["cycles"] == 200
    assert f"{budget['reached']['lut']} of 600 LUT" in build.steps["train"].summary(result.figures)
    build.run("lower")
    planned = Plan.load(build.run("plan").folder / "plan.json")
    assert planned.resources.lut == budget["reached"]["lut"] and planned.budget.lut == 600
