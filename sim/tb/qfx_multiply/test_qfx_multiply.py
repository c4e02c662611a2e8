"""Bench of qfx_multiply: products are exact, whatever the signs, widths and multiplier."""

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

# name: a and b (width, signed), arithmetic, bits of a product, lanes
SHAPES = {
    "same": ((5, True), (5, True), "dsp", 10, 2),
    "unsigned": ((4, False), (5, False), "dsp", 9, 3),
    "unsigned_in_logic": ((4, False), (5, False), "lut", 9, 3),
    "narrow_b": ((6, True), (3, False), "lut", 9, 2),
    "narrow_a": ((2, False), (7, True), "lut", 9, 2),
    "one_bit": ((1, True), (1, True), "lut", 1, 4),
    "wider_result": ((3, True), (3, False), "lut", 8, 1),
    "wide": ((27, True), (18, True), "dsp", 45, 1),
}


def multiply_case(name: str) -> cases.Case:
    """One multiplier a lane."""
    a, b, arithmetic, out, lanes = SHAPES[name]
    p: dict[str, int | str] = {
        "AWidth": a[0], "ASigned": int(a[1]), "BWidth": b[0], "BSigned": int(b[1]), "OutWidth": out,
        "Arithmetic": arithmetic, "Lanes": lanes,
    }  # fmt: skip
    return cases.Case(name, p, {"in": lanes * (a[0] + b[0])}, lanes * out)


CASES = [multiply_case(name) for name in SHAPES]


async def multiply(dut: Any, stall: float) -> dict[str, list[int]]:
    """Send pairs as qfx_join does, {b, a}, and compare the products."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        a, b, words = random_pairs(p, rng)
        inputs[case.name] = {"in": words}
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], p["Lanes"]).words(a * b)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def products_are_exact(dut: Any) -> None:
    delays = await multiply(dut, stall=0.0)
    assert {delay for found in delays.values() for delay in found} == {parts.MULTIPLY_LATENCY}


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await multiply(dut, stall=0.4)


def test_multiply_is_exact(tmp_path):
    top, files = cases.write_top("multiply_cases", "qfx_multiply", CASES, tmp_path)
    run("multiply_cases", __file__, sources=[top], data=files, quick_build=True)


FAULTS = {
    "lanes_of_a": ("in_data_i[lane*AWidth", "in_data_i[(Lanes-1-lane)*AWidth", "same"),
    "sign_of_a_product": ("Extend'(product)", "Extend'(unsigned'(product))", "wider_result"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path):
    old, new, case = FAULTS[fault]
    top, _ = cases.write_top("multiply_cases", "qfx_multiply", CASES, tmp_path)
    sources = [top, plant("qfx_multiply", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"products_are_exact failed: {case}: word"):
        run("multiply_cases", __file__, sources=sources, seeds=[1], test_filter="products_are_exact", quick_build=True)
