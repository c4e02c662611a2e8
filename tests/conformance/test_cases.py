"""The list of cases: every operation has some, and together with the random graphs they reach every combination."""

import numpy as np
import pytest

from qfx.graph.ops import OPS
from tests.conformance.cases import case_named, case_names
from tests.conformance.engines import interpreter, why_not_torch
from tests.conformance.random_graphs import CELLS, hits, random_codes, random_graphs
from tests.conformance.sheets import sheets

CAMPAIGN = {"seed": 7, "count": 640}  # the random graphs that interpreter and torch run

# Layers of qfx.nn cannot stand for these; the loops of tests/graph, csim and RTL can.
NOT_IN_TORCH = {"requantize_far_left", "requantize_far_right"}


@pytest.mark.parametrize("op", OPS)
def test_every_operation_has_cases_that_end_with_it(op: str) -> None:
    assert len(case_names(op)) >= 3
    for name in case_names(op):
        assert type(case_named(name).graph.nodes[-1].op).__name__ == op


def test_every_case_strains_its_operation() -> None:
    for name in case_names():
        case = case_named(name)
        (output,) = case.graph.outputs
        assert len(case.codes) >= 1
        constant = {"deformconv2d_reach_0", "clamp_to_one_code", "conv2d_weight_of_width_0", "affine_scale_of_width_0"}
        constant |= {
            "lookup_entries_of_width_0",
            "lookup_of_width_0",
            "multiply_of_width_0",
            "requantize_to_width_0",
            "requantize_far_right",
            "requantize_far_left",
        }
        if name not in constant:
            assert len(np.unique(case.graph.evaluate_codes(case.codes)[output])) > 1, name


def test_every_combination_of_operation_rounding_overflow_and_format_is_hit() -> None:
    found = {cell for graph in random_graphs(**CAMPAIGN) if not why_not_torch(graph) for cell in hits(graph)}
    empty = sorted(CELLS - found)
    assert not empty, f"{len(empty)} of {len(CELLS)} cells are empty: {empty[:5]}"


def test_random_graphs_do_not_die_out() -> None:
    """A graph whose result does not depend on its input compares nothing."""
    alive = 0
    for index, graph in enumerate(random_graphs(seed=3, count=60)):
        found = graph.evaluate_codes(random_codes(graph, 6, index))[graph.outputs[0]]
        alive += len(np.unique(found)) > 1
    assert alive >= 48


def test_the_table_has_a_cell_for_every_operation() -> None:
    assert {cell.op for cell in CELLS} == set(OPS)
    assert len(CELLS) == 7 * 4 * 2 * (len(OPS) + 11)  # eleven operations have a binary point for each channel, too


def test_what_torch_cannot_run_is_listed() -> None:
    assert {name for name in case_names() if why_not_torch(case_named(name).graph)} == NOT_IN_TORCH


def test_a_sheet_gives_each_case_its_own_codes() -> None:
    for sheet in sheets(30):
        found = interpreter(sheet.graph, sheet.codes)
        start = 0
        for output in sheet.graph.outputs:
            case = case_named(output.rpartition(".")[0])
            frames = slice(start, start + len(case.codes))
            np.testing.assert_array_equal(found[f"{case.name}.x"][frames], case.codes)
            wanted = case.graph.evaluate_codes(case.codes)[case.graph.outputs[0]]
            np.testing.assert_array_equal(found[output][frames], wanted)
            start += len(case.codes)


def test_every_case_is_on_a_sheet() -> None:
    found = [output.rpartition(".")[0] for sheet in sheets(30) for output in sheet.graph.outputs]
    assert sorted(found) == sorted(case_names())
