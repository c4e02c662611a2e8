"""Bench of qfx_reduce: the maximum and the exact sum of all channels of each pixel, whatever the stalls."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import cocotb
import numpy as np
import pytest

from qfx_sim import cases, structure
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

PIXELS = 60


class Shape(NamedTuple):
    """Channels, lanes, bits of a code and its sign."""

    channels: int
    lanes: int
    width: int
    signed: bool

    @property
    def words(self) -> int:
        """Words a pixel."""
        return -(-self.channels // self.lanes)

    def out_width(self, reduction: str) -> int:
        """Bits of a maximum, and bits that hold every sum."""
        ends = self.channels * (1 << (self.width - self.signed)) - 1
        return self.width if reduction == "max" else ends.bit_length() + self.signed


SHAPES = {
    "serial": Shape(6, 1, 5, True),
    "all_at_once": Shape(4, 4, 4, False),
    "idle_lanes": Shape(5, 3, 4, True),
    "idle_unsigned": Shape(7, 4, 3, False),
    "single": Shape(1, 1, 6, True),
    "one_bit": Shape(9, 2, 1, True),
}


def reduce_case(name: str, reduction: str, credits: int) -> cases.Case:
    """One reduction; with few credits the segment waits for its FIFO."""
    shape = SHAPES[name]
    p: dict[str, int | str] = {
        "Reduction": reduction,
        "InWidth": shape.width,
        "InSigned": int(shape.signed),
        "OutWidth": shape.out_width(reduction),
        "Channels": shape.channels,
        "Lanes": shape.lanes,
    }
    bits = shape.width * shape.lanes
    return cases.Case(f"{name}_{reduction}_{credits}", p, {"in": bits}, shape.out_width(reduction), credits=credits)


CASES = [reduce_case(name, reduction, n) for name in SHAPES for reduction in ("max", "sum") for n in (1, 12)]


async def reduced(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        name, reduction, _ = case.name.rsplit("_", 2)
        shape = SHAPES[name]
        low = -(1 << shape.width - 1) if shape.signed else 0
        pixels = rng.integers(low, low + (1 << shape.width), (PIXELS, shape.channels))
        pixels[0], pixels[1] = low, low + (1 << shape.width) - 1
        pixels[2:12] = np.minimum(pixels[2:12], -1 if shape.signed else 1)  # below what idle lanes hold
        inputs[case.name] = {"in": Lanes(shape.width, shape.lanes, shape.channels).words(pixels)}
        wanted = pixels.max(axis=1) if reduction == "max" else pixels.sum(axis=1)
        expected[case.name] = Lanes(case.out_bits, 1, 1).words(wanted[:, None])
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def channels_are_reduced_and_a_pixel_takes_its_words(dut: Any) -> None:
    cycles = await reduced(dut, stall=0.0)
    for case in CASES:
        words = SHAPES[case.name.rsplit("_", 2)[0]].words
        if case.credits > 1:
            starts = np.diff(cycles[case.name])
            assert set(starts) == {words}, f"{case.name} must not rest between pixels: {starts}"


@cocotb.test()
async def channels_are_reduced_under_stalls(dut: Any) -> None:
    await reduced(dut, stall=0.4)


def test_reduce_takes_maximum_and_sum(tmp_path: Path) -> None:
    top, files = cases.write_top("reduce_cases", "qfx_reduce", CASES, tmp_path)
    run("reduce_cases", __file__, sources=[top], data=files, quick_build=True)


def test_no_path_crosses_the_reduce() -> None:
    assert structure.combinational_paths("qfx_reduce") == []


FAULTS = {  # what is planted, and how it shows first
    "idle": ("lane >= Used", "lane > Used", "idle_lanes_max_1_out: word"),
    "slot": ("result_q[read_slot_q]", "result_q[write_slot_q]", "serial_max_1_out: word"),
    "first": ("first_q[Delay-1] ? '0 : acc_q", "acc_q", "serial_sum_1_out: word"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, shows = FAULTS[fault]
    top, _ = cases.write_top("reduce_cases", "qfx_reduce", CASES, tmp_path)
    sources = [top, plant("qfx_reduce", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{shows}"):
        run("reduce_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
