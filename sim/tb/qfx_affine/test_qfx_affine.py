"""Bench of qfx_affine: a product and a sum per channel, exact, with each kind of multiplier."""

import random
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.fixed.khot import nearest_khot
from qfx.plan import parts
from qfx_sim import cases
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

# name: input (width, signed), scale and shift width (0: no shift), lanes, channels, arithmetic
SHAPES = {
    "dsp": ((8, True), 6, 10, 2, 5, "dsp"),
    "lut": ((6, False), 4, 8, 3, 3, "lut"),
    "khot": ((12, True), 8, 14, 4, 6, "khot"),
    "no_shift": ((5, True), 5, 0, 1, 3, "dsp"),
    "one_channel": ((9, True), 7, 20, 1, 1, "lut"),
}


def constants(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scales and shifts of a case: the same in pytest and inside the simulator."""
    _, scale_width, shift_width, _, channels, arithmetic = SHAPES[name]
    rng = np.random.default_rng(list(name.encode()))
    scale = rng.integers(-(1 << scale_width - 1), 1 << scale_width - 1, channels)
    if arithmetic == "khot":
        scale = nearest_khot(scale, scale_width, 2, True)
    shift = rng.integers(-(1 << shift_width - 1), 1 << shift_width - 1, channels) if shift_width else 0 * scale
    return scale, shift


def affine_case(name: str) -> cases.Case:
    """One affine part with its constants."""
    (width, signed), scale_width, shift_width, lanes, channels, arithmetic = SHAPES[name]
    scale, shift = constants(name)
    field: rtl_memory.Field = rtl_memory.CodeField(scale_width)
    p: dict[str, int | str] = {
        "InWidth": width, "InSigned": int(signed), "ScaleWidth": scale_width, "OffsetWidth": max(shift_width, 1),
        "OutWidth": max(width + scale_width, shift_width) + 2, "Lanes": lanes, "Channels": channels,
        "Arithmetic": arithmetic, "ScaleFile": f"{name}_scale.mem",
    }  # fmt: skip
    if arithmetic == "khot":
        field = rtl_memory.DigitField(scale_width, 2, True)
        p |= {"Digits": field.digits, "ShiftWidth": field.shift_width}
    words = rtl_memory.channel_words(scale, lanes=lanes, field=field)
    files = {f"{name}_scale.mem": rtl_memory.mem_text(words, lanes * field.bits)}
    if shift_width:
        p["OffsetFile"] = f"{name}_shift.mem"
        words = rtl_memory.channel_words(shift, lanes=lanes, field=rtl_memory.CodeField(shift_width))
        files[f"{name}_shift.mem"] = rtl_memory.mem_text(words, lanes * shift_width)
    return cases.Case(name, p, {"in": lanes * width}, lanes * int(p["OutWidth"]), files=files)


CASES = [affine_case(name) for name in SHAPES]


async def scale(dut: Any, stall: float) -> dict[str, list[int]]:
    """Send random pixels, the extremes first, and compare."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        p = cases.parameters(dut, case)
        factor, shift = constants(case.name)
        low = -(1 << p["InWidth"] - 1) if p["InSigned"] else 0
        codes = rng.integers(low, low + (1 << p["InWidth"]), (100, p["Channels"]))
        codes[0], codes[1] = low, low + (1 << p["InWidth"]) - 1
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(codes)}
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], p["Channels"]).words(codes * factor + shift)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def results_are_exact(dut: Any) -> None:
    delays = await scale(dut, stall=0.0)
    assert {delay for found in delays.values() for delay in found} == {parts.AFFINE_LATENCY}


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await scale(dut, stall=0.4)


def test_affine_is_exact(tmp_path):
    top, files = cases.write_top("affine_cases", "qfx_affine", CASES, tmp_path)
    run("affine_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_digit_shows(tmp_path):
    top, files = cases.write_top("affine_cases", "qfx_affine", CASES, tmp_path)
    file = tmp_path / "khot_scale.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 1:0{len(first)}x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="khot"):
        run(
            "affine_cases",
            __file__,
            sources=[top],
            data=files,
            seeds=[1],
            test_filter="results_are_exact",
            quick_build=True,
        )
