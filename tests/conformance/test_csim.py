"""The HLS C++ of the exported project, built by g++, computes the interpreter's integers, node by node."""

import pytest

from qfx.graph.passes import remove_zero_width, run_passes
from qfx.steps.compare import first_mismatch
from tests.conformance.cases import Case
from tests.conformance.engines import difference, interpreter, run_csim
from tests.conformance.faults import FAULTS, victim
from tests.conformance.random_graphs import random_codes, random_graphs
from tests.conformance.sheets import sheets

SHEETS = sheets(80)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_csim_computes_the_integers_of_every_case(sheet: Case) -> None:
    assert difference(sheet.graph, sheet.codes, run_csim) is None


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 10))])
def test_csim_computes_the_integers_of_a_random_graph_after_all_passes(seed: int) -> None:
    (graph,) = random_graphs(seed, count=1, blocks=5)
    assert difference(run_passes(graph), random_codes(graph, 12, seed), run_csim) is None


@pytest.mark.parametrize("node", FAULTS)
def test_a_planted_fault_is_named_in_csim(node: str) -> None:
    graph, codes = victim()
    mismatch = first_mismatch(graph, interpreter(graph, codes), run_csim(FAULTS[node](graph), codes), "csim")
    assert mismatch is not None and mismatch.node == node


def test_the_planted_faults_are_the_only_ones() -> None:
    graph, codes = victim()
    assert difference(remove_zero_width(graph), codes, run_csim) is None
