"""Bench of qfx_requant: every rounding and overflow mode, exhaustively at small widths, and per channel."""

import itertools
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.fixed import Fixed, Overflow, Rounding, requantize
from qfx.plan import parts
from qfx_sim import cases
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

# Shapes of a conversion: input and output (width, signed), shift. All codes of up to 9 bits, extremes and ties beyond.
SHAPES = [
    ((7, True), (4, True), 3),
    ((6, False), (4, True), 1),
    ((7, True), (4, False), 2),
    ((5, True), (1, True), 2),
    ((6, True), (7, True), -2),
    ((5, False), (9, False), -3),
    ((6, True), (8, True), 6),
    ((6, True), (3, True), 9),
    ((7, True), (5, False), 0),
]
CHANNEL_SHIFTS = {
    "right": [3, 0, 5, 1, 2],
    "both": [-2, 4, 0, -1, 3],
    "left": [-4, -1, -2, -4, -3],
    "wide": [20, 2, 0, 7, 31],
}


def requant_case(
    name: str,
    source: tuple[int, bool],
    target: tuple[int, bool],
    shifts: list[int],
    lanes: int,
    rounding: str,
    overflow: str,
) -> cases.Case:
    """One conversion with one shift, or with one a channel."""
    per_channel = len(shifts) > 1
    p: dict[str, int | str] = {
        "InWidth": source[0], "InSigned": int(source[1]), "OutWidth": target[0], "OutSigned": int(target[1]),
        "Lanes": lanes, "Channels": len(shifts), "Rounding": rounding, "Overflow": overflow,
        "PerChannel": int(per_channel), "MinShift": min(shifts), "MaxShift": max(shifts),
    }  # fmt: skip
    files = {}
    if per_channel:
        p["ShiftFile"] = f"{name}.mem"
        bits = lanes * rtl_memory.shift_field_width(shifts)
        files = {f"{name}.mem": rtl_memory.mem_text(rtl_memory.shift_words(shifts, lanes=lanes), bits)}
    return cases.Case(name, p, {"in": lanes * source[0]}, lanes * target[0], files=files)


def uniform_cases() -> list[cases.Case]:
    """Every mode on every third shape at least, every rounding and every overflow on each."""
    chosen = []
    for shape, (source, target, shift) in enumerate(SHAPES):
        for index, (rounding, overflow) in enumerate(itertools.product(Rounding, Overflow)):
            if shape < 2 or index % 4 == (index // 4 + shape) % 4:
                name = f"s{shape}_{rounding}_{overflow}".lower()
                chosen.append(requant_case(name, source, target, [shift], 1 + index % 2, rounding, overflow))
    return chosen


def channel_cases() -> list[cases.Case]:
    """A shift per channel, lanes that divide the channels and lanes that do not."""
    shapes = {
        "right": ((9, True), (5, True)),
        "both": ((7, True), (6, False)),
        "left": ((5, True), (9, True)),
        "wide": ((34, True), (6, True)),
    }
    modes = itertools.cycle(
        itertools.product(
            ["RND_CONV", "TRN_ZERO", "RND", "RND_INF", "RND_MIN_INF"], ["SAT", "WRAP", "SAT_SYM", "SAT_ZERO"]
        )
    )
    return [
        requant_case(f"c_{name}_{lanes}", *shapes[name], CHANNEL_SHIFTS[name], lanes, *next(modes))
        for name in shapes
        for lanes in (1, 2, 5)
    ]


CASES = [*uniform_cases(), *channel_cases()]


def codes_of(p: dict[str, Any]) -> np.ndarray:
    """All input codes, or the ends, ties and a random choice of a wide format; each for every channel."""
    source = Fixed(p["InWidth"], 0, bool(p["InSigned"]))
    if p["InWidth"] <= 9:
        codes = np.arange(source.min_code, source.max_code + 1)
    else:
        rng = np.random.default_rng(7)
        ties = [sign * (n * 2 + 1) << bit for sign in (1, -1) for n in range(20) for bit in range(p["InWidth"] - 8)]
        codes = np.array(
            [source.min_code, source.max_code, *ties, *rng.integers(source.min_code, source.max_code, 100)]
        )
    return np.repeat(codes[:, None], p["Channels"], axis=1)


async def convert(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases side by side and compare every word with qfx.fixed, which is checked against ap_fixed."""
    inputs, expected = {}, {}
    for case in CASES:
        p = {**case.parameters, **cases.parameters(dut, case)}
        shifts = CHANNEL_SHIFTS[case.name.split("_")[1]] if p["PerChannel"] else [p["MinShift"]]
        codes = codes_of(p)
        result = requantize(
            codes,
            Fixed(p["InWidth"], tuple(shifts), bool(p["InSigned"])),
            Fixed(p["OutWidth"], 0, bool(p["OutSigned"])),
            Rounding(p["Rounding"]),
            Overflow(p["Overflow"]),
        )
        inputs[case.name] = {"in": Lanes(p["InWidth"], p["Lanes"], p["Channels"]).words(codes)}
        expected[case.name] = Lanes(p["OutWidth"], p["Lanes"], p["Channels"]).words(result)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def every_code_converts_as_the_fixed_package_says(dut: Any) -> None:
    delays = await convert(dut, stall=0.0)
    for case in CASES:
        latency = parts.REQUANT_LATENCY[bool(case.parameters["PerChannel"])]
        assert set(delays[case.name]) == {latency}, (
            f"{case.name} must take {latency} cycles, not {set(delays[case.name])}"
        )


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await convert(dut, stall=0.4)


def test_requantize_is_exact_in_every_mode(tmp_path):
    top, files = cases.write_top("requant_cases", "qfx_requant", CASES, tmp_path)
    run("requant_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_shift_shows(tmp_path):
    top, files = cases.write_top("requant_cases", "qfx_requant", CASES, tmp_path)
    file = tmp_path / "c_both_2.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 1:x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="c_both_2"):
        run("requant_cases", __file__, sources=[top], data=files, seeds=[1], test_filter="every_code", quick_build=True)
