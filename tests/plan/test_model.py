"""The event model and the FIFO sizes that follow from it; that it equals the RTL is shown in sim/tb/design."""

from dataclasses import replace

import pytest

from qfx.boards import Board
from qfx.plan import network, plan
from qfx.plan.dataflow import least_depths
from qfx.plan.depths import size_fifos
from qfx.plan.model import Deadlock, frame_ends, keeps, rate
from qfx.plan.rows import enough_rows
from qfx.plan.timing import Window
from tests.rtl.examples import chain, everything


@pytest.fixture(scope="module")
def sized():
    """A graph with branches that meet again, its plan and the smallest FIFOs."""
    graph = everything()
    made = plan(graph, Board.load("ultra96v2"), 600)
    depths, found = size_fifos(graph, made.nodes, refined=1 << 40)
    return graph, made.nodes, depths, found


def test_smallest_fifos_keep_the_rate_of_the_slowest_part(sized):
    graph, nodes, depths, found = sized
    assert found.interval == max(node.cycles for node in nodes.values())
    assert keeps(network(graph, nodes, depths), found.interval)


def test_one_word_less_in_any_fifo_costs_cycles_or_stops_the_design(sized):
    graph, nodes, depths, found = sized
    least = least_depths(graph)
    tried = [key for key, depth in depths.items() if depth > least[key]]
    assert len(tried) >= 4
    for key in tried:
        assert not keeps(network(graph, nodes, {**depths, key: depths[key] - 1}), found.interval), key


def test_a_skip_branch_without_a_fifo_stops_the_design(sized):
    graph, nodes, depths, _ = sized
    with pytest.raises(Deadlock, match="node 'dense' gives 0 of .* words of 3 frames: its FIFOs are too small"):
        frame_ends(network(graph, nodes, {**depths, "stem.q->add.1": 0}), 3)


def test_one_credit_makes_a_part_wait_for_its_own_latency():
    graph = chain()
    made = plan(graph, Board.load("ultra96v2"), 64)
    slow = rate(network(graph, made.nodes, {"stem.q": 1})).interval
    assert slow > 10 * made.interval == 640


def test_frames_follow_each_other_at_the_interval(sized):
    graph, nodes, depths, found = sized
    ends = frame_ends(network(graph, nodes, depths), 6)
    assert [b - a for a, b in zip(ends[2:], ends[3:], strict=False)] == [found.interval] * 3
    assert found.latency == ends[0] + 1


def test_a_ring_gets_one_row_more_where_a_row_is_shorter_than_the_latency():
    square = Window((8, 8), (8, 8), (1, 1), (1, 1), (2, 2), 4, 1, 1, 1, 12)
    thin = replace(square, size=(8, 2), out=(8, 2))
    assert enough_rows(square).rows >= 4
    assert enough_rows(thin).rows > enough_rows(square).rows


def test_padding_costs_no_cycle():
    padded = Window((8, 8), (8, 8), (1, 1), (1, 1), (2, 2), 4, 1, 2, 9, 12)
    assert padded.cycles == 8 * 8 * 2 * 9
    assert enough_rows(padded).rows == 4
