"""Whole designs in simulation: the same integers as the interpreter, in the cycles that the plan says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qfx.boards import Board
from qfx.emit import manifest
from qfx.emit.rtl import rtl
from qfx.graph import Graph
from qfx.graph.passes import remove_zero_width
from qfx.plan import network, plan
from qfx.plan.model import frame_ends
from qfx_sim.design import simulate
from qfx_sim.runner import BenchFailure
from tests.conformance.random_graphs import random_codes, random_graphs
from tests.rtl.examples import attention, everything, frames

BOARD = Board.load("ultra96v2")


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    """Everything in one design: the graph, its plan and the folder of its RTL."""
    graph = everything()
    made = plan(graph, BOARD, 600)
    return graph, made, rtl(graph, made, tmp_path_factory.mktemp("design") / "rtl")


def test_every_frame_is_exact_and_ends_in_the_planned_cycle(design):
    graph, made, folder = design
    codes = frames(graph, 8)
    found = simulate(folder, codes, graph.evaluate_codes(codes, all_nodes=True))
    assert found.difference is None
    assert np.array_equal(found.codes["dense"], graph.evaluate_codes(codes)["dense"])
    assert list(found.ends) == frame_ends(network(graph, made.nodes, made.depths), 8)
    assert found.interval == made.interval
    assert found.ends[0] + 1 == made.latency


@pytest.mark.parametrize("seed", [2, 3])
def test_stalls_change_no_code(design, seed):
    graph, made, folder = design
    codes = frames(graph, 5, seed)
    found = simulate(folder, codes, graph.evaluate_codes(codes, all_nodes=True), stalls=True, seed=seed)
    assert found.difference is None
    assert list(found.ends) != frame_ends(network(graph, made.nodes, made.depths), 5)  # it did stall


def test_every_node_can_be_watched_where_the_output_is_right(design):
    graph, made, folder = design
    codes = frames(graph, 2)
    golden = graph.evaluate_codes(codes, all_nodes=True)
    found = simulate(folder, codes, golden, every_node=True)
    assert found.difference is None and set(found.codes) > set(graph.outputs)
    assert all(np.array_equal(seen, golden[node]) for node, seen in found.codes.items())
    assert list(found.ends) == frame_ends(network(graph, made.nodes, made.depths), 2)
    golden["norm"] = golden["norm"].copy()
    golden["norm"].flat[-1] ^= 1
    assert simulate(folder, codes, golden).difference is None  # the outputs alone do not show it
    hidden = simulate(folder, codes, golden, every_node=True).difference
    assert hidden is not None and hidden.node == "norm" and hidden.frame == 1


@pytest.mark.parametrize(
    ("memory", "bit", "node"),
    [
        ("affine_norm_scale.mem", 0, "norm"),
        ("requant_second_q_shift.mem", 0, "second.q"),
        ("depthwise_depthwise_weight.mem", 3, "depthwise"),
        ("conv_offset_conv_weight.mem", 0, "offset.conv"),
        ("deform_deform_weight.mem", 3, "deform"),  # the sign of a digit
    ],
)
def test_one_wrong_bit_in_a_rom_is_found_at_its_node(design, tmp_path, memory, bit, node):
    graph, _, folder = design
    faulty = tmp_path / "rtl"
    shutil.copytree(folder, faulty)
    flip(faulty / memory, bit)
    codes = frames(graph, 4)
    found = simulate(faulty, codes, graph.evaluate_codes(codes, all_nodes=True))
    assert found.difference is not None
    assert found.difference.node == node
    assert str(found.difference).startswith(f"RTL: node {node!r} must give code ")
    assert found.difference.expected != found.difference.found


@pytest.mark.full
def test_a_design_that_stops_is_a_failure(design, tmp_path):
    graph, made, folder = design
    faulty = tmp_path / "rtl"
    shutil.copytree(folder, faulty)
    top = faulty / "everything.sv"
    text = top.read_text()
    at = text.index(") u_fifo_stem_q_to_add_1 (")
    depth = f".Depth({made.depths['stem.q->add.1']})"
    top.write_text(text[:at][: text[:at].rindex(depth)] + ".Depth(1)\n  " + text[at:])
    words = 2 * sum(port["words"] for port in manifest.read(folder, "rtl")["outputs"].values())
    with pytest.raises(BenchFailure, match=f"the design must give {words} words at out, but stopped after 0"):
        simulate(faulty, frames(graph, 2))


@pytest.mark.parametrize("number", range(2))
def test_random_graphs_are_exact_in_the_planned_cycles(number, tmp_path):
    exact(list(random_graphs(77, 2, blocks=3))[number], tmp_path)


@pytest.mark.parametrize("cycles", [130, 2000])
def test_a_softmax_and_a_gate_are_exact_in_the_planned_cycles(cycles, tmp_path):
    exact(attention(), tmp_path, cycles)


@pytest.mark.full
@pytest.mark.parametrize("number", range(20))
def test_many_random_graphs_are_exact_in_the_planned_cycles(number, tmp_path):
    exact(list(random_graphs(78, 20))[number], tmp_path)


def exact(graph: Graph, folder: Path, cycles: int = 2000) -> None:
    """Show that RTL and interpreter agree on a graph, and RTL and event model on every frame's last cycle."""
    graph = remove_zero_width(graph)
    made = plan(graph, BOARD, cycles)
    codes = random_codes(graph, 8, 1)
    found = simulate(rtl(graph, made, folder / "rtl"), codes, graph.evaluate_codes(codes, all_nodes=True))
    assert found.difference is None
    assert list(found.ends) == frame_ends(network(graph, made.nodes, made.depths), 8)


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a memory's first word."""
    first, *rest = path.read_text().split()
    path.write_text("\n".join([f"{int(first, 16) ^ (1 << bit):0{len(first)}x}", *rest]) + "\n")
