"""Bench of qfx_pool: the largest code or the exact sum of each window, whatever the padding, at the planned rate."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.plan.timing import Window
from qfx_sim import cases, reference, windows
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

FRAMES = 6
NO_PADDING = {"PadTop": 0, "PadBottom": 0, "PadLeft": 0, "PadRight": 0}
HALVING = {"KernelH": 2, "KernelW": 2, "StrideH": 2, "StrideW": 2, **NO_PADDING}
GLOBAL = {"KernelH": 6, "KernelW": 6, "StrideH": 6, "StrideW": 6, **NO_PADDING}

SHAPES: dict[str, dict[str, int]] = {
    "halving": HALVING,
    "halving_at_once": {**HALVING, "TapLanes": 4, "InSigned": 0},
    "overlapping": {"StrideH": 2, "StrideW": 2, "Lanes": 3, "TapLanes": 3},
    "same_size": {"TapLanes": 9, "Lanes": 1, "Channels": 1},
    "lopsided": {"KernelH": 2, "KernelW": 3, "PadTop": 0, "PadLeft": 2, "PadRight": 0, "InSigned": 0, "Height": 5},
    "global": GLOBAL,
    "one_bit": {"InWidth": 1, "TapLanes": 3},
}


def pool_case(reduction: str, shape: str) -> cases.Case:
    """One pool."""
    p: dict[str, Any] = {
        "InWidth": 5, "InSigned": 1, "Height": 6, "Width": 6, "Channels": 3, "KernelH": 3, "KernelW": 3, "StrideH": 1,
        "StrideW": 1, "PadTop": 1, "PadBottom": 1, "PadLeft": 1, "PadRight": 1, "Lanes": 2, "TapLanes": 1,
    }  # fmt: skip
    p |= SHAPES[shape] | {"Reduction": reduction}
    p["OutWidth"] = p["InWidth"] + ((p["KernelH"] * p["KernelW"]).bit_length() if reduction == "sum" else 0)
    p["Rows"] = window(p).rows
    in_bits, out_bits = p["Lanes"] * p["InWidth"], p["Lanes"] * p["OutWidth"]
    return cases.Case(f"{reduction}_{shape}", p, {"in": in_bits}, out_bits, credits=40)


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's window."""
    folds = -(-p["Channels"] // p["Lanes"])
    steps = folds * (p["KernelH"] * p["KernelW"] // p["TapLanes"])
    return windows.window(p, pixel_words=folds, pixel_steps=steps)


CASES = [pool_case(reduction, shape) for reduction in ("max", "sum") for shape in SHAPES]


async def pool(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p, maximum = cases.parameters(dut, case), case.parameters["Reduction"] == "max"
        low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
        frames = rng.integers(low, low + (1 << p["InWidth"]), (FRAMES, p["Height"], p["Width"], p["Channels"]))
        frames[0] = low  # padding must not win even against the smallest codes
        results = [
            reference.pool(
                frame,
                np.max if maximum else np.sum,
                kernel=(p["KernelH"], p["KernelW"]),
                stride=(p["StrideH"], p["StrideW"]),
                padding=windows.padding(p),
                fill=low if maximum else 0,
            )
            for frame in frames
        ]
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(frames)}
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], p["Channels"]).words(np.array(results))
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def results_are_exact_and_frames_take_the_planned_cycles(dut: Any) -> None:
    cycles = await pool(dut, stall=0.0)
    for case in CASES:
        planned = window(cases.parameters(dut, case)).cycles
        measured = cases.frame_intervals(cycles[case.name], FRAMES)
        assert set(measured) == {planned}, f"{case.name} must take {planned} cycles a frame, not {measured}"


@cocotb.test()
async def results_are_exact_under_stalls(dut: Any) -> None:
    await pool(dut, stall=0.4)


def test_pools_are_exact_at_the_planned_rate(tmp_path):
    top, files = cases.write_top("pool_cases", "qfx_pool", CASES, tmp_path)
    run("pool_cases", __file__, sources=[top], data=files, quick_build=True)


FAULTS = {  # what is planted, and the case that it breaks first
    "padding_wins": ("InWidth'(Maximum && InSigned)", "InWidth'(1'b0)", "max_overlapping"),
    "sum_starts_at_one": ("? '0 : result_q", "? OutWidth'(1) : result_q", "sum_halving"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path):
    old, new, case = FAULTS[fault]
    top, _ = cases.write_top("pool_cases", "qfx_pool", CASES, tmp_path)
    sources = [top, plant("qfx_pool", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{case}_out: word"):
        run("pool_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
