"""Bench of qfx_deform: each pixel's own dilation, never a stale row, nine cycles a pixel and fold."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.plan.timing import Window
from qfx_sim import cases, reference, windows
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

FRAMES = 6


def deform_case(name: str, **chosen: Any) -> cases.Case:
    """One deformable part with random weights."""
    p: dict[str, Any] = {
        "InWidth": 6, "InSigned": 1, "Height": 6, "Width": 5, "Channels": 3, "Lanes": 2, "MaxDilation": 3,
        "WeightWidth": 5, "BiasWidth": 10, "AccWidth": 16, "Arithmetic": "dsp",
    }  # fmt: skip
    p |= chosen
    weight, bias = constants(name, p)
    p |= {"WeightFile": f"{name}_weight.mem", "BiasFile": f"{name}_bias.mem", "Rows": window(p).rows}
    field = rtl_memory.CodeField(p["WeightWidth"])
    words = rtl_memory.depthwise_words(weight, lanes=p["Lanes"], tap_lanes=1, field=field)
    biases = rtl_memory.channel_words(bias, lanes=p["Lanes"], field=rtl_memory.CodeField(p["BiasWidth"]))
    files = {
        p["WeightFile"]: rtl_memory.mem_text(words, p["Lanes"] * field.bits),
        p["BiasFile"]: rtl_memory.mem_text(biases, p["Lanes"] * p["BiasWidth"]),
    }
    inputs = {"in": p["Lanes"] * p["InWidth"], "offset": p["MaxDilation"].bit_length()}
    return cases.Case(name, p, inputs, p["Lanes"] * p["AccWidth"], credits=40, files=files)


def constants(name: str, p: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the case ``name``: the same in pytest and inside the simulator."""
    rng = np.random.default_rng(list(name.encode()))
    weight = rng.integers(-(1 << p["WeightWidth"] - 1), 1 << p["WeightWidth"] - 1, (3, 3, p["Channels"]))
    return weight, rng.integers(-(1 << p["BiasWidth"] - 1), 1 << p["BiasWidth"] - 1, p["Channels"])


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's largest window."""
    folds, reach = -(-p["Channels"] // p["Lanes"]), p["MaxDilation"]
    largest = {"KernelH": 3, "KernelW": 3, "StrideH": 1, "StrideW": 1, "DilationH": reach, "DilationW": reach}
    sides = dict.fromkeys(("PadTop", "PadBottom", "PadLeft", "PadRight"), reach)
    return windows.window({**p, **largest, **sides}, pixel_words=folds, pixel_steps=9 * folds)


CASES = [
    deform_case("usual"),
    deform_case("seven", MaxDilation=7, Height=18, Width=4, Channels=2, Lanes=2),
    deform_case("larger_than_the_image", MaxDilation=5, Height=4, Width=4, Arithmetic="lut"),
    deform_case("one", MaxDilation=1, Channels=1, Lanes=1, InSigned=0),
]


async def sample(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases; the offsets of the first frames are all largest, all 0, alternately both, then random."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        weight, bias = constants(case.name, p)
        low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
        frames = rng.integers(low, low + (1 << p["InWidth"]), (FRAMES, p["Height"], p["Width"], p["Channels"]))
        offsets = rng.integers(0, p["MaxDilation"] + 1, frames.shape[:3])
        offsets[0], offsets[1] = p["MaxDilation"], 0
        offsets[2] = np.indices(offsets[2].shape).sum(axis=0) % 2 * p["MaxDilation"]
        results = [reference.deform(frame, offset, weight, bias) for frame, offset in zip(frames, offsets, strict=True)]
        pixels = Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(frames)
        inputs[case.name] = {"in": pixels, "offset": offsets.ravel().tolist()}
        expected[case.name] = Lanes(p["AccWidth"], p["Lanes"], p["Channels"]).words(np.array(results))
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def results_are_exact_and_frames_take_the_planned_cycles(dut: Any) -> None:
    cycles = await sample(dut, stall=0.0)
    for case in CASES:
        walk = window(cases.parameters(dut, case))
        assert cases.parameters(dut, case)["Rows"] == walk.reach[0] + 2, "the ring must hold 2 * MaxDilation + 2 rows"
        measured = cases.frame_intervals(cycles[case.name], FRAMES)
        assert set(measured) == {walk.cycles}, f"{case.name} must take {walk.cycles} cycles, not {measured}"


@cocotb.test()
async def results_are_exact_under_stalls(dut: Any) -> None:
    await sample(dut, stall=0.4)


def test_the_deformable_sampler_is_exact_at_the_planned_rate(tmp_path):
    top, files = cases.write_top("deform_cases", "qfx_deform", CASES, tmp_path)
    run("deform_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_weight_bit_shows(tmp_path):
    top, files = cases.write_top("deform_cases", "qfx_deform", CASES, tmp_path)
    file = tmp_path / "seven_weight.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 2:0{len(first)}x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="seven"):
        run("deform_cases", __file__, sources=[top], data=files, seeds=[1], test_filter="planned", quick_build=True)
