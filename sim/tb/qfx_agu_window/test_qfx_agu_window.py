"""Bench of qfx_agu_window: every step has the taps of its window, in the order of the loops, at the planned rate."""

import itertools
import random
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge, with_timeout

from qfx_sim import cases, ports, scoreboard, stalls, windows
from qfx_sim.faults import plant
from qfx_sim.lanes import word_of
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stream import Source

FRAMES = 5
DATA_DELAY = 2  # cycles from a step to its taps


def window_case(name: str, **chosen: Any) -> cases.Case:
    """One window."""
    p: dict[str, Any] = {
        "WordBits": 6, "Outside": 0, "Height": 5, "Width": 4, "KernelH": 3, "KernelW": 3, "StrideH": 1, "StrideW": 1,
        "DilationH": 1, "DilationW": 1, "PadTop": 1, "PadBottom": 1, "PadLeft": 1, "PadRight": 1, "Groups": 1,
        "RepeatH": 1, "RepeatW": 1, "Blocks": 0, "Folds": 1, "Words": 1, "TapLanes": 1, "Square": 0, "Credits": 12,
    }  # fmt: skip
    p |= chosen
    p["Rows"] = walk(p).rows
    signals = dict.fromkeys(("in_valid_i", "in_ready_o", "give_i", "step_o", "first_o", "last_o"), 1)
    signals |= {"dilation_valid_i": 1, "dilation_ready_o": 1, "dilation_data_i": p["DilationH"].bit_length()}
    signals |= {"in_data_i": p["WordBits"], "data_o": p["TapLanes"] * p["WordBits"]}
    return cases.Case(name, p, ports=signals)


def walk(p: dict[str, Any]) -> Any:
    """The walk in the planner's terms."""
    words, taps = p["Groups"] * p["Words"], p["KernelH"] * p["KernelW"] // p["TapLanes"]
    return windows.window(p, pixel_words=image_words(p), pixel_steps=words * p["Folds"] * taps)


def image_words(p: dict[str, Any]) -> int:
    """Words of a pixel of the image."""
    return p["Groups"] * p["Words"] * (p["RepeatH"] * p["RepeatW"] if p["Blocks"] else 1)


LEAST = dict.fromkeys(("Height", "Width", "KernelH", "KernelW", "WordBits", "Credits"), 1)
UNPADDED = dict.fromkeys(("PadTop", "PadBottom", "PadLeft", "PadRight"), 0)
ONE = dict.fromkeys(("KernelH", "KernelW"), 1) | UNPADDED
CASES = [
    window_case("least", **LEAST, **UNPADDED),
    window_case("row_of_taps", Outside=37, KernelW=2, StrideH=2, DilationW=2, PadTop=2, PadBottom=0, PadRight=3,
                Groups=2, Folds=3, Words=2, TapLanes=2),
    window_case("all_taps", WordBits=3, Outside=5, Height=7, StrideW=3, TapLanes=9),
    window_case("square", Square=1, **dict.fromkeys(("DilationH", "DilationW", *UNPADDED), 3), Groups=2),
    window_case("repeated", Height=3, KernelW=1, StrideH=2, PadTop=0, TapLanes=3, RepeatH=3, RepeatW=2, Groups=2),
    window_case("blocks", **ONE, Height=3, RepeatH=2, RepeatW=3, Blocks=1, Groups=2),
]  # fmt: skip


def steps(p: dict[str, Any], frame: np.ndarray, dilations: np.ndarray) -> list[tuple[int, int, int]]:
    """First, last and taps of each step of a frame (H, W, words), as the loops of the header say."""
    found = []
    out = walk(p).out
    lanes_h = p["KernelH"] if p["TapLanes"] == p["KernelH"] * p["KernelW"] else 1
    lanes_w = p["TapLanes"] // lanes_h
    serial = (p["KernelH"] // lanes_h, p["KernelW"] // lanes_w, p["Words"])
    for row, col, group, _, *inner in np.ndindex(*out, p["Groups"], p["Folds"], *serial):
        taps, top, left = [], row // p["RepeatH"], col // p["RepeatW"]
        for i, j in itertools.product(range(lanes_h), range(lanes_w)):
            ky, kx = inner[0] * lanes_h + i, inner[1] * lanes_w + j
            y = top * p["StrideH"] - p["PadTop"] + ky * p["DilationH"]
            x = left * p["StrideW"] - p["PadLeft"] + kx * p["DilationW"]
            if p["Square"]:
                y, x = row + (ky - 1) * dilations[row, col], col + (kx - 1) * dilations[row, col]
            part = p["Blocks"] * (row % p["RepeatH"] * p["RepeatW"] + col % p["RepeatW"]) * p["Groups"]
            inside = 0 <= y < p["Height"] and 0 <= x < p["Width"]
            taps.append(int(frame[y, x, (part + group) * p["Words"] + inner[2]]) if inside else p["Outside"])
        last = [*inner] == [extent - 1 for extent in serial]
        found.append((int(not any(inner)), int(last), word_of(taps, p["WordBits"])))
    return found


async def watch(dut: Any, case: cases.Case, count: int, credits: int, stall: float) -> tuple[list, list[int]]:
    """Return the first ``count`` steps and their cycles; give each credit back once its word has ended."""
    step, first, last, data, give = (
        getattr(dut, f"{case.name}_{name}") for name in ("step_o", "first_o", "last_o", "data_o", "give_i")
    )
    rest = stalls.at_random(stall, random.getrandbits(16))
    flags, taps, times, owed, free = [], [], [], 0, credits
    for cycle in itertools.count():
        pays = int(owed > 0 and not next(rest))
        give.value = pays
        await RisingEdge(dut.clk_i)
        owed, free = owed - pays, free + pays
        if times and cycle - DATA_DELAY in times[-3:]:
            taps.append(int(data.value))
        if len(taps) == count:
            give.value = 0
            return [(*flag, tap) for flag, tap in zip(flags, taps, strict=True)], times
        if step.value and len(times) < count:
            flags.append((int(first.value), int(last.value)))
            times.append(cycle)
            owed, free = owed + flags[-1][1], free - flags[-1][0]
            assert free >= 0, f"{case.name}: a word must not begin without a credit"
    raise AssertionError("not reached")


async def taps(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every step, and return the cycles of the steps."""
    await ports.start(dut)
    rng = np.random.default_rng(random.getrandbits(30))
    expected, watches = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        frames = rng.integers(0, 1 << p["WordBits"], (FRAMES, p["Height"], p["Width"], image_words(p)))
        dilations = rng.integers(0, p["DilationH"] + 1, (FRAMES, *walk(p).out))
        pairs = zip(frames, dilations, strict=True)
        expected[case.name] = [step for frame, dilation in pairs for step in steps(p, frame, dilation)]
        streams = {"in": frames.ravel().tolist()}
        if p["Square"]:
            streams["dilation"] = dilations.ravel().tolist()
        else:
            getattr(dut, f"{case.name}_dilation_valid_i").value = 1
        for name, words in streams.items():
            source = Source(ports.stream(dut, f"{case.name}_{name}"))
            cocotb.start_soon(source.send(words, stalls.at_random(stall, random.getrandbits(16))))
        count = len(expected[case.name])
        watches[case.name] = cocotb.start_soon(watch(dut, case, count, p["Credits"], stall))
    times = {}
    for name, task in watches.items():
        found, times[name] = await with_timeout(task, 20_000 * ports.PERIOD_NS, "ns")
        scoreboard.check(name, expected[name], found, times[name])
    return times


@cocotb.test()
async def taps_are_exact_and_frames_take_the_planned_cycles(dut: Any) -> None:
    times = await taps(dut, stall=0.0)
    for case in CASES[1:]:  # one credit is not enough for the full rate
        planned = walk(cases.parameters(dut, case)).cycles
        measured = cases.frame_intervals(times[case.name], FRAMES)
        assert set(measured) == {planned}, f"{case.name} must take {planned} cycles a frame, not {measured}"


@cocotb.test()
async def taps_are_exact_under_stalls(dut: Any) -> None:
    await taps(dut, stall=0.4)


def test_windows_have_their_taps(tmp_path):
    top, _ = cases.write_top("window_cases", "qfx_agu_window", CASES, tmp_path)
    run("window_cases", __file__, sources=[top], quick_build=True)


def test_planted_fault_is_seen(tmp_path: Path):
    top, _ = cases.write_top("window_cases", "qfx_agu_window", CASES, tmp_path)
    sources = [top, plant("qfx_agu_window", "(lane % LanesW) * DilationW", "(lane % LanesW) * StrideW", tmp_path)]
    with pytest.raises(BenchFailure, match="row_of_taps: word"):
        run("window_cases", __file__, sources=sources, seeds=(1,), test_filter="under_stalls", quick_build=True)
