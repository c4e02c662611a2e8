"""Bench of qfx_lookup: every code of the input comes out as its entry, two cycles later, and idle lanes as 0."""

from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.plan import parts
from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

# name: input (width, signed), bits of an entry, lanes, channels
SHAPES = {
    "signed": ((8, True), 6, 2, 4),
    "unsigned": ((7, False), 9, 3, 3),
    "idle_lanes": ((5, True), 8, 3, 7),
    "one_group_idle": ((4, False), 5, 4, 3),
    "one_bit": ((1, False), 3, 1, 1),
    "one_signed_bit": ((1, True), 1, 2, 2),
    "widest": ((12, True), 12, 1, 2),
}


def entries(name: str) -> np.ndarray:
    """The table of a case, lowest code first: the same in pytest and inside the simulator."""
    (width, _), out_width, _, _ = SHAPES[name]
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(-(1 << out_width - 1), 1 << out_width - 1, 1 << width)


def lookup_case(name: str) -> cases.Case:
    """One lookup with its table."""
    (width, signed), out_width, lanes, channels = SHAPES[name]
    words = rtl_memory.table_words(entries(name), signed=signed, field=rtl_memory.CodeField(out_width))
    file = f"{name}_table.mem"
    p: dict[str, int | str] = {
        "InWidth": width, "OutWidth": out_width, "Lanes": lanes, "Channels": channels, "TableFile": file,
    }  # fmt: skip
    files = {file: rtl_memory.mem_text(words, out_width)}
    return cases.Case(name, p, {"in": lanes * width}, lanes * out_width, files=files)


CASES = [lookup_case(name) for name in SHAPES]


async def look_up(dut: Any, stall: float) -> dict[str, list[int]]:
    """Send every code, in an order that mixes the channels, and compare."""
    inputs, expected = {}, {}
    for case in CASES:
        (width, signed), out_width, lanes, channels = SHAPES[case.name]
        first = -(1 << width - 1) if signed else 0
        table = entries(case.name)
        places = np.resize(np.arange(len(table)), (-(-len(table) // channels) + 3, channels))
        inputs[case.name] = {"in": Lanes(width, lanes, channels).words(places + first)}
        expected[case.name] = Lanes(out_width, lanes, channels).words(table[places])
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def every_code_gives_its_entry(dut: Any) -> None:
    delays = await look_up(dut, stall=0.0)
    assert {delay for found in delays.values() for delay in found} == {parts.LOOKUP_LATENCY}


@cocotb.test()
async def gaps_change_nothing(dut: Any) -> None:
    await look_up(dut, stall=0.4)


def test_lookup_gives_the_entry_of_every_code(tmp_path):
    top, files = cases.write_top("lookup_cases", "qfx_lookup", CASES, tmp_path)
    run("lookup_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_bit_of_an_entry_shows(tmp_path):
    top, files = cases.write_top("lookup_cases", "qfx_lookup", CASES, tmp_path)
    file = tmp_path / "widest_table.mem"
    *rest, last = file.read_text().splitlines()
    file.write_text("\n".join([*rest, f"{int(last, 16) ^ 1:0{len(last)}x}"]) + "\n")
    with pytest.raises(BenchFailure, match="every_code_gives_its_entry failed: widest: word"):
        run("lookup_cases", __file__, sources=[top], data=files, seeds=[1], test_filter="every", quick_build=True)


def test_a_lane_without_a_channel_that_is_not_0_shows(tmp_path):
    top, files = cases.write_top("lookup_cases", "qfx_lookup", CASES, tmp_path)
    sources = [top, plant("qfx_lookup", "lane >= Used", "lane > Used", tmp_path)]
    with pytest.raises(BenchFailure, match="every_code_gives_its_entry failed: (idle_lanes|one_group_idle): word"):
        run("lookup_cases", __file__, sources=sources, data=files, seeds=[1], test_filter="every", quick_build=True)
