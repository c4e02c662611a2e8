"""What a budget does to a plan: nothing where the plan keeps it anyhow, and else what fits is found."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from qfx.boards import Board
from qfx.errors import PlanError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Input, Requantize
from qfx.graph.passes import remove_zero_width
from qfx.plan import NoFitError, Plan, fit, limits, plan
from qfx.plan.data import Resources
from qfx.plan.limits import RESOURCES, available
from qfx.plan.search import Search, price, total
from tests.conformance.random_graphs import random_graphs

BOARD = Board.load("ultra96v2")
TARGETS = (300, 1000)


def graphs(seed: int, count: int = 3) -> Iterator[Graph]:
    return map(remove_zero_width, random_graphs(seed, count, blocks=3))


def fifo_heavy() -> Graph:
    """At prices that follow a budget of just what it takes, a fold with smaller nodes and larger FIFOs is chosen."""
    return list(graphs(3))[2]


def three_convolutions() -> Graph:
    """Products of 8 x 8 bits, which take a DSP or logic each."""
    b = GraphBuilder("three")
    last = b.add("x", Input((6, 6, 2), Fixed(8, 0)))
    rng = np.random.default_rng(1)
    for name, (channels, filters) in {"a": (2, 6), "b": (6, 4), "c": (4, 4)}.items():
        b.constant(f"{name}.w", rng.integers(-128, 128, (1, 3, channels, filters)), Fixed(8, 0))
        b.add(name, Conv2d(padding=(0, 1, 0, 1)), last, f"{name}.w")
        last = b.add(f"{name}.out", Requantize(Fixed(8, -10)), name)
    return b.build(last)


def fits(made: Plan, budget: Resources) -> bool:
    return all(getattr(made.resources, name) <= getattr(budget, name) for name in RESOURCES)


def test_a_budget_that_a_plan_keeps_anyhow_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    for graph, target in product((*graphs(seed), fifo_heavy()), TARGETS):
        free = plan(graph, BOARD, target, estimate_rate=True)
        for room in (0, int(rng.integers(1, 400))):
            budget = Resources(**{name: getattr(free.resources, name) + room for name in RESOURCES})
            limited = plan(graph, BOARD, target, estimate_rate=True, budget=budget)
            assert limited == replace(free, budget=budget), (graph.name, target, room)
        tight = free.resources
    monkeypatch.setattr(fit, "_TRIES", 1)  # planted: prices follow the budget, and what exceeds it is refused
    monkeypatch.setattr(fit, "_searches", lambda graph, _, budget, target: [(Search(graph, budget), target)])
    with pytest.raises(NoFitError, match=r"needs [\d,]+ of [\d,]+ LUT"):
        plan(fifo_heavy(), BOARD, TARGETS[-1], estimate_rate=True, budget=tight)


def test_without_a_target_no_budget_refuses_what_the_plan_without_it_takes(seed: int) -> None:
    for graph in (*graphs(seed), fifo_heavy()):
        free = plan(graph, BOARD, estimate_rate=True)
        assert fits(plan(graph, BOARD, estimate_rate=True, budget=free.resources), free.resources), graph.name


def test_a_plan_that_a_smaller_budget_allows_is_not_refused_with_the_larger_one_in_between(seed: int) -> None:
    for graph in graphs(seed):
        free = plan(graph, BOARD, TARGETS[0], estimate_rate=True)
        for share in (0.0, 0.5):
            budget = replace(free.resources, dsp=int(share * free.resources.dsp), lut=available(BOARD).lut)
            made = plan(graph, BOARD, TARGETS[0], estimate_rate=True, budget=replace(budget, ff=available(BOARD).ff))
            assert made.resources.dsp <= budget.dsp


@pytest.mark.parametrize("dsp", [0, 1, 5, 11, 12, 17, 30])
def test_multipliers_are_shared_out_between_dsps_and_logic(dsp: int) -> None:
    graph = three_convolutions()
    none, made = (plan(graph, BOARD, 144, budget=limits(BOARD, {"dsp": most})) for most in (0, dsp))
    free = plan(graph, BOARD, 144)
    assert made.resources.dsp <= dsp < free.resources.dsp
    assert none.resources.lut >= made.resources.lut > free.resources.lut


def cheapest(search: Search, target: int, room: Resources) -> float | None:
    """The price of the cheapest choices of all that fit and that adapters join."""
    found = None
    for chosen in product(*(search.fast(segment[0], target) for segment in search.segments)):
        used = total(choice.resources for choice in chosen)
        if all(getattr(used, name) <= getattr(room, name) for name in RESOURCES) and search.joined(chosen):
            worth = price(used, search.worth)
            found = worth if found is None else min(found, worth)
    return found
