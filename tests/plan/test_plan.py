"""What a plan promises: its file, its target, lanes that fit, and sentences that say why a graph does not fit."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from qfx.boards import Board
from qfx.errors import PlanError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Concat, Conv2d, Dense, Flatten, Input, Requantize
from qfx.plan import NoFitError, Plan, network, plan
from qfx.plan.cost import estimate
from qfx.plan.data import Resources
from qfx.plan.depths import own_cycles
from qfx.plan.search import lane_choices
from tests.conformance.cases import case_named
from tests.conformance.random_graphs import random_graphs
from tests.rtl.examples import chain, everything


@pytest.fixture(scope="module")
def board() -> Board:
    return Board.load("ultra96v2")


def small(board: Board, **budget: int) -> Board:
    return board.model_copy(update={"budget": board.budget.model_copy(update=budget)})


def test_a_plan_reads_back_as_it_was_written(board, tmp_path):
    graph = everything()
    made = plan(graph, board, 600)
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json", graph) == made


def test_a_plan_of_another_graph_is_refused(board, tmp_path):
    made = plan(chain(), board, 600)
    made.save(tmp_path / "plan.json")
    with pytest.raises(
        PlanError, match="must belong to the graph 'everything'.*another version of 'chain': plan again"
    ):
        Plan.load(tmp_path / "plan.json", everything())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "must be whole JSON"),
        (lambda text: text.replace('"interval": ', '"interval": 1'), "but it was edited"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "must have version 1, not 2"),
        (lambda text: json.dumps({"format": "other"}), "but is something else"),
    ],
)
def test_a_damaged_plan_is_refused(board, tmp_path, change, sentence):
    path = tmp_path / "plan.json"
    plan(chain(), board, 600).save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(PlanError, match=sentence):
        Plan.load(path)


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(PlanError, match="plan.json must be a readable file, but No such file or directory: plan first"):
        Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("target", [300, 600, 2304])
def test_no_part_takes_more_cycles_than_the_target(board, target):
    made = plan(everything(), board, target)
    assert max(node.cycles for node in made.nodes.values()) <= target
    assert made.interval == made.nodes[made.bottleneck].cycles


def test_a_larger_target_never_costs_more(board):
    prices = [plan(everything(), board, target).resources.lut for target in (300, 600, 1200, 2400)]
    assert prices == sorted(prices, reverse=True)


def test_without_a_target_the_plan_leaves_a_margin(board):
    tight = small(board, lut=5000)
    free, made = plan(everything(), board), plan(everything(), tight)
    assert made.resources.lut < 5000
    assert made.interval > free.interval


def test_an_unreachable_target_is_refused_with_the_node(board):
    with pytest.raises(
        PlanError, match="node 'x' must take at most 3 cycles a frame, but takes 64 even fully unrolled"
    ):
        plan(chain(), board, 3)


def test_a_graph_that_does_not_fit_names_node_and_resource(board):
    with pytest.raises(PlanError, match=r"must fit ultra96v2, but needs [\d,]+ of 300 LUT \(node '.*': [\d,]+\).*"):
        plan(chain(), small(board, lut=300), 2304)


def test_a_graph_far_too_large_says_by_how_much_and_what_to_do(board):
    with pytest.raises(NoFitError) as caught:
        plan(everything(), small(board, lut=30))
    text = str(caught.value)
    assert "target" not in text and "in the smallest folding found, of" in text
    assert text.endswith("use smaller widths, fewer channels or a larger board")
    made = caught.value.plan
    assert f"but needs {made.resources.lut:,} of 30 LUT (node '" in text and made.interval > 0


def test_a_board_without_dsps_is_planned_without_them(board):
    assert plan(chain(), small(board, dsp=0), 2304).resources.dsp == 0


def test_a_target_below_one_is_refused(board):
    with pytest.raises(PlanError, match="target_cycles must be a whole number from 1 to 1,000,000,000,000, not 0"):
        plan(chain(), board, 0)


def test_width_zero_is_refused_with_the_pass_to_run(board):
    b = GraphBuilder("none")
    b.add("x", Input((2, 2, 1), Fixed(4, 0)))
    b.add("q", Requantize(Fixed(0, 0)), "x")
    with pytest.raises(PlanError, match="node 'q' must be at least one bit wide: run the pass remove_zero_width first"):
        plan(b.build("q"), board)


def test_arithmetic_follows_the_constants(board):
    made = plan(everything(), board, 600)
    assert made.nodes["deform"].arithmetic == "khot"  # 2-hot weights
    assert made.nodes["second"].arithmetic == "lut"  # 4 x 4 bits
    assert plan(_dense(16), board, 600).nodes["dense"].arithmetic == "dsp"  # 16 x 16 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 7, 10, 12, 16, 58, 96, 116, 232, 1000])
def test_each_choice_of_lanes_divides_the_next_one(channels):
    choices = lane_choices(channels)
    assert choices[0] == 1
    assert choices[-1] >= channels
    assert all(b % a == 0 for a, b in zip(choices, choices[1:], strict=False))


def test_lanes_in_front_of_a_flatten_divide_the_channels(board):
    made = plan(everything(), board, 300)
    assert 4 % made.nodes["mean.q"].out_lanes == 0


def test_offsets_wait_in_a_fifo_of_reach_plus_one_rows(board):
    made = plan(everything(), board, 600)
    assert made.depths["offset"] >= (3 + 1) * 4  # 4x4 pixels, dilations to 3


def test_random_graphs_run_at_the_pace_of_their_slowest_part(board, seed):
    for graph in random_graphs(seed, 3, blocks=3):
        made = plan(_one_bit(graph), board, 3000)
        assert made.interval == own_cycles(network(_one_bit(graph), made.nodes, made.depths)), graph.name


def test_resources_of_the_nodes_and_the_rest_add_up(board):
    made = plan(everything(), board, 600)
    total = made.others
    for node in made.nodes.values():
        total = total + node.resources
    assert total == made.resources
    assert replace(made, others=total).resources != made.resources


def _one_bit(graph: Graph) -> Graph:
    from qfx.graph.passes import remove_zero_width

    return remove_zero_width(graph)


def _dense(width: int) -> Graph:
    b = GraphBuilder("dense")
    b.add("x", Input((8,), Fixed(width, 0)))
    b.constant("w", np.arange(32).reshape(8, 4) * 100, Fixed(width, 0))
    b.add("dense", Dense(), "x", "w")
    return b.build("dense")


def test_grouped_convolution_keeps_its_lanes_within_a_group(board):
    b = GraphBuilder("grouped")
    b.add("x", Input((4, 4, 12), Fixed(4, 0)))
    b.constant("w", np.ones((3, 3, 6, 8), dtype=np.int64), Fixed(4, 0))
    b.add("conv", Conv2d(padding=(1, 1, 1, 1), groups=2), "x", "w")
    made = plan(b.build("conv"), board, 100)
    assert 6 % made.nodes["conv"].in_lanes == 0
    assert 4 % made.nodes["conv"].out_lanes == 0


@pytest.mark.parametrize(
    ("case", "resources"),
    [
        ("lookup_width_8", Resources(lut=24, ff=14)),
        ("lookup_width_10", Resources(lut=96, ff=14)),
        ("lookup_width_11", Resources(bram18=1, ff=8)),
        ("lookup_width_12", Resources(bram18=2, ff=8)),
    ],
)
def test_a_table_is_made_of_luts_up_to_ten_bits_and_of_block_ram_beyond(board, case, resources):
    graph = case_named(case).graph
    made = plan(graph, board, 4000)
    (part,) = (part for part in network(graph, made.nodes, made.depths).parts if part.module == "qfx_lookup")
    assert estimate(part) == resources


def joined(first: int, second: int, flat: bool = False) -> Graph:
    """Two convolutions of an image of 16 pixels and both their results, joined."""
    b = GraphBuilder("joined")
    b.add("x", Input((4, 4, 2), Fixed(4, 0)))
    for name, channels in (("a", first), ("b", second)):
        b.constant(f"{name}.w", np.ones((1, 1, 2, channels), dtype=np.int64), Fixed(4, 0))
        b.add(name, Conv2d(), "x", f"{name}.w")
    b.add("y", Concat(), "a", "b")
    return b.build(b.add("flat", Flatten(), "y") if flat else "y")


@pytest.mark.parametrize(("first", "second"), [(1, 4), (3, 5), (5, 3), (6, 4), (14, 2), (2, 14), (12, 18), (8, 8)])
def test_a_concat_is_planned_as_fast_as_lanes_that_join_allow(board, first, second):
    made = plan(joined(first, second), board)
    assert first % made.nodes["y"].out_lanes == 0
    assert made.interval == min(words_of_joined(first, second)) * 16
    with pytest.raises(PlanError, match="allow more cycles a frame"):
        plan(joined(first, second), board, made.interval - 1)


def words_of_joined(first: int, second: int) -> Iterator[int]:
    """The words a pixel in the slowest stream, for every way to join the lanes of a, b and their Concat."""
    lanes = (lane_choices(first, True), lane_choices(second, True), [n for n in range(1, first + 1) if first % n == 0])
    for a, b, both in product(*lanes):
        if all(max(each, both) % min(each, both) == 0 for each in (a, b)):
            yield max(first // a, second // b, first // both - -second // both)


def test_a_flattened_concat_has_no_idle_lanes(board):
    made = plan(joined(6, 4, flat=True), board, 160)
    assert 10 % made.nodes["y"].out_lanes == 0


def test_a_concat_with_lanes_across_its_operands_is_refused(board):
    graph = joined(3, 5)
    made = plan(graph, board, 160)
    wrong = {**made.nodes, "y": replace(made.nodes["y"], unroll={**made.nodes["y"].unroll, "ci": 2, "co": 2})}
    with pytest.raises(PlanError, match="node 'y' must have lanes that divide the 3 channels of 'a', not 2"):
        network(graph, wrong, made.depths)
