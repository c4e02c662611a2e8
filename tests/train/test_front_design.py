"""training.front in design.yaml: a network for each budget, which of them lie on the front, and what is refused."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qfx import steps
from qfx.design import Design
from qfx.errors import QfxError, TrainError
from qfx.graph.lower import lower
from qfx.plan import limits, plan
from qfx.plan.limits import excess
from qfx.steps.engine import Build
from qfx.steps.front import dominated, front_facts, front_lines
from qfx.train import runs
from qfx.train.parallel import Children
from qfx.train.preflight import preflight
from tests.train.test_budget_design import design

LEARNED = "default: {weight: {width: 8, learn_width: true}, activation: {width: 8, learn_width: true}}"
STATED = "default: {weight: 8, activation: 8}"
WORDS = (
    "default: {weight: {width: 8, digits: {k: 3, signed: true, learn: true}}, "
    "activation: {width: 8, learn_width: true}}"
)
MAIN, ENTRIES = "{lut: 620, dsp: 0}", ("{lut: 560}", "{lut: 2000, dsp: 4}")


def front(folder: Path, main: str = MAIN, entries: tuple[str, ...] = ENTRIES, recipe: str = LEARNED) -> Path:
    """The micro design with a budget, and an entry of a front a line."""
    lines = "".join(f"\n  - {entry}" for entry in entries)
    design(folder, f"{main}\n  front:{lines}", recipe)
    file = folder / "design.yaml"
    file.write_text(file.read_text().replace("widths: [3]", "widths: [8]"))
    return folder


def opened(folder: Path) -> Build:
    return Build(Design.load(folder), steps.STEPS)


def trained(monkeypatch: pytest.MonkeyPatch, failing: int | None = None) -> list[int]:
    """The entries whose networks are trained from now on, 0 for training.budget, -1 for float."""
    calls: list[int] = []
    whole, whole_float = Children.train_fixed, runs.train_float

    def fixed(self: Children, made: Design, *rest: Any) -> None:
        if made.entry == failing:
            raise TrainError("stopped here")
        calls.append(made.entry)
        whole(self, made, *rest)

    def floating(*arguments: Any) -> None:
        calls.append(-1)
        whole_float(*arguments)

    monkeypatch.setattr(Children, "train_fixed", fixed)
    monkeypatch.setattr(runs, "train_float", floating)
    return calls


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[float]]]:
    """A trained front: its folder, its figures, and what was told of progress."""
    folder, told = front(tmp_path_factory.mktemp("front")), []
    result = opened(folder).run("train", lambda done, doing: told.append(done))
    yield folder, dict(result.figures), told


def networks(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {network["name"]: network for network in figures["front"]["networks"]}


def weights(folder: Path, name: str) -> Path:
    return folder / "build" / "train" / f"{name}.weights.safetensors".removeprefix("8bits.")


def test_each_network_keeps_its_budget_as_the_plan_of_its_saved_weights_says(
    built: tuple[Path, dict[str, Any], list[float]], tmp_path: Path
) -> None:
    folder, figures, _ = built
    made, needs = Design.load(folder), {}
    for each, (name, network) in zip(made.along_front, networks(figures).items(), strict=True):
        (tmp_path / "weights.safetensors").write_bytes(weights(folder, name).read_bytes())
        model = runs.trained_model(each, tmp_path)
        budget = runs.budget_of(each)
        needs[name] = plan(lower(model, runs.example(each, 1)), each.board, each.cycles, budget=budget).resources
        assert excess(needs[name], budget) == {} and network["budget"]["fits"]
        reached = network["budget"]["reached"]
        assert {key: reached[key] for key in ("lut", "ff", "bram18", "dsp")} == {
            key: getattr(needs[name], key) for key in ("lut", "ff", "bram18", "dsp")
        }
    assert list(needs) == ["8bits", "front1", "front2"]
    assert needs["front1"].lut <= 560 < needs["8bits"].lut <= 620 < needs["front2"].lut
    assert excess(needs["front2"], limits(made.board, {"lut": 560, "dsp": 0})), "a planted network that takes more"


def test_an_entry_changes_only_what_it_names(tmp_path: Path) -> None:
    made = Design.load(front(tmp_path, "{lut: 620, dsp: 3, ff: 0.5}"))
    asked = [each.content.training.budget.counts for each in made.along_front]
    assert asked == [
        {"lut": 620, "ff": 0.5, "dsp": 3},
        {"lut": 560, "ff": 0.5, "dsp": 3},
        {"lut": 2000, "ff": 0.5, "dsp": 4},
    ]
    assert {each.cycles for each in made.along_front} == {200}
    assert made.on_front(1).with_seed(5).entry == 1 and made.on_front(1).with_seed(5).content.training.seed == 5


def test_the_networks_differ_and_the_first_one_goes_on(built: tuple[Path, dict[str, Any], list[float]]) -> None:
    folder, figures, told = built
    found = networks(figures)
    assert len({weights(folder, name).read_bytes() for name in found}) == 3
    assert figures["front"]["resources"] == ["lut", "dsp"] and figures["lowered"] == 8
    assert found["8bits"]["accuracy"] == figures["widths"]["8"]["accuracy"]
    assert all((folder / "build" / "train" / f"{name}.log.csv").is_file() for name in found)
    assert told[-1] == 1.0 and told == sorted(told)
    build = opened(folder)
    assert build.run("train").skipped
    said = build.steps["train"].summary(figures)
    first, *lines = said.splitlines()
    assert "budget: " in first and [line.split()[0] for line in lines] == ["8bits", "front1", "front2"]
    takes = found["front1"]["budget"]["reached"]
    assert f"{found['front1']['accuracy']:.2f} %  {takes['lut']} LUT  {takes['dsp']} DSP  " in lines[1]
    assert lines[0].endswith("; the steps that follow build this one") and "build" not in "".join(lines[1:])
    build.run("lower")
    assert build.run("plan").figures["resources"]["lut"] == found["8bits"]["budget"]["reached"]["lut"]


def test_a_run_of_the_front_is_what_its_budget_alone_trains(
    built: tuple[Path, dict[str, Any], list[float]], tmp_path: Path
) -> None:
    folder, _, _ = built
    design(tmp_path, "{lut: 560, dsp: 0}", LEARNED)
    file = tmp_path / "design.yaml"
    file.write_text(file.read_text().replace("widths: [3]", "widths: [8]"))
    opened(tmp_path).run("train")
    assert weights(tmp_path, "8bits").read_bytes() == weights(folder, "front1").read_bytes()


def test_budgets_that_change_places_train_nothing_anew_and_another_one_only_its_run(
    built: tuple[Path, dict[str, Any], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, figures, _ = built
    main, first = weights(folder, "8bits").read_bytes(), weights(folder, "front1").read_bytes()
    calls = trained(monkeypatch)
    front(folder, "{lut: 560, dsp: 0}", ("{lut: 2000, dsp: 4}", "{lut: 620}"))
    result = opened(folder).run("train")
    assert calls == [] and not result.skipped
    assert weights(folder, "8bits").read_bytes() == first and weights(folder, "front2").read_bytes() == main
    assert networks(dict(result.figures))["front2"]["accuracy"] == networks(figures)["8bits"]["accuracy"]
    front(folder, "{lut: 560, dsp: 0}", ("{lut: 2000, dsp: 4}", "{lut: 600}"))
    opened(folder).run("train")
    assert calls == [2]


def test_a_front_that_was_stopped_keeps_the_runs_that_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one after the other
    with monkeypatch.context() as during:
        calls = trained(during, failing=2)
        with pytest.raises(TrainError, match="stopped here"):
            opened(front(tmp_path)).run("train")
    assert calls == [-1, 0, 1]
    calls = trained(monkeypatch)
    assert opened(tmp_path).run("train").figures["front"]["networks"][2]["budget"]["fits"] and calls == [2]


@pytest.mark.parametrize(
    ("recipe", "more"), [(STATED, "\n  allocate: {widths: [2, 3, 5, 8], images: 32}"), (WORDS, "")]
)
def test_a_front_of_allocated_widths_and_of_learned_k_keeps_its_budgets(tmp_path: Path, recipe: str, more: str) -> None:
    folder = front(tmp_path, f"{{lut: 1200, dsp: 0}}{more}", ("{lut: 640}",), recipe)
    result = opened(folder).run("train")
    found = networks(dict(result.figures))
    assert all(network["budget"]["fits"] for network in found.values())
    assert found["front1"]["budget"]["reached"]["lut"] <= 640 < found["8bits"]["budget"]["reached"]["lut"]
    if more:
        chosen = [json.loads((result.folder / name).read_text()) for name in ("recipe.json", "front1.recipe.json")]
        assert chosen[0] != chosen[1]


@pytest.mark.parametrize(
    ("merits", "found"),
    [
        ([(98.0, -900), (97.0, -620), (96.0, -800)], [[], [], [1]]),
        ([(98.0, -900), (98.0, -900)], [[], []]),  # equal in everything: neither is better
        ([(98.0, -900), (98.0, -901)], [[], [0]]),
        ([(98.0, -900, -4), (97.0, -900, -3), (97.0, -950, -4)], [[], [], [0, 1]]),
        ([(98.0, -900)], [[]]),
        ([(90.0, -2), (91.0, -2), (92.0, -2)], [[1, 2], [2], []]),
    ],
)
def test_a_network_is_off_the_front_where_another_is_as_good_in_all_and_better_in_one(
    merits: list[tuple[float, ...]], found: list[list[int]]
) -> None:
    assert dominated(merits) == found


def test_only_resources_that_some_budget_names_count(tmp_path: Path) -> None:
    made = Design.load(front(tmp_path, "{lut: 620}", ("{lut: 560}",)))

    def reached(accuracy: float, lut: int, ff: int) -> dict[str, Any]:
        needs = {"lut": lut, "ff": ff, "bram18": 0, "dsp": 0, "cycles": 180}
        return {"quantized": 50.0, "accuracy": accuracy, "budget": {"asked": {}, "reached": needs, "fits": True}}

    facts = front_facts(made, {"8bits": reached(90.0, 690, 100), "front1": reached(91.0, 550, 200)})
    assert facts["resources"] == ["lut"]
    assert [network["dominated"] for network in facts["networks"]] == [["front1"], []]
    planted = front_facts(made, {"8bits": reached(91.5, 690, 100), "front1": reached(91.0, 550, 200)})
    assert [network["dominated"] for network in planted["networks"]] == [[], []]


def test_lines_say_of_each_network_which_others_dominate_it_and_which_one_goes_on() -> None:
    def network(name: str, accuracy: float, lut: int, *by: str) -> dict[str, Any]:
        return {"name": name, "accuracy": accuracy, "budget": {"reached": {"lut": lut}}, "dominated": list(by)}

    networks = [
        network("8bits", 90, 690, "front1", "front2"),
        network("front1", 91.5, 550),
        network("front2", 90.25, 640, "front1"),
        network("front3", 100, 12345),
    ]
    assert front_lines({"resources": ["lut"], "networks": networks}) == [
        "8bits    90.00 %     690 LUT  dominated by front1, front2; the steps that follow build this one",
        "front1   91.50 %     550 LUT  on the front",
        "front2   90.25 %     640 LUT  dominated by front1",
        "front3  100.00 %  12,345 LUT  on the front",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("- {lut: 560}", "- {luts: 560}"), r"design.yaml:14: training.front.0.luts must be one of the known keys"),
        (("- {lut: 560}", "- {lut: 1.5}"), r"design.yaml:14: training.front.0.lut must be a share .* not 1.5"),
        (
            ("- {lut: 560}", "- {fps: 3000, lut: 560}"),
            r"design.yaml:13: training.front must leave fps to training.budget, whose rate holds along the front, not",
        ),
        (
            ("  budget: {lut: 620, dsp: 0}\n", ""),
            r"training.front must have training.budget beside it, which its entries change$",
        ),
        (
            ("widths: [8]", "widths: [8, 4]"),
            r"training.widths must be one width beside training.front, whose runs differ in budgets alone$",
        ),
    ],
)
def test_a_wrong_front_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    file = front(tmp_path) / "design.yaml"
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(QfxError, match=said):
        Design.load(tmp_path)


ALLOCATED = f"{MAIN}\n  allocate: {{images: 32}}"


@pytest.mark.parametrize(
    ("main", "entries", "recipe", "said"),
    [
        (
            MAIN,
            ("{lut: 560}", "{lut: 60}"),
            LEARNED,
            r"design.yaml:15: front2: a budget must allow the smallest widths, .* which need \d+ of 60 LUT on ",
        ),
        (
            MAIN,
            ("{lut: 560}", "{dsp: 0.0, lut: 620}"),
            LEARNED,
            r"design.yaml:15: front2: a budget of the front must differ from the others, not be that of training.b",
        ),
        (
            MAIN,
            ("{lut: 560}", "{lut: 560, dsp: 0}"),
            LEARNED,
            r"design.yaml:15: front2: a budget of the front must differ from the others, not be that of front1",
        ),
        (MAIN, ("{dsp: 1000}",), LEARNED, r"design.yaml:14: front1: budget dsp must be .* in 0..360, not 1000"),
        (MAIN, ENTRIES, STATED, r"design.yaml:\d+: a budget must have widths to choose, but the recipe states all"),
        (
            ALLOCATED,
            ("{lut: 60}",),
            STATED,
            r"design.yaml:15: front1: budget must allow the smallest widths, 2 bits .* which need \d+ of 60 lut",
        ),
    ],
)
def test_an_entry_that_cannot_be_kept_is_named_before_training(
    tmp_path: Path, main: str, entries: tuple[str, ...], recipe: str, said: str
) -> None:
    made = Design.load(front(tmp_path, main, entries, recipe))
    with pytest.raises(QfxError, match=said):
        preflight(made, runs.load_data(made))
