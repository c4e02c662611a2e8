"""Bench of qfx_credit: exactly Credits words are under way at most, and every credit that comes back counts at once."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lockstep import goes, lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

CASES = [
    cases.Case(f"c{credits}", {"Credits": credits}, ports={"take_i": 1, "give_i": 1, "available_o": 1})
    for credits in (1, 2, 5, 8)
]


class Credit:
    """The formula of the header."""

    def __init__(self, p):
        self.total = self.credits = self.least = p["Credits"]

    def __call__(self, given):
        available = self.credits > 0
        self.credits += given["give_i"] - given["take_i"]
        self.least = min(self.least, self.credits)
        return {"available_o": available}


def orders(model, seed, cycles=40):
    """Take only what is there and give only what was taken, each stall pattern of the one with each of the other."""
    for take, give in zip(goes(seed, 5 * cycles), [*goes(seed + 9, cycles)] * 5, strict=True):
        yield {"take_i": int(take and model.credits > 0), "give_i": int(give and model.credits < model.total)}


@cocotb.test()
async def available_follows_takes_and_gives(dut):
    await start(dut)
    seed = random.getrandbits(16)
    models = {case.name: Credit(cases.parameters(dut, case)) for case in CASES}
    await lockstep(dut, {name: (orders(model, seed), model) for name, model in models.items()})
    assert all(model.least == 0 for model in models.values()), "all credits must be under way at times"


def test_credits_are_counted(tmp_path):
    top, _ = cases.write_top("credit_cases", "qfx_credit", CASES, tmp_path)
    run("credit_cases", __file__, sources=[top], quick_build=True)


def test_planted_fault_is_seen(tmp_path: Path):
    top, _ = cases.write_top("credit_cases", "qfx_credit", CASES, tmp_path)
    sources = [top, plant("qfx_credit", "+ CountWidth'(give_i)", "+ CountWidth'(give_i && !take_i)", tmp_path)]
    with pytest.raises(BenchFailure, match="available_o must be 1 in cycle"):
        run("credit_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
