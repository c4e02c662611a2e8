"""Bench of qfx_upsample: every pixel, or every part of it, in its places of the block, at the planned rate."""

import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.plan.timing import Window
from qfx_sim import cases, windows
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

FRAMES = 6
ONE_PIXEL = dict.fromkeys(("KernelH", "KernelW", "StrideH", "StrideW"), 1)
NO_PADDING = dict.fromkeys(("PadTop", "PadBottom", "PadLeft", "PadRight"), 0)
SHAPES: dict[str, dict[str, int]] = {
    "doubled": {"Channels": 5, "Lanes": 2},
    "rows": {"RepeatH": 3, "RepeatW": 1, "InWidth": 1},
    "columns": {"RepeatH": 1, "RepeatW": 4, "Height": 2, "Width": 3},
    "as_it_is": {"RepeatH": 1, "RepeatW": 1, "Channels": 3, "Lanes": 3},
    "blocks": {"Blocks": 1, "Channels": 4, "Lanes": 2, "RepeatH": 2, "RepeatW": 3},
    "blocks_of_rows": {"Blocks": 1, "RepeatH": 3, "RepeatW": 1, "InWidth": 2},
    "blocks_in_one_word": {"Blocks": 1, "Channels": 3, "Lanes": 3, "Height": 2, "RepeatH": 1},
    "one_pixel": {"Height": 1, "Width": 1, "RepeatH": 2, "RepeatW": 3, "Channels": 2},
}


def upsample_case(name: str) -> cases.Case:
    """One factor."""
    p = {"InWidth": 4, "Height": 4, "Width": 5, "Channels": 1, "RepeatH": 2, "RepeatW": 2, "Blocks": 0, "Lanes": 1}
    p |= SHAPES[name]
    p["Rows"] = window(p).rows
    bits = p["Lanes"] * p["InWidth"]
    return cases.Case(name, p, {"in": bits}, bits, credits=40)


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's windows of one pixel."""
    folds = -(-p["Channels"] // p["Lanes"])
    parts = p["RepeatH"] * p["RepeatW"] if p["Blocks"] else 1
    return windows.window(p | ONE_PIXEL | NO_PADDING, pixel_words=folds * parts, pixel_steps=folds)


def enlarged(p: dict[str, Any], frames: np.ndarray) -> np.ndarray:
    """The image whose pixels are blocks."""
    if not p["Blocks"]:
        return np.kron(frames, np.ones((1, p["RepeatH"], p["RepeatW"], 1), dtype=np.int64))
    count, height, width, _ = frames.shape
    rows, columns = p["RepeatH"], p["RepeatW"]
    blocks = frames.reshape(count, height, width, rows, columns, p["Channels"]).swapaxes(2, 3)
    return blocks.reshape(count, height * rows, width * columns, p["Channels"])


CASES = [upsample_case(name) for name in SHAPES]


async def upsample(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        channels = p["Channels"] * (p["RepeatH"] * p["RepeatW"] if p["Blocks"] else 1)
        frames = rng.integers(0, 1 << p["InWidth"], (FRAMES, p["Height"], p["Width"], channels))
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], channels).words(frames)}
        expected[case.name] = Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(enlarged(p, frames))
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def pixels_are_repeated_and_frames_take_the_planned_cycles(dut: Any) -> None:
    cycles = await upsample(dut, stall=0.0)
    for case in CASES:
        planned = window(cases.parameters(dut, case)).cycles
        measured = cases.frame_intervals(cycles[case.name], FRAMES)
        assert set(measured) == {planned}, f"{case.name} must take {planned} cycles a frame, not {measured}"


@cocotb.test()
async def pixels_are_repeated_under_stalls(dut: Any) -> None:
    await upsample(dut, stall=0.4)


def test_upsampling_is_exact_at_the_planned_rate(tmp_path: Path) -> None:
    top, files = cases.write_top("upsample_cases", "qfx_upsample", CASES, tmp_path)
    run("upsample_cases", __file__, sources=[top], data=files, quick_build=True)


FAULTS = {  # what is planted, and the case that it breaks first
    "data_too_late": ("out_data_o <= data;", "out_data_o <= step_q[2] ? data : '0;", "doubled"),
    "factors_swapped": (".RepeatH(RepeatH), .RepeatW(RepeatW)", ".RepeatH(RepeatW), .RepeatW(RepeatH)", "rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, case = FAULTS[fault]
    top, _ = cases.write_top("upsample_cases", "qfx_upsample", CASES, tmp_path)
    sources = [top, plant("qfx_upsample", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{case}_out: word"):
        run("upsample_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
