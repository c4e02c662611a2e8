"""Bench of qfx_depthwise: every channel is convolved with its own kernel, exactly, at the planned rate."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.fixed.khot import nearest_khot
from qfx.plan.timing import Window
from qfx_sim import cases, reference, windows
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

FRAMES = 6


def depthwise_case(name: str, **chosen: Any) -> cases.Case:
    """One depthwise convolution with random weights, its widths taken from them."""
    p: dict[str, Any] = {
        "InWidth": 6, "InSigned": 1, "Height": 6, "Width": 5, "Channels": 5, "KernelH": 3, "KernelW": 3, "StrideH": 1,
        "StrideW": 1, "DilationH": 1, "DilationW": 1, "PadTop": 1, "PadBottom": 1, "PadLeft": 1, "PadRight": 1,
        "Lanes": 2, "TapLanes": 1, "WeightWidth": 5, "BiasWidth": 10, "Arithmetic": "dsp",
    }  # fmt: skip
    p |= chosen
    weight, bias = constants(name, p)
    field: rtl_memory.Field = rtl_memory.CodeField(p["WeightWidth"])
    if p["Arithmetic"] == "khot":
        field = rtl_memory.DigitField(p["WeightWidth"], 2, signed_digits=False)
        p |= {"Digits": field.digits, "ShiftWidth": field.shift_width}
    p["AccWidth"] = p["InWidth"] + p["WeightWidth"] + 6
    p |= {"WeightFile": f"{name}_weight.mem", "BiasFile": f"{name}_bias.mem", "Rows": window(p).rows}
    words = rtl_memory.depthwise_words(weight, lanes=p["Lanes"], tap_lanes=p["TapLanes"], field=field)
    biases = rtl_memory.channel_words(bias, lanes=p["Lanes"], field=rtl_memory.CodeField(p["BiasWidth"]))
    files = {
        p["WeightFile"]: rtl_memory.mem_text(words, p["Lanes"] * p["TapLanes"] * field.bits),
        p["BiasFile"]: rtl_memory.mem_text(biases, p["Lanes"] * p["BiasWidth"]),
    }
    return cases.Case(name, p, {"in": p["Lanes"] * p["InWidth"]}, p["Lanes"] * p["AccWidth"], credits=40, files=files)


def constants(name: str, p: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the case ``name``: the same in pytest and inside the simulator."""
    rng = np.random.default_rng(list(name.encode()))
    weight = rng.integers(
        -(1 << p["WeightWidth"] - 1), 1 << p["WeightWidth"] - 1, (p["KernelH"], p["KernelW"], p["Channels"])
    )
    if p["Arithmetic"] == "khot":
        weight = nearest_khot(weight, p["WeightWidth"], 2, False)
    return weight, rng.integers(-(1 << p["BiasWidth"] - 1), 1 << p["BiasWidth"] - 1, p["Channels"])


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's window."""
    folds = -(-p["Channels"] // p["Lanes"])
    steps = folds * (p["KernelH"] * p["KernelW"] // p["TapLanes"])
    return windows.window(p, pixel_words=folds, pixel_steps=steps)


CASES = [
    depthwise_case("serial"),
    depthwise_case("row_of_taps", TapLanes=3, Lanes=3, InSigned=0),
    depthwise_case("all_taps", TapLanes=9, Lanes=1, Channels=2),
    depthwise_case("stride_two", StrideH=2, StrideW=2, Height=8, Width=8, Lanes=5, PadTop=0, PadLeft=0),
    depthwise_case("dilated", DilationH=2, DilationW=3, PadTop=2, PadBottom=1, PadLeft=3, PadRight=3, TapLanes=3),
    depthwise_case("two_hot", WeightWidth=8, Arithmetic="khot", Lanes=4, Channels=4),
]


async def convolve(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = {**case.parameters, **cases.parameters(dut, case)}
        weight, bias = constants(case.name, p)
        low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
        frames = rng.integers(low, low + (1 << p["InWidth"]), (FRAMES, p["Height"], p["Width"], p["Channels"]))
        results = [
            reference.depthwise(
                frame,
                weight,
                bias,
                stride=(p["StrideH"], p["StrideW"]),
                padding=windows.padding(p),
                dilation=(p["DilationH"], p["DilationW"]),
            )
            for frame in frames
        ]
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(frames)}
        expected[case.name] = Lanes(p["AccWidth"], p["Lanes"], p["Channels"]).words(np.array(results))
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def results_are_exact_and_frames_take_the_planned_cycles(dut: Any) -> None:
    cycles = await convolve(dut, stall=0.0)
    for case in CASES:
        planned = window({**case.parameters, **cases.parameters(dut, case)}).cycles
        measured = cases.frame_intervals(cycles[case.name], FRAMES)
        assert set(measured) == {planned}, f"{case.name} must take {planned} cycles a frame, not {measured}"


@cocotb.test()
async def results_are_exact_under_stalls(dut: Any) -> None:
    await convolve(dut, stall=0.4)


def test_depthwise_convolutions_are_exact_at_the_planned_rate(tmp_path):
    top, files = cases.write_top("depthwise_cases", "qfx_depthwise", CASES, tmp_path)
    run("depthwise_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_weight_bit_shows(tmp_path):
    top, files = cases.write_top("depthwise_cases", "qfx_depthwise", CASES, tmp_path)
    file = tmp_path / "dilated_weight.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 2:0{len(first)}x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="dilated"):
        run("depthwise_cases", __file__, sources=[top], data=files, seeds=[1], test_filter="planned", quick_build=True)
