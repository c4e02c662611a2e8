"""The even schedule: its FIFO depths keep the rate, and lie close to what the event model finds."""

import pytest

from qfx.boards import Board
from qfx.graph.passes import run_passes
from qfx.plan import network, plan
from qfx.plan.model import keeps
from qfx.plan.pacing import paced_fifos
from tests.conformance.random_graphs import random_graphs
from tests.rtl.examples import chain, everything

SLOW = 600  # cycles a frame: long against the registers on the way, which the lines leave out
EXAMPLES = [chain(), everything(), *map(run_passes, random_graphs(9, 6))]


@pytest.mark.parametrize("graph", EXAMPLES, ids=lambda graph: graph.name)
def test_the_depths_of_the_even_schedule_keep_the_rate(graph):
    exact = plan(graph, Board.load("ultra96v2"), SLOW)
    depths, rate = paced_fifos(graph, exact.nodes)
    assert depths.keys() == exact.depths.keys()
    assert rate.interval == exact.interval and rate.latency >= exact.latency
    assert keeps(network(graph, exact.nodes, depths), rate.interval)


@pytest.mark.parametrize("graph", EXAMPLES, ids=lambda graph: graph.name)
def test_they_are_no_waste(graph):
    exact = plan(graph, Board.load("ultra96v2"), SLOW)
    depths, _ = paced_fifos(graph, exact.nodes)
    assert sum(depths.values()) <= 1.5 * sum(exact.depths.values()) + 6 * len(depths)


def test_without_them_the_rate_is_lost():
    graph = everything()
    exact = plan(graph, Board.load("ultra96v2"), SLOW)
    depths, rate = paced_fifos(graph, exact.nodes)
    longest = max(depths, key=lambda key: depths[key])
    assert not keeps(network(graph, exact.nodes, {**depths, longest: 1}), rate.interval)
