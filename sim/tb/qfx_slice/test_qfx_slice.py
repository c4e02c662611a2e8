"""Bench of qfx_slice: rows and columns that are kept leave in order, the others do not, whatever the stalls."""

import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx_sim import cases, structure
from qfx_sim.faults import plant
from qfx_sim.runner import BenchFailure, run

FRAMES = 5
WORD_BITS = 7
# Rows and columns of the image, words a pixel, and (first, last, step) of both.
SHAPES = {
    "crop": (5, 6, 1, (1, 3, 1), (2, 4, 1)),
    "strided": (7, 5, 2, (0, 6, 2), (1, 4, 3)),
    "whole": (3, 4, 1, (0, 2, 1), (0, 3, 1)),
    "last_pixel": (4, 3, 3, (3, 3, 1), (2, 2, 1)),
    "first_pixel": (4, 3, 1, (0, 0, 4), (0, 0, 2)),
    "one_pixel": (1, 1, 2, (0, 0, 1), (0, 0, 1)),
    "one_row": (1, 9, 1, (0, 0, 1), (2, 8, 3)),
}


def slice_case(name: str, credits: int) -> cases.Case:
    """One slice; with few credits the segment waits for its FIFO."""
    height, width, words, rows, columns = SHAPES[name]
    p = {"WordBits": WORD_BITS, "Height": height, "Width": width, "PixelWords": words}
    p |= dict(zip(("FirstRow", "LastRow", "StepH", "FirstCol", "LastCol", "StepW"), (*rows, *columns), strict=True))
    return cases.Case(f"{name}_{credits}", p, {"in": WORD_BITS}, WORD_BITS, credits=credits)


CASES = [slice_case(name, credits) for name in SHAPES for credits in (1, 8)]


async def sliced(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        frames = rng.integers(0, 1 << WORD_BITS, (FRAMES, p["Height"], p["Width"], p["PixelWords"]))
        rows, columns = (
            slice(p[f"First{a}"], p[f"Last{a}"] + 1, p[f"Step{b}"]) for a, b in (("Row", "H"), ("Col", "W"))
        )
        inputs[case.name] = {"in": frames.ravel().tolist()}
        expected[case.name] = frames[:, rows, columns].ravel().tolist()
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def slices_leave_as_their_words_come(dut: Any) -> None:
    cycles = await sliced(dut, stall=0.0)
    for case in CASES:
        if case.credits > 1:
            p, times = cases.parameters(dut, case), cycles[case.name]
            ends = np.diff(times[len(times) // FRAMES - 1 :: len(times) // FRAMES])
            assert set(ends) == {p["Height"] * p["Width"] * p["PixelWords"]}, f"{case.name} must take a word a cycle"


@cocotb.test()
async def slices_are_exact_under_stalls(dut: Any) -> None:
    await sliced(dut, stall=0.4)


def test_slices_are_exact(tmp_path: Path) -> None:
    top, files = cases.write_top("slice_cases", "qfx_slice", CASES, tmp_path)
    run("slice_cases", __file__, sources=[top], data=files, quick_build=True)


def test_no_path_crosses_the_slice() -> None:
    assert structure.combinational_paths("qfx_slice") == []


FAULTS = {  # what is planted, and how it shows first
    "step": ("col_q + ColWidth'(StepW)", "col_q + ColWidth'(1)", "strided_1_out: word"),
    "rows": ("keep = row == row_q && col == col_q", "keep = col == col_q", "crop_1_out: word"),
    "credits": ("(credit || !keep)", "(credit || 1'b1)", "ended prematurely"),  # an assertion
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, shows = FAULTS[fault]
    top, _ = cases.write_top("slice_cases", "qfx_slice", CASES, tmp_path)
    sources = [top, plant("qfx_slice", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{shows}"):
        run("slice_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
