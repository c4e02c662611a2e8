"""Bench of qfx_add: sums are exact on the finer grid, whatever the signs, widths and shifts."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.plan import parts
from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.pairs import random_pairs
from qfx_sim.runner import BenchFailure, run

# name: a and b (width, signed), left shifts of a and b, lanes
SHAPES = {
    "same": ((5, True), (5, True), (0, 0), 2),
    "unsigned": ((4, False), (5, False), (0, 0), 3),
    "mixed": ((4, False), (5, True), (3, 0), 1),
    "finer_a": ((6, True), (4, False), (0, 4), 2),
    "wide": ((40, True), (31, True), (0, 12), 1),
}


def out_width(name: str) -> int:
    """Bits that hold every sum, in two's complement."""
    sides = zip(SHAPES[name][:2], SHAPES[name][2], strict=True)
    return max(width + shift + (not signed) for (width, signed), shift in sides) + 1


def add_case(name: str) -> cases.Case:
    """One adder."""
    a, b, (shift_a, shift_b), lanes = SHAPES[name]
    p: dict[str, int | str] = {
        "AWidth": a[0], "ASigned": int(a[1]), "BWidth": b[0], "BSigned": int(b[1]), "ShiftA": shift_a,
        "ShiftB": shift_b, "OutWidth": out_width(name), "Lanes": lanes,
    }  # fmt: skip
    return cases.Case(name, p, {"in": lanes * (a[0] + b[0])}, lanes * out_width(name))


CASES = [add_case(name) for name in SHAPES]


async def add(dut: Any, stall: float) -> dict[str, list[int]]:
    """Send pairs as qfx_join does, {b, a}, and compare the sums."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        a, b, words = random_pairs(p, rng)
        inputs[case.name] = {"in": words}
        shift_a, shift_b = SHAPES[case.name][2]
        sums = (a << shift_a) + (b << shift_b)
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], p["Lanes"]).words(sums)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def sums_are_exact(dut: Any) -> None:
    delays = await add(dut, stall=0.0)
    assert {delay for found in delays.values() for delay in found} == {parts.ADD_LATENCY}


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await add(dut, stall=0.4)


def test_add_is_exact(tmp_path):
    top, files = cases.write_top("add_cases", "qfx_add", CASES, tmp_path)
    run("add_cases", __file__, sources=[top], data=files, quick_build=True)


def test_planted_fault_is_seen(tmp_path):
    top, _ = cases.write_top("add_cases", "qfx_add", CASES, tmp_path)
    sources = [top, plant("qfx_add", "AExtend'(a) << ShiftA", "AExtend'(signed'(a)) << ShiftA", tmp_path)]
    with pytest.raises(BenchFailure, match="sums_are_exact failed: unsigned: word"):
        run("add_cases", __file__, sources=sources, seeds=[1], test_filter="sums_are_exact", quick_build=True)
