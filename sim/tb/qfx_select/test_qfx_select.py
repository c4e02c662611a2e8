"""Bench of qfx_select: each channel of the result is the one that the order says, or 0, whatever the stalls."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import cocotb
import numpy as np
import pytest

from qfx.plan.order import select_order
from qfx.plan.timing import Pixels
from qfx_sim import cases, structure
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure, run

PIXELS = 60


class Shape(NamedTuple):
    """Channels of the input, those of the result, the lanes of both, bits of a code."""

    channels: int
    chosen: tuple[int, ...]
    in_lanes: int = 1
    out_lanes: int = 1
    width: int = 5

    @property
    def words(self) -> Pixels:
        """Words in and out a pixel."""
        return Pixels(-(-self.channels // self.in_lanes), -(-len(self.chosen) // self.out_lanes))


SHAPES = {
    "serial": Shape(6, (5, 0, 3, 3, -1, 1)),
    "wires": Shape(4, (3, -1, 0, 1), 4, 4),
    "shuffled": Shape(12, tuple(range(0, 12, 2)) + tuple(range(1, 12, 2)), 4, 4, 3),
    "idle_lanes": Shape(5, (4, 2, 0, 1, 3, -1, 4), 3, 2, 1),
    "one_of_many": Shape(9, (7,), 2),
    "spread": Shape(1, (0,) * 7, 1, 3, 8),
    "half": Shape(8, (4, 5, 6, 7), 2, 2),
}


def select_case(name: str, credits: int) -> cases.Case:
    """One order; with few credits the segment waits for its FIFO."""
    shape = SHAPES[name]
    words = shape.words
    p = {
        "Width": shape.width,
        "InLanes": shape.in_lanes,
        "OutLanes": shape.out_lanes,
        "InWords": words.a,
        "OutWords": words.b,
        "Order": select_order(shape.chosen, shape.in_lanes, words.a, shape.out_lanes),
    }
    bits = shape.width * shape.in_lanes
    return cases.Case(f"{name}_{credits}", p, {"in": bits}, shape.width * shape.out_lanes, credits=credits)


CASES = [select_case(name, credits) for name in SHAPES for credits in (1, 8)]


async def selected(dut: Any, stall: float) -> dict[str, list[int]]:
    """Run all cases, compare every word, and return the cycles of the results."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    inputs, expected = {}, {}
    for case in CASES:
        shape = SHAPES[case.name.rpartition("_")[0]]
        pixels = rng.integers(0, 1 << shape.width, (PIXELS, shape.channels))
        pixels[0] = (1 << shape.width) - 1
        inputs[case.name] = {"in": Lanes(shape.width, shape.in_lanes, shape.channels).words(pixels)}
        wanted = np.stack([pixels[:, c] if c >= 0 else np.zeros(PIXELS, np.int64) for c in shape.chosen], axis=1)
        expected[case.name] = Lanes(shape.width, shape.out_lanes, len(shape.chosen)).words(wanted)
    return await cases.play(dut, CASES, inputs, expected, stall)


@cocotb.test()
async def channels_are_chosen_and_a_pixel_takes_the_words_of_the_slower_side(dut: Any) -> None:
    cycles = await selected(dut, stall=0.0)
    for case in CASES:
        words = SHAPES[case.name.rpartition("_")[0]].words
        if case.credits > 1:
            starts = np.diff(cycles[case.name][:: words.b])
            assert set(starts) == {max(words.a, words.b)}, f"{case.name} must not rest between pixels: {starts}"


@cocotb.test()
async def channels_are_chosen_under_stalls(dut: Any) -> None:
    await selected(dut, stall=0.4)


def test_select_chooses_channels(tmp_path: Path) -> None:
    top, files = cases.write_top("select_cases", "qfx_select", CASES, tmp_path)
    run("select_cases", __file__, sources=[top], data=files, quick_build=True)


def test_no_path_crosses_the_select() -> None:
    assert structure.combinational_paths("qfx_select") == []


FAULTS = {  # what is planted, and how it shows first
    "zeros": (
        "chosen_q[1] == {1'b1, LaneWidth'(i)}",
        "chosen_q[1][LaneWidth-1:0] == LaneWidth'(i)",
        "serial_1_out: word",
    ),
    "place": ("(read_slot_q ? AddrWidth", "(write_slot_q ? AddrWidth", "serial_1_out: word"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, shows = FAULTS[fault]
    top, _ = cases.write_top("select_cases", "qfx_select", CASES, tmp_path)
    sources = [top, plant("qfx_select", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=f"under_stalls failed.*{shows}"):
        run("select_cases", __file__, sources=sources, seeds=[1], test_filter="under_stalls", quick_build=True)
