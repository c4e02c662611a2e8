"""Bench of qfx_width: the channels of every pixel keep their order for any pair of lane numbers."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import structure
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.ports import PERIOD_NS, parameter, start, stream
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source


def layouts(dut):
    width, channels = parameter(dut, "LaneWidth"), parameter(dut, "Channels")
    return [Lanes(width, parameter(dut, name), channels) for name in ("InLanes", "OutLanes")]


async def pixels_through(dut, pixels, stalls_in, stalls_out):
    before, after = layouts(dut)
    low, high = -(1 << (before.width - 1)), (1 << (before.width - 1)) - 1
    codes = [[random.randint(low, high) for _ in range(before.channels)] for _ in range(pixels)]
    feed = Feed(Source(stream(dut, "in")), before.words(codes), stalls_in)
    expect = Expect(Sink(stream(dut, "out")), after.words(codes), stalls_out, after)
    (times,) = await exercise([feed], [expect])
    return times


@cocotb.test()
async def channels_keep_their_order(dut):
    await start(dut)
    seed = random.getrandbits(16)
    for name in patterns(seed):
        for other in patterns(seed):
            await pixels_through(dut, 15, patterns(seed)[name], patterns(seed + 7)[other])


@cocotb.test()
async def narrow_side_moves_a_word_a_cycle(dut):
    await start(dut)
    before, after = layouts(dut)
    times = await pixels_through(dut, 30, None, None)
    cycles = (times[29 * after.groups] - times[0]) // PERIOD_NS  # from the first pixel to the last one
    assert cycles == 29 * max(before.groups, after.groups)


SETS = {
    "one_to_four": {"LaneWidth": 5, "InLanes": 1, "OutLanes": 4, "Channels": 7},
    "four_to_one": {"LaneWidth": 5, "InLanes": 4, "OutLanes": 1, "Channels": 7},
    "two_to_six_partly_used": {"LaneWidth": 3, "InLanes": 2, "OutLanes": 6, "Channels": 3},
    "six_to_two_partly_used": {"LaneWidth": 3, "InLanes": 6, "OutLanes": 2, "Channels": 9},
    "equal": {"LaneWidth": 4, "InLanes": 3, "OutLanes": 3, "Channels": 5},
}


@pytest.mark.parametrize("name", SETS)
def test_width_keeps_channels(name):
    run("qfx_width", __file__, parameters=SETS[name])


@pytest.mark.parametrize("name", SETS)
def test_no_path_crosses_the_width(name):
    assert structure.combinational_paths("qfx_width", parameters=SETS[name]) == []


def test_planted_fault_names_pixel_and_channel(tmp_path: Path):
    source = plant("qfx_width", "parts_q <= last ? '0 : word;", "parts_q <= word;", tmp_path)
    with pytest.raises(
        BenchFailure, match=r"out: word \d+ \(pixel \d+, channel \d+\) must be code -?\d+, not -?\d+ at"
    ):
        run("qfx_width", __file__, sources=[source], parameters=SETS["one_to_four"], seeds=(1,))
