"""torch's layers in exact evaluation compute the interpreter's integers."""

import pytest

from qfx.steps.compare import first_mismatch
from tests.conformance.cases import case_named, case_names
from tests.conformance.engines import interpreter, run_torch, why_not_torch
from tests.conformance.faults import FAULTS, victim
from tests.conformance.random_graphs import random_codes, random_graphs
from tests.conformance.test_cases import CAMPAIGN, NOT_IN_TORCH


@pytest.mark.parametrize("name", [name for name in case_names() if name not in NOT_IN_TORCH])
def test_torch_computes_a_case_s_integers(name: str) -> None:
    case = case_named(name)
    found = run_torch(case.graph, case.codes)
    assert first_mismatch(case.graph, interpreter(case.graph, case.codes), found, "torch") is None


def test_torch_computes_the_integers_of_random_graphs() -> None:
    ran = 0
    for index, graph in enumerate(random_graphs(**CAMPAIGN)):
        if why_not_torch(graph) is None:
            codes = random_codes(graph, 5, index)
            mismatch = first_mismatch(graph, interpreter(graph, codes), run_torch(graph, codes), "torch")
            assert mismatch is None, f"{graph.name}: {mismatch}"
            ran += 1
    assert ran > 0.8 * CAMPAIGN["count"]


@pytest.mark.parametrize("node", FAULTS)
def test_a_planted_fault_is_named_in_torch(node: str) -> None:
    graph, codes = victim()
    wrong = run_torch(FAULTS[node](graph), codes)
    mismatch = first_mismatch(graph, interpreter(graph, codes), wrong, "torch")
    assert mismatch is not None and mismatch.node == node
