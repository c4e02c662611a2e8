"""Bench of qfx_maxpool: the largest code of each window, padding being the smallest one, at the planned rate."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.plan.timing import Window
from qfx_sim import cases, reference, scoreboard, windows
from qfx_sim.lanes import Lanes
from qfx_sim.runner import run

FRAMES = 6
NO_PADDING = {"PadTop": 0, "PadBottom": 0, "PadLeft": 0, "PadRight": 0}


def maxpool_case(name: str, **chosen: Any) -> cases.Case:
    """One pool."""
    p: dict[str, Any] = {
        "InWidth": 5, "InSigned": 1, "Height": 6, "Width": 6, "Channels": 3, "KernelH": 3, "KernelW": 3, "StrideH": 1,
        "StrideW": 1, "PadTop": 1, "PadBottom": 1, "PadLeft": 1, "PadRight": 1, "Lanes": 2, "TapLanes": 1,
    }  # fmt: skip
    p |= chosen
    p["Rows"] = window(p).rows
    return cases.Case(name, p, {"in": p["Lanes"] * p["InWidth"]}, p["Lanes"] * p["InWidth"], credits=40)


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's window."""
    folds = -(-p["Channels"] // p["Lanes"])
    steps = folds * (p["KernelH"] * p["KernelW"] // p["TapLanes"])
    return windows.window(p, pixel_words=folds, pixel_steps=steps)


def all_cases() -> list[cases.Case]:
    """Signed and unsigned, halving and overlapping, with serial and parallel taps."""
    halving = {"KernelH": 2, "KernelW": 2, "StrideH": 2, "StrideW": 2, **NO_PADDING}
    return [
        maxpool_case("halving", **halving),
        maxpool_case("halving_at_once", **halving, TapLanes=4, InSigned=0),
        maxpool_case("overlapping", StrideH=2, StrideW=2, Lanes=3, TapLanes=3),
        maxpool_case("same_size", TapLanes=9, Lanes=1, Channels=1),
        maxpool_case("lopsided", KernelH=2, KernelW=3, PadTop=0, PadLeft=2, PadRight=0, InSigned=0, Height=5),
        maxpool_case("global", KernelH=6, KernelW=6, StrideH=6, StrideW=6, **NO_PADDING),
        maxpool_case("one_bit", InWidth=1, TapLanes=3),
    ]


CASES = all_cases()


async def pool(dut: Any, stall: float, fault: int = 0) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every word, and return the cycles of the results.

    ``fault`` is laid over the first word that goes in, so that the comparison must fail.
    """
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
        frames = rng.integers(low, low + (1 << p["InWidth"]), (FRAMES, p["Height"], p["Width"], p["Channels"]))
        frames[0] = low  # padding must not win even against the smallest codes
        results = [
            reference.pool(
                frame,
                np.max,
                kernel=(p["KernelH"], p["KernelW"]),
                stride=(p["StrideH"], p["StrideW"]),
                padding=windows.padding(p),
                fill=low,
            )
            for frame in frames
        ]
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(frames)}
        expected[case.name] = Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(np.array(results))
        inputs[case.name]["in"][0] ^= fault
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


@cocotb.test()
async def one_wrong_bit_shows(dut: Any) -> None:
    with pytest.raises(scoreboard.Mismatch, match="word 0 must be"):
        await pool(dut, stall=0.0, fault=1)


def test_max_pools_are_exact_at_the_planned_rate(tmp_path):
    top, files = cases.write_top("maxpool_cases", "qfx_maxpool", CASES, tmp_path)
    run("maxpool_cases", __file__, sources=[top], data=files, quick_build=True)
