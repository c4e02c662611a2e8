"""Bench of qfx_concat: of each pixel the channels of a, then those of b, whatever the stalls."""

import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx_sim import cases, structure
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

PIXELS = 60
SHAPES: dict[str, dict[str, int]] = {
    "one_word_each": {"AWidth": 5, "BWidth": 5, "OutWidth": 5, "ChannelsA": 2, "ChannelsB": 2, "Lanes": 2},
    "several": {"AWidth": 4, "BWidth": 7, "OutWidth": 7, "ChannelsA": 6, "ChannelsB": 4, "Lanes": 2},
    "idle_lanes": {"AWidth": 6, "BWidth": 2, "OutWidth": 6, "BSigned": 0, "ChannelsA": 3, "ChannelsB": 5, "Lanes": 3},
    "wide_word": {"AWidth": 3, "BWidth": 4, "OutWidth": 5, "ASigned": 0, "ChannelsA": 4, "ChannelsB": 1, "Lanes": 4},
    "one_bit": {"AWidth": 1, "BWidth": 1, "OutWidth": 2, "ASigned": 0, "ChannelsA": 1, "ChannelsB": 7, "Lanes": 1},
}


def concat_case(shape: str, credits: int) -> cases.Case:
    """One pair of streams; with few credits the segment waits for its FIFO."""
    p = {"ASigned": 1, "BSigned": 1} | SHAPES[shape]
    p["WordsA"], p["WordsB"] = (-(-p.pop(f"Channels{side}") // p["Lanes"]) for side in "AB")
    widths = {"a": p["Lanes"] * p["AWidth"], "b": p["Lanes"] * p["BWidth"]}
    return cases.Case(f"{shape}_{credits}", p, widths, p["Lanes"] * p["OutWidth"], credits=credits)


CASES = [concat_case(shape, credits) for shape in SHAPES for credits in (1, 6)]


def codes(rng: np.random.Generator, width: int, signed: int, channels: int) -> np.ndarray:
    """Pixels of random codes, the smallest and the largest among them."""
    low = -(1 << width - 1) if signed else 0
    found = rng.integers(low, low + (1 << width), (PIXELS, channels))
    found[0], found[1] = low, low + (1 << width) - 1
    return found


async def joined(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p, shape = cases.parameters(dut, case), SHAPES[case.name.rpartition("_")[0]]
        a = codes(rng, p["AWidth"], p["ASigned"], shape["ChannelsA"])
        b = codes(rng, p["BWidth"], p["BSigned"], shape["ChannelsB"])
        inputs[case.name] = {
            "a": Lanes(p["AWidth"], p["Lanes"], shape["ChannelsA"]).words(a),
            "b": Lanes(p["BWidth"], p["Lanes"], shape["ChannelsB"]).words(b),
        }
        both = np.concatenate([a, b], axis=1)
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], both.shape[1]).words(both)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def pixels_are_whole_and_a_word_leaves_in_every_cycle(dut: Any) -> None:
    cycles = await joined(dut, stall=0.0)
    for case in CASES:
        if case.credits > 1:
            times = cycles[case.name]
            assert set(np.diff(times)) == {1}, f"{case.name} must give a word in every cycle"


@cocotb.test()
async def pixels_are_whole_under_stalls(dut: Any) -> None:
    await joined(dut, stall=0.4)


def test_concat_joins_channels(tmp_path: Path) -> None:
    top, files = cases.write_top("concat_cases", "qfx_concat", CASES, tmp_path)
    run("concat_cases", __file__, sources=[top], data=files, quick_build=True)


def test_no_path_crosses_the_concat() -> None:
    assert structure.combinational_paths("qfx_concat") == []


FAULTS = {  # what is planted, and the case that it breaks first
    "order": ("32'(word) >= WordsA", "32'(word) < WordsB", "one_word_each_1"),
    "sign": ("b_code = OutWidth'(signed'(b));", "b_code = OutWidth'(b);", "wide_word_1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, case = FAULTS[fault]
    top, _ = cases.write_top("concat_cases", "qfx_concat", CASES, tmp_path)
    sources = [top, plant("qfx_concat", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{case}_out: word"):
        run("concat_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
