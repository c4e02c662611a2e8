"""Bench of qfx_tree: the exact sum, modulo the width, or the largest of any number of terms, a result every cycle."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lanes import codes_of, word_of
from qfx_sim.lockstep import lockstep, pipeline
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

REDUCTIONS = {"sum": sum, "max": max}


def tree_case(reduction, terms, width, out_width):
    """One tree."""
    p = {"Reduction": reduction, "Terms": terms, "InWidth": width, "OutWidth": out_width}
    ports = {"terms_i": terms * width, "out_o": out_width}
    return cases.Case(f"{reduction}_{terms}x{width}_{out_width}", p, ports=ports, reset=False)


CASES = [
    tree_case("sum", 1, 1, 3),
    tree_case("sum", 5, 4, 5),  # modulo 2**5
    tree_case("sum", 2, 6, 3),  # narrower than a term
    tree_case("sum", 8, 3, 6),
    tree_case("max", 1, 1, 1),
    tree_case("max", 6, 4, 5),
    tree_case("max", 9, 1, 1),
]


def random_terms(width, count):
    """Random terms, half of them at the ends of their range."""
    low, high = -(1 << width - 1), (1 << width - 1) - 1
    return [random.choice([low, high, random.randint(low, high), random.randint(low, high)]) for _ in range(count)]


def run_of(case, p):
    """Inputs and model of a case."""
    terms, width = p["Terms"], p["InWidth"]
    words = [{"terms_i": word_of(random_terms(width, terms), width)} for _ in range(300)]
    reduce = REDUCTIONS[case.parameters["Reduction"]]

    def result(given):
        return {"out_o": reduce(codes_of(given["terms_i"], width, terms, True))}

    return words, pipeline(result, latency=(terms - 1).bit_length())


@cocotb.test()
async def results_are_exact_in_every_cycle(dut):
    await start(dut)
    await lockstep(dut, {case.name: run_of(case, cases.parameters(dut, case)) for case in CASES})


def test_trees_reduce(tmp_path):
    top, _ = cases.write_top("tree_cases", "qfx_tree", CASES, tmp_path)
    run("tree_cases", __file__, sources=[top], quick_build=True)


def test_planted_fault_is_seen(tmp_path: Path):
    old = "signed'(node[2*i]) > signed'(node[2*i+1])"
    top, _ = cases.write_top("tree_cases", "qfx_tree", CASES, tmp_path)
    sources = [top, plant("qfx_tree", old, "node[2*i] > node[2*i+1]", tmp_path)]
    with pytest.raises(BenchFailure, match="max_6x4_5_out_o must be"):
        run("tree_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
