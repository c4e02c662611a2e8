"""The RTL under Verilator computes the interpreter's integers, and a fault in it is named by node."""

from pathlib import Path

import pytest

from qfx.boards import Board
from qfx.emit.rtl import rtl
from qfx.graph import Graph
from qfx.graph.ops import OPS, Input
from qfx.graph.passes import remove_zero_width, run_passes
from qfx.plan import plan
from qfx_sim.design import Simulation, simulate
from tests.conformance.cases import Case, case_named
from tests.conformance.engines import interpreter
from tests.conformance.faults import FAULTS, victim
from tests.conformance.random_graphs import random_codes, random_graphs
from tests.conformance.sheets import merged, sheets

CYCLES = 400  # a frame: so slow that a sheet of many cases stays small

# A model takes long to compile, so of the cases on whole images these stand for all; `make test-full` runs every one.
SHORT = (
    "input_u8_0",
    "conv2d_per_channel",
    "conv2d_depthwise",
    "conv2d_twohot",
    "deformconv2d_square",
    "affine_behind_conv",
    "add_finer_first",
    "channelmax_image",
    "channelsum_of_what_is_below_the_largest",
    "multiply_excite",
    "concat_shortcut",
    "maxpool_overlapping",
    "sumpool_uneven",
    "select_zeros_around",
    "select_per_channel",
    "upsample_doubled",
    "depthtospace_per_channel",
    "slice_strided",
    "slice_per_channel",
    "requantize_per_channel_rnd_conv",
    "requantize_symmetric_same_format",
    "clamp_both_sides",
    "lookup_behind_requantize",
    "lookup_of_reached_codes",
    "flatten_image",
)


def simulated(graph: Graph, wanted: Graph, case: Case, folder: Path, stalls: bool = False) -> Simulation:
    """Run the design of ``graph`` and compare it with what the interpreter computes for ``wanted``."""
    made = plan(graph, Board.load("ultra96v2"), CYCLES)
    expected = dict(interpreter(wanted, case.codes))
    return simulate(rtl(graph, made, folder / "rtl"), case.codes, expected, stalls=stalls)


def run(case: Case, folder: Path, stalls: bool = False) -> Simulation:
    graph = remove_zero_width(case.graph)
    return simulated(graph, graph, case, folder, stalls)


@pytest.mark.parametrize("stalls", [False, True], ids=["free", "stalled"])
def test_the_rtl_computes_the_integers_of_every_operation(stalls: bool, tmp_path: Path) -> None:
    case = merged("short", [case_named(name) for name in SHORT])
    assert run(case, tmp_path, stalls).difference is None


def test_the_short_sheet_has_every_operation_that_fits_an_image() -> None:
    found = {type(case_named(name).graph.nodes[-1].op).__name__ for name in SHORT}
    assert found == set(OPS) - {"Dense"}  # the random graph has it


def test_the_rtl_computes_the_integers_of_a_random_graph(tmp_path: Path) -> None:
    assert random_run(19, tmp_path).difference is None


def random_run(seed: int, folder: Path) -> Simulation:
    (graph,) = (run_passes(graph) for graph in random_graphs(seed, count=1, blocks=4, largest=5))
    return run(Case(graph.name, "random", graph, random_codes(graph, 8, seed)), folder)


def test_a_planted_fault_in_the_rtl_is_named(tmp_path: Path) -> None:
    graph, codes = victim()
    case = Case("victim", "all", graph, codes)
    assert run(case, tmp_path / "right").difference is None
    for node, plant in FAULTS.items():
        found = simulated(plant(graph), graph, case, tmp_path / node).difference
        assert found is not None and found.node == node


def sheets_of_rtl() -> list[object]:
    """All sheets; those of whole images, the large ones, in `make test-full`."""
    image = (5, 4, 3)
    marks = {True: [pytest.mark.full], False: []}
    found = [(sheet, sheet.graph.input.type.shape == image) for sheet in sheets(12)]
    return [pytest.param(sheet, marks=marks[large], id=sheet.name) for sheet, large in found]


@pytest.mark.parametrize("sheet", sheets_of_rtl())
def test_the_rtl_computes_the_integers_of_every_case(sheet: Case, tmp_path: Path) -> None:
    assert run(sheet, tmp_path).difference is None


@pytest.mark.full
@pytest.mark.parametrize("seed", range(7, 17))
def test_the_rtl_computes_the_integers_of_more_random_graphs(seed: int, tmp_path: Path) -> None:
    assert random_run(seed, tmp_path).difference is None


def test_the_random_graph_reads_a_dense_layer() -> None:
    (graph,) = random_graphs(19, count=1, blocks=4, largest=5)
    kinds = {type(node.op).__name__ for node in graph.nodes}
    assert "Dense" in kinds and len(kinds - {Input.__name__}) >= 6
