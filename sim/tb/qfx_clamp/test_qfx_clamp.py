"""Bench of qfx_clamp: every code comes out within the bounds, two cycles later."""

from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.plan import parts
from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

# name: input and output (width, signed), bounds, lanes
SHAPES = {
    "relu": ((8, True), (7, False), (0, 127), 3),
    "relu6": ((8, True), (6, False), (0, 48), 1),
    "signed": ((8, True), (5, True), (-16, 9), 2),
    "one_code": ((6, True), (3, True), (-2, -2), 1),
    "unsigned": ((7, False), (8, True), (5, 100), 2),
    "nothing": ((7, True), (9, True), (-256, 255), 2),
    "wide": ((40, True), (33, True), (-(2**32), 2**32 - 1), 1),
}


def clamp_case(name: str) -> cases.Case:
    """One clamp."""
    source, target, (low, high), lanes = SHAPES[name]
    p: dict[str, int | str] = {
        "InWidth": source[0], "InSigned": int(source[1]), "OutWidth": target[0], "OutSigned": int(target[1]),
        "Lanes": lanes, "Low": cases.Long(low), "High": cases.Long(high),
    }  # fmt: skip
    return cases.Case(name, p, {"in": lanes * source[0]}, lanes * target[0])


CASES = [clamp_case(name) for name in SHAPES]


async def clamp(dut: Any, stall: float) -> dict[str, list[int]]:
    """Send all codes, or the ends of wide formats, and compare."""
    inputs, expected = {}, {}
    for case in CASES:
        (width, signed), (out_width, _), (low, high), lanes = SHAPES[case.name]
        first = -(1 << width - 1) if signed else 0
        codes = (
            np.arange(first, first + (1 << width))
            if width < 10
            else first + np.arange(0, 1 << width, (1 << width) // 97)
        )
        codes = np.resize(codes, (len(codes), lanes))
        inputs[case.name] = {"in": Lanes(width, lanes, lanes).words(codes)}
        expected[case.name] = Lanes(out_width, lanes, lanes).words(np.minimum(np.maximum(codes, low), high))
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def every_code_is_limited(dut: Any) -> None:
    delays = await clamp(dut, stall=0.0)
    assert {delay for found in delays.values() for delay in found} == {parts.CLAMP_LATENCY}


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await clamp(dut, stall=0.4)


def test_clamp_limits_every_code(tmp_path):
    top, files = cases.write_top("clamp_cases", "qfx_clamp", CASES, tmp_path)
    run("clamp_cases", __file__, sources=[top], data=files, quick_build=True)


def test_planted_fault_is_seen(tmp_path):
    top, _ = cases.write_top("clamp_cases", "qfx_clamp", CASES, tmp_path)
    sources = [top, plant("qfx_clamp", "value > High;", "value > High + 1;", tmp_path)]
    with pytest.raises(BenchFailure, match="every_code_is_limited failed: relu6: word"):
        run("clamp_cases", __file__, sources=sources, seeds=[1], test_filter="every_code", quick_build=True)
