"""training.budget in design.yaml: what is refused, with its place, and a small design that keeps it."""

import json
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
            r"design.yaml:12: training.budget.fps must be left out where target.cycles says the rate$",
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
            r"design.yaml:\d+: a budget must allow the smallest widths, 2 bits .* learned, which need "
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


def test_a_budget_without_a_rate_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(QfxError, match=r"design.yaml:12: training.budget must have fps, the rate, where target.cycles"):
        Design.load(design(tmp_path, "{lut: 500}", target=""))


def test_a_rate_that_no_plan_reaches_is_refused_with_the_one_that_is(tmp_path: Path) -> None:
    made = Design.load(design(tmp_path, "{fps: 90000000}", target=""))
    said = (
        r"/design.yaml:12: training.budget.fps must be at most [\d,.]+, what the plan reaches on ultra96v2 at 250 MHz "
        r"in \d+ cycles a frame, not 90,000,000: ask for less, or raise target.clock_mhz$"
    )
    with pytest.raises(QfxError, match=said) as caught:
        preflight(made, runs.load_data(made))
    assert str(caught.value).count("design.yaml") == 1
    reached = float(str(caught.value).split("at most ")[1].split(", what")[0].replace(",", ""))
    slower = Design.load(design(tmp_path, f"{{fps: {reached}}}", target=""))
    preflight(slower, runs.load_data(slower))


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


ALLOCATED = "{lut: 600, dsp: 0}\n  allocate: {widths: [2, 3, 5, 8], images: 32}"
STATED = "default: {weight: 3, activation: 3}"


@pytest.mark.parametrize("recipe", [STATED, RECIPE])
def test_training_starts_from_widths_that_are_allocated_within_the_budget(tmp_path: Path, recipe: str) -> None:
    made = Design.load(design(tmp_path, ALLOCATED, recipe))
    build = Build(made, steps.STEPS)
    result = build.run("train")
    budget, formats = (result.figures["widths"]["3"][name] for name in ("budget", "formats"))
    assert budget["fits"] and budget["reached"]["lut"] <= 600
    widths = {name: int(formats[name].partition(".")[0][1:]) for name in ("conv.weight_quant", "classify.weight_quant")}
    chosen = json.loads((result.folder / "recipe.json").read_text())["layers"]
    assert set(widths.values()) != {3}
    stated = {name: chosen[name.removesuffix(".weight_quant")]["weight"]["width"] for name in widths}
    assert recipe == RECIPE or widths == stated
    assert all(points["weight"].get("learn_width", False) == (recipe == RECIPE) for points in chosen.values())
    lowered = build.run("lower")
    assert lowered.figures["exact"]["codes"] > 0
    planned = Plan.load(build.run("plan").folder / "plan.json")
    assert planned.resources.lut == budget["reached"]["lut"] and planned.budget.lut == 600


def test_elementwise_widths_are_allocated_in_a_design_too(tmp_path: Path) -> None:
    allocated = ALLOCATED.replace("{widths", "{points: [weight, activation, elementwise], widths")
    build = Build(Design.load(design(tmp_path, allocated, STATED)), steps.STEPS)
    result = build.run("train")
    found = result.figures["widths"]["3"]
    chosen = json.loads((result.folder / "recipe.json").read_text())["layers"]
    assert found["formats"]["pool.input_quant"].startswith(f"u{chosen['pool']['elementwise']['width']}.")
    assert set(chosen["conv"]) == {"weight"} and found["budget"]["fits"]
    assert build.run("lower").figures["exact"]["codes"] > 0
    assert Plan.load(build.run("plan").folder / "plan.json").resources.lut == found["budget"]["reached"]["lut"]


def test_another_allocation_trains_anew(tmp_path: Path) -> None:
    folder = design(tmp_path, ALLOCATED, STATED)
    wide = Build(Design.load(folder), steps.STEPS).run("train").figures["widths"]["3"]["formats"]
    text = (folder / "design.yaml").read_text()
    (folder / "design.yaml").write_text(text.replace("[2, 3, 5, 8]", "[2]"))
    narrow = Build(Design.load(folder), steps.STEPS).run("train").figures["widths"]["3"]["formats"]
    assert narrow["classify.weight_quant"].startswith("s2.") and not wide["classify.weight_quant"].startswith("s2.")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "allocate: {}",
            r"design.yaml:12: training.allocate must have weight_bits or bit_operations, or training.budget beside it$",
        ),
        ("allocate: {widths: [0], weight_bits: 50}", r"training.allocate.widths.0 must be greater than or equal to 1"),
        (
            "allocate: {weight_bits: 50}\n  widths: [3, 2]",
            r"training.widths must be one width beside training.allocate",
        ),
        (
            "allocate: {weight_bits: 90, points: [weight, elementwise]}",
            r"design.yaml:12: training.allocate.points must have training.budget beside it for elementwise, which ",
        ),
        ("allocate: {weight_bits: 90, points: [bias]}", r"training.allocate.points.0 must be"),
        ("allocate: {luts: 5}", r"training.allocate.luts must be one of the known keys .*weight_bits"),
        (
            "allocate: {weight_bits: 20}",
            r"design.yaml:\d+: budget must allow the smallest widths, 2 bits wherever they are chosen, which need "
            "44 of 20 weight_bits: allow more, or give smaller widths to choose from",
        ),
        (
            "allocate: {}\n  budget: {lut: 60}",
            r"design.yaml:\d+: budget must allow the smallest widths, 2 bits wherever they are chosen, which need "
            r"\d+ of 60 lut on ultra96v2 at 200 cycles a frame: allow more, or give smaller widths to choose from",
        ),
        ("allocate: {}\n  budget: {dsp: 1000}", r"design.yaml:\d+: budget dsp must be .* a count in 0..360, not 1000"),
    ],
)
def test_an_allocation_that_cannot_be_is_refused_before_training(tmp_path: Path, asked: str, said: str) -> None:
    (tmp_path / "model.py").write_text((MICRO / "model.py").read_text())
    text = (
        (MICRO / "design.yaml")
        .read_text()
        .replace("  widths: [3]\n", "" if "\n  widths" in asked else "  widths: [3]\n")
    )
    (tmp_path / "design.yaml").write_text(text.replace("  batch:", f"  {asked}\n  batch:"))
    with pytest.raises(QfxError, match=said):
        made = Design.load(tmp_path)
        preflight(made, runs.load_data(made))
