"""Bench of qfx_agu_counter: the index times Step, again and again, and its last round."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lockstep import goes, lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run


def counter_case(count, step):
    """One counter."""
    ports = {"step_i": 1, "value_o": max(((count - 1) * step).bit_length(), 1), "last_o": 1}
    return cases.Case(f"c{count}_{step}", {"Count": count, "Step": step}, ports=ports)


CASES = [counter_case(1, 3), counter_case(2, 1), counter_case(7, 3), counter_case(8, 1)]


class Counter:
    """Counts the steps that have been made."""

    def __init__(self, p):
        self.count, self.step, self.steps = p["Count"], p["Step"], 0

    def __call__(self, given):
        index = self.steps % self.count
        self.steps += given["step_i"]
        return {"value_o": index * self.step, "last_o": index == self.count - 1}


@cocotb.test()
async def value_and_last_follow_the_steps(dut):
    await start(dut)
    seed = random.getrandbits(16)
    models = {case.name: Counter(cases.parameters(dut, case)) for case in CASES}
    await lockstep(dut, {name: (({"step_i": go} for go in goes(seed, 50)), model) for name, model in models.items()})
    assert all(model.steps > 2 * model.count for model in models.values())


def test_counters_count(tmp_path):
    top, _ = cases.write_top("counter_cases", "qfx_agu_counter", CASES, tmp_path)
    run("counter_cases", __file__, sources=[top], quick_build=True)


def test_planted_fault_is_seen(tmp_path: Path):
    top, _ = cases.write_top("counter_cases", "qfx_agu_counter", CASES, tmp_path)
    sources = [top, plant("qfx_agu_counter", "last_o ? '0 :", "last_o ? ValueWidth'(1) :", tmp_path)]
    with pytest.raises(BenchFailure, match="value_o must be 0 in cycle 2, not 1"):
        run("counter_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
