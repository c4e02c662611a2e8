"""Bench of qfx_agu_tap: the address of every tap inside the image, six cycles later; outside, some word of the ring."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lockstep import lockstep, pipeline
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

LATENCY = 6
NAMES = ("Height", "Width", "PixelWords", "Rows", "RowWidth", "ColWidth", "DyWidth", "DxWidth")


def address(p):
    """Return the formula of the header."""

    def function(given):
        row, col = given["row_i"] + given["dy_i"], given["col_i"] + given["dx_i"]
        slot = (given["slot_i"] + given["dy_i"]) % p["Rows"]
        inside = 0 <= row < p["Height"] and 0 <= col < p["Width"]
        exact = (slot * p["Width"] + col) * p["PixelWords"] + given["word_i"]
        return {"in_image_o": inside, "addr_o": exact if inside else range(p["Rows"] * p["Width"] * p["PixelWords"])}

    return function


def tap(p):
    """A random tap: near the image or anywhere, never a whole ring further than the window's first row."""
    rows, cols = (1 << p["RowWidth"] - 1), (1 << p["ColWidth"] - 1)
    near = random.random() < 0.7
    top, left = (min(3, rows), min(3, cols)) if near else (rows, cols)
    return {
        "row_i": random.randint(-top, min(rows - 1, p["Height"] if near else rows)),
        "col_i": random.randint(-left, min(cols - 1, p["Width"] if near else cols)),
        "slot_i": random.randrange(p["Rows"]),
        "word_i": random.randrange(p["PixelWords"]),
        "dy_i": random.randrange(min(1 << p["DyWidth"], p["Rows"])),
        "dx_i": random.randrange(1 << p["DxWidth"]),
    }


def tap_case(name, *values):
    """One tap."""
    p = dict(zip(NAMES, values, strict=True))
    ports = {
        "row_i": p["RowWidth"],
        "col_i": p["ColWidth"],
        "slot_i": (p["Rows"] - 1).bit_length(),
        "word_i": max((p["PixelWords"] - 1).bit_length(), 1),
        "dy_i": p["DyWidth"],
        "dx_i": p["DxWidth"],
        "addr_o": (p["Rows"] * p["Width"] * p["PixelWords"] - 1).bit_length(),
        "in_image_o": 1,
    }
    return cases.Case(name, p, ports=ports, reset=False)


CASES = [
    tap_case("least", 1, 1, 1, 2, 2, 2, 1, 1),
    tap_case("uneven", 5, 7, 3, 5, 5, 5, 3, 2),
    tap_case("far", 3, 6, 1, 11, 3, 4, 5, 6),
    tap_case("even", 8, 4, 2, 4, 6, 5, 2, 2),
]


@cocotb.test()
async def addresses_are_exact_in_every_cycle(dut):
    await start(dut)
    sizes = {case.name: cases.parameters(dut, case) for case in CASES}
    await lockstep(
        dut, {name: ([tap(p) for _ in range(400)], pipeline(address(p), LATENCY)) for name, p in sizes.items()}
    )


def test_taps_are_found(tmp_path):
    top, _ = cases.write_top("tap_cases", "qfx_agu_tap", CASES, tmp_path)
    run("tap_cases", __file__, sources=[top], quick_build=True)


def test_planted_fault_is_seen(tmp_path: Path):
    top, _ = cases.write_top("tap_cases", "qfx_agu_tap", CASES, tmp_path)
    sources = [top, plant("qfx_agu_tap", "int'(row_q) < int'(Height)", "int'(row_q) <= int'(Height)", tmp_path)]
    with pytest.raises(BenchFailure, match="in_image_o must be 0"):
        run("tap_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
