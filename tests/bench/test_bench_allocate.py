"""bench_allocate stops where its figures would not be what they say: a plan off its budget, or other integers."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import qfx
from qfx.design import Design
from qfx.graph import Graph
from qfx.plan import Resources
from qfx.train import Data, Hardware, runs

ROOT = Path(__file__).resolve().parents[2]
CYCLES, BUDGET = 200, {"lut": 900, "ff": 1200, "bram18": 0, "dsp": 0}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, at a rate that suits a small network."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    module = importlib.import_module("bench_allocate")
    monkeypatch.setattr(module, "CYCLES", CYCLES)
    return module


@pytest.fixture
def task() -> dict[str, Any]:
    """What a row of the benchmark is made of, for the micro design."""
    design = Design.load(ROOT / "tests" / "steps" / "micro")
    data: Data = runs.load_data(design)
    model, batches = runs.float_model(design).eval(), [data.train_x]
    hardware = Hardware(design.board, CYCLES)
    given = {"default": {"input": design.content.input.format}}
    found = qfx.allocate(model, batches, BUDGET, given, widths=(2, 4, 8), hardware=hardware)
    return {"design": design, "model": model, "found": found, "budget": BUDGET, "batches": batches, "data": data}


def test_a_row_is_what_its_plan_takes_within_the_budget_and_reaches(bench: ModuleType, task: dict[str, Any]) -> None:
    row = bench.allocated(**task)
    assert {name: row[name] for name in BUDGET} == {name: int(task["found"].cost[name]) for name in BUDGET}
    assert all(row[name] <= most for name, most in BUDGET.items()) and 0 <= row["test accuracy, %"] <= 100


def test_a_plan_that_takes_other_resources_than_allocate_says_stops_it(bench: ModuleType, task: dict[str, Any]) -> None:
    cost = task["found"].cost
    task["found"] = replace(task["found"], cost={**cost, "lut": cost["lut"] - 1})
    with pytest.raises(SystemExit, match="the plan must take what allocate says, "):
        bench.allocated(**task)


@pytest.mark.parametrize("name", ["lut", "ff", "bram18", "dsp"])
def test_a_plan_above_its_budget_stops_it(bench: ModuleType, name: str) -> None:
    needs = Resources(700, 800, 2, 3)
    cost = {"lut": 700.0, "ff": 800.0, "bram18": 2.0, "dsp": 3.0}
    bench.require_kept(needs, cost, needs)
    planted = replace(needs, **{name: getattr(needs, name) - 1})
    with pytest.raises(SystemExit, match=rf"the plan must keep the budget, but takes \d+ of \d+ {name.upper()}$"):
        bench.require_kept(needs, cost, planted)


def test_integers_of_another_network_stop_it(
    bench: ModuleType, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = qfx.lower

    def planted(model: torch.nn.Module, example: torch.Tensor) -> Graph:
        """The graph, one bias of which is another."""
        graph = lower(model, example)
        name = next(name for name, constant in graph.constants.items() if "bias" in name)
        codes = graph.constants[name].codes.copy()
        codes.flat[0] += 1 << 12
        return replace(graph, constants={**graph.constants, name: replace(graph.constants[name], codes=codes)})

    monkeypatch.setattr(bench.qfx, "lower", planted)
    with pytest.raises(SystemExit, match="the interpreter must give the values of exact arithmetic, but does not"):
        bench.allocated(**task)
