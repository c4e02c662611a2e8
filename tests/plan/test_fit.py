"""What a budget does to a plan: nothing where the plan keeps it anyhow, and else what fits is found."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from qfx.boards import Board
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Input, Requantize
from qfx.graph.passes import remove_zero_width
from qfx.plan import NoFitError, fit, limits, plan, program
from qfx.plan.data import Resources
from qfx.plan.limits import RESOURCES, available
from qfx.plan.search import Search, price, total
from tests.conformance.random_graphs import random_graphs
from tests.plan.test_plan import joined

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
        assert keeps(plan(graph, BOARD, estimate_rate=True, budget=free.resources).resources, free.resources)


def test_products_of_some_layers_go_to_dsps_and_of_others_to_logic_where_only_that_fits() -> None:
    graph = three_convolutions()
    made = plan(graph, BOARD, 144, budget=limits(BOARD, {"lut": 3900, "dsp": 30}))
    assert {made.nodes[name].arithmetic for name in "abc"} == {"dsp", "lut"}
    for one in ({"lut": 3900, "dsp": 0}, {"lut": 3900, "dsp": 5}):
        with pytest.raises(NoFitError):
            plan(graph, BOARD, 144, budget=limits(BOARD, one))


def test_a_budget_that_nothing_keeps_is_refused_with_what_exceeds_it_least() -> None:
    graph = three_convolutions()
    with pytest.raises(NoFitError, match=r"but needs 2,\d\d\d of 1,100 LUT \(node 'b': \d+\) at 128 cycles"):
        plan(graph, BOARD, 144, budget=limits(BOARD, {"lut": 1100}))


def every(search: Search, target: int) -> list[tuple[Resources, float]]:
    """What all choices that adapters join take, and their price."""
    found = []
    for chosen in product(*(search._fast(segment[0], target) for segment in search.segments)):
        streams = (stream for streams in search.streams for stream in streams)
        ends = ((chosen[s.source].nodes[s.name].out_lanes, chosen[s.sink].nodes[s.reader].in_lanes) for s in streams)
        if all(max(pair) % min(pair) == 0 for pair in ends):
            used = total(choice.resources for choice in chosen)
            found.append((used, price(used, search.worth)))
    return found


def keeps(used: Resources, room: Resources) -> bool:
    return all(getattr(used, name) <= getattr(room, name) for name in RESOURCES)


def over(used: Resources, room: Resources) -> float:
    """The sum over resources of what exceeds the room, as a share of it."""
    pairs = [(getattr(used, name), getattr(room, name)) for name in RESOURCES]
    return sum(max(0, needed - most) / max(1, most) for needed, most in pairs)


def wrong(graph: Graph, target: int, rooms: Iterator[Resources]) -> list[Resources]:
    """The rooms for which others than the cheapest of all choices that fit are taken."""
    search, found = Search(graph, available(BOARD)), []
    known = every(search, target)
    for room in rooms:
        made = total(node.resources for node in search.within(target, room).values())
        prices = [worth for used, worth in known if keeps(used, room)]
        if prices:
            right = keeps(made, room) and price(made, search.worth) == pytest.approx(min(prices), abs=5e-6)
        else:
            right = over(made, room) == pytest.approx(min(over(used, room) for used, _ in known), abs=1e-5)
        found += [] if right else [room]
    return found


def rooms(least: int, most: int, dsps: tuple[int, ...]) -> Iterator[Resources]:
    for dsp, lut in product(dsps, range(least, most, (most - least) // 8)):
        yield replace(available(BOARD), lut=lut, dsp=dsp)


def test_the_cheapest_of_all_choices_that_fit_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, dsps = three_convolutions(), (0, 5, 24, 30)
    assert wrong(graph, 144, rooms(1200, 5700, dsps)) == []
    counts = program._counts
    monkeypatch.setattr(program, "_counts", lambda resources: counts(replace(resources, dsp=0)))  # planted
    assert wrong(graph, 144, rooms(1200, 5700, dsps)) != []


@pytest.mark.parametrize(("first", "second", "target"), [(6, 4, 64), (5, 3, 48), (12, 18, 80), (14, 2, 112)])
def test_lanes_join_in_every_budget(first: int, second: int, target: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = joined(first, second)
    assert wrong(graph, target, rooms(100, 1600, (0, 10))) == []
    monkeypatch.setattr(program, "joins", lambda a, b: True)  # planted
    assert wrong(graph, target, rooms(100, 1600, (0, 10))) != []
