"""Bench of qfx_conv: every kind of convolution is exact, and a frame takes exactly the cycles that the loops say."""

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
SIGNED_DIGITS = True


def conv_case(name: str, **chosen: Any) -> cases.Case:
    """One convolution with random weights that hit the extremes, its widths taken from them."""
    p: dict[str, Any] = {
        "InWidth": 6, "InSigned": 0, "Height": 6, "Width": 5, "Ci": 3, "Co": 4, "Groups": 1, "KernelH": 3, "KernelW": 3,
        "StrideH": 1, "StrideW": 1, "DilationH": 1, "DilationW": 1, "PadTop": 1, "PadBottom": 1, "PadLeft": 1,
        "PadRight": 1, "CiLanes": 1, "CoLanes": 1, "TapLanes": 1, "WeightWidth": 5, "BiasWidth": 10,
        "Arithmetic": "dsp",
    }  # fmt: skip
    p |= chosen
    weight, bias = constants(name, p)
    p["AccWidth"] = (
        int(np.abs(weight).sum(axis=(0, 1, 2)).max()) * 2 ** p["InWidth"] + 2 ** p["BiasWidth"]
    ).bit_length() + 1
    field = weight_field(p)
    if p["Arithmetic"] == "khot":
        p |= {"Digits": field.digits, "ShiftWidth": field.shift_width}
    words = rtl_memory.conv_words(
        weight, groups=p["Groups"], ci_lanes=p["CiLanes"], co_lanes=p["CoLanes"], tap_lanes=p["TapLanes"], field=field
    )
    fields = p["CiLanes"] * p["CoLanes"] * p["TapLanes"]
    p |= {"WeightFile": f"{name}_weight.mem", "BiasFile": f"{name}_bias.mem" if p["BiasWidth"] > 1 else ""}
    p["Rows"] = window(p).rows
    files = {p["WeightFile"]: rtl_memory.mem_text(words, fields * field.bits)}
    if p["BiasFile"]:
        biases = rtl_memory.channel_words(bias, lanes=p["CoLanes"], field=rtl_memory.CodeField(p["BiasWidth"]))
        files[p["BiasFile"]] = rtl_memory.mem_text(biases, p["CoLanes"] * p["BiasWidth"])
    return cases.Case(
        name, p, {"in": p["CiLanes"] * p["InWidth"]}, p["CoLanes"] * p["AccWidth"], credits=40, files=files
    )


def constants(name: str, p: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of the case ``name``: the same in pytest and inside the simulator."""
    rng = np.random.default_rng(list(name.encode()))
    low, high = -(1 << p["WeightWidth"] - 1), (1 << p["WeightWidth"] - 1) - 1
    weight = rng.integers(low, high + 1, (p["KernelH"], p["KernelW"], p["Ci"] // p["Groups"], p["Co"]))
    weight.flat[0], weight.flat[-1] = low, high
    if p["Arithmetic"] == "khot":
        weight = nearest_khot(weight, p["WeightWidth"], 2, SIGNED_DIGITS)
    bias = rng.integers(-(1 << p["BiasWidth"] - 1), 1 << p["BiasWidth"] - 1, p["Co"])
    return weight, bias if p["BiasWidth"] > 1 else 0 * bias


def weight_field(p: dict[str, Any]) -> Any:
    """How a weight lies in the ROM."""
    if p["Arithmetic"] == "khot":
        return rtl_memory.DigitField(p["WeightWidth"], 2, SIGNED_DIGITS)
    return rtl_memory.CodeField(p["WeightWidth"])


def window(p: dict[str, Any]) -> Window:
    """The walk of the case's window."""
    ci_folds = -(-(p["Ci"] // p["Groups"]) // p["CiLanes"])
    co_folds = p["Groups"] * -(-(p["Co"] // p["Groups"]) // p["CoLanes"])
    steps = co_folds * (p["KernelH"] * p["KernelW"] // p["TapLanes"]) * ci_folds
    return windows.window(p, pixel_words=p["Groups"] * ci_folds, pixel_steps=steps)


NO_PADDING = {"PadTop": 0, "PadBottom": 0, "PadLeft": 0, "PadRight": 0}
ONE_BY_ONE = NO_PADDING | {"KernelH": 1, "KernelW": 1}

CASES = [
    conv_case("serial", Height=5, Width=4, Co=2),
    conv_case("lanes", CiLanes=3, CoLanes=2, InSigned=1),
    conv_case("idle_lanes", Ci=5, Co=5, CiLanes=2, CoLanes=3, TapLanes=3),
    conv_case("row_of_taps", TapLanes=3, CiLanes=3, CoLanes=2),
    conv_case("all_taps", TapLanes=9, CiLanes=2, Co=2, CoLanes=2, Arithmetic="lut"),
    conv_case("stride_two", StrideH=2, StrideW=2, Height=8, Width=8, CiLanes=3, TapLanes=3),
    conv_case("stride_odd_rest", StrideH=2, StrideW=3, Height=7, Width=9, PadBottom=0, PadRight=0, TapLanes=3,
              CiLanes=3),
    conv_case("dilated", DilationH=2, DilationW=2, PadTop=2, PadBottom=2, PadLeft=2, PadRight=2, CiLanes=3, TapLanes=3),
    conv_case("lopsided", PadTop=2, PadBottom=0, PadLeft=0, PadRight=2, CiLanes=3, CoLanes=2),
    conv_case("unpadded", **NO_PADDING, CiLanes=3, CoLanes=2, TapLanes=3),
    conv_case("one_by_one", **ONE_BY_ONE, Ci=4, CiLanes=2, CoLanes=4, BiasWidth=1),
    conv_case("one_by_one_stride", **ONE_BY_ONE, StrideH=2, StrideW=2, Ci=4, CiLanes=4, CoLanes=4),
    conv_case("wide_kernel", KernelH=1, KernelW=5, PadTop=0, PadBottom=0, PadLeft=2, PadRight=2, CiLanes=3, TapLanes=5),
    conv_case("dense", **ONE_BY_ONE, Height=1, Width=1, Ci=24, Co=10, CiLanes=4, CoLanes=3),
    conv_case("dense_at_once", **ONE_BY_ONE, Height=1, Width=1, Ci=24, Co=4, CiLanes=3, CoLanes=4),
    conv_case("flatten", **(NO_PADDING | {"KernelH": 4, "KernelW": 4}), Height=4, Width=4, Ci=6, Co=5,
              CiLanes=2, CoLanes=5),
    conv_case("grouped", Ci=4, Co=6, Groups=2, CiLanes=2, CoLanes=3),
    conv_case("grouped_serial", Ci=4, Co=6, Groups=2, TapLanes=3),
    conv_case("two_hot", WeightWidth=8, Arithmetic="khot", CiLanes=2, CoLanes=2),
    conv_case("too_tall_padding", Height=3, Width=3, PadTop=3, PadBottom=4, PadLeft=3, PadRight=4, CiLanes=3,
              CoLanes=4),
]  # fmt: skip


def images(p: dict[str, int]) -> np.ndarray:
    """Frames of random codes; the first one is at the extremes only."""
    low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
    high = low + (1 << p["InWidth"]) - 1
    rng = np.random.default_rng(random.randrange(1 << 30))
    frames = rng.integers(low, high + 1, (FRAMES, p["Height"], p["Width"], p["Ci"]))
    frames[0] = rng.choice([low, high], frames[0].shape)
    return frames


async def convolve(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases on random frames, compare every word, and return the cycles of the results."""
    inputs, expected = {}, {}
    for case in CASES:
        p = {**case.parameters, **cases.parameters(dut, case)}
        weight, bias = constants(case.name, p)
        frames = images(p)
        results = [
            reference.convolve(
                frame,
                weight,
                bias,
                stride=(p["StrideH"], p["StrideW"]),
                padding=windows.padding(p),
                dilation=(p["DilationH"], p["DilationW"]),
                groups=p["Groups"],
            )
            for frame in frames
        ]
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["CiLanes"], p["Ci"]).words(frames)}
        expected[case.name] = Lanes(p["AccWidth"], p["CoLanes"], p["Co"]).words(np.array(results))
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


def test_convolutions_are_exact_at_the_planned_rate(tmp_path):
    top, files = cases.write_top("conv_cases", "qfx_conv", CASES, tmp_path)
    run("conv_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_weight_bit_shows(tmp_path):
    top, files = cases.write_top("conv_cases", "qfx_conv", CASES, tmp_path)
    file = tmp_path / "idle_lanes_weight.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 2:0{len(first)}x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="idle_lanes"):
        run(
            "conv_cases", __file__, sources=[top], data=files, seeds=[1], test_filter="planned_cycles", quick_build=True
        )
