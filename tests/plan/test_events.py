"""The fast event model finds the very times of the slow one (`tests.plan.reference`), also in designs that stop."""

import numpy as np
import pytest

from qfx.boards import Board
from qfx.graph.passes import run_passes
from qfx.plan import events, network, plan, timing
from qfx.plan.dataflow import Network
from qfx.plan.model import Deadlock, play
from tests.conformance.random_graphs import random_graphs
from tests.plan.reference import transfers
from tests.rtl.examples import attention, chain, everything

FRAMES = 4
EXAMPLES = [attention(), chain(), everything(), *map(run_passes, random_graphs(91, 6, blocks=3))]
DEPTHS = {
    "planned": lambda depth: depth,
    "half": lambda depth: depth // 2,
    "one": lambda depth: min(depth, 1),
    "deep": lambda depth: 40 + depth,
    "none": lambda depth: 0,
}


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda graph: graph.name)
def designs(request) -> dict[str, Network]:
    """A graph's design with FIFOs of several sizes."""
    graph = request.param
    made = plan(graph, Board.load("ultra96v2"), 600)
    return {
        name: network(graph, made.nodes, {key: change(depth) for key, depth in made.depths.items()})
        for name, change in DEPTHS.items()
    }


@pytest.mark.parametrize("name", DEPTHS)
def test_every_word_moves_when_the_slow_model_says(designs, name):
    assert difference(designs[name], transfers(designs[name], FRAMES)) == ""


def difference(design: Network, slow: dict[str, list[int]]) -> str:
    """Say where the fast model of ``design`` differs from what the slow one found."""
    try:
        fast = play(design, FRAMES)
    except Deadlock as stop:
        short = [s for s in design.outputs if len(slow[s.name]) < s.words * FRAMES]
        told = f"node {short[0].node!r} gives {len(slow[short[0].name])} of {short[0].words * FRAMES} words"
        return "" if told in str(stop) else f"{told}, not: {stop}"
    return next((name for name, x in slow.items() if not np.array_equal(x, fast[name].times)), "")


@pytest.fixture(scope="module")
def large():
    """The design of a graph with branches, and its depths."""
    graph = everything()
    made = plan(graph, Board.load("ultra96v2"), 600)
    return graph, made


@pytest.mark.parametrize(("name", "value"), [("RAM_FIFO_LATENCY", 5), ("SHIFT_DEPTH", 1 << 20)])
def test_a_wrong_constant_is_seen(large, monkeypatch, name, value):
    graph, made = large
    assert max(made.depths.values()) > timing.SHIFT_DEPTH
    design = network(graph, made.nodes, made.depths)
    slow = transfers(design, FRAMES)
    assert difference(design, slow) == ""
    monkeypatch.setattr(timing, name, value)
    assert difference(design, slow) != ""


def test_one_place_too_many_is_seen(large):
    graph, made = large
    fewer = {key: depth * 3 // 4 for key, depth in made.depths.items()}
    slow = transfers(network(graph, made.nodes, fewer), FRAMES)
    deeper = [network(graph, made.nodes, {**fewer, key: fewer[key] + 1}) for key in fewer]
    assert sum(difference(design, slow) != "" for design in deeper) >= 4


def test_events_that_wait_for_each_other_are_counted():
    a, b = events.Series(10, 2), events.Series(10, 2)
    a.follow(events.Wire(b), 3, 1)  # three go before b is asked
    b.follow_each(events.Wire(a), np.minimum(np.arange(10) + 5, 9), 1)  # five further than it stands
    assert events.solve([a, b]) == [3, 0]


def test_a_loop_of_few_words_is_slow_but_goes():
    a, b = events.Series(10, 2), events.Series(10, 2)
    a.follow(events.Wire(b), 2, 1)
    b.follow(events.Wire(a), 0, 5)
    assert events.solve([a, b]) == [20, 20]
    assert a.times.tolist() == [n // 2 * 6 + n % 2 for n in range(20)]
    assert events.Wire(a).ends.tolist() == [25, 55]
