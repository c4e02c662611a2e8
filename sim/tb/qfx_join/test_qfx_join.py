"""Bench of qfx_join: the n-th words of both streams leave together, whatever the stalls."""

import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import structure
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.faults import plant
from qfx_sim.ports import PERIOD_NS, parameter, start, stream
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source

NAMES = ("none", "random", "bursts")


async def pairs_through(dut, stalls_a, stalls_b, stalls_out):
    width_a, width_b = parameter(dut, "WidthA"), parameter(dut, "WidthB")
    a = [random.getrandbits(width_a) for _ in range(70)]
    b = [random.getrandbits(width_b) for _ in range(70)]
    feeds = [Feed(Source(stream(dut, "a")), a, stalls_a), Feed(Source(stream(dut, "b")), b, stalls_b)]
    words = [y << width_a | x for x, y in zip(a, b, strict=True)]
    (times,) = await exercise(feeds, [Expect(Sink(stream(dut, "out")), words, stalls_out)])
    return times


@cocotb.test()
async def pairs_leave_in_order(dut):
    await start(dut)
    seed = random.getrandbits(16)
    for a in NAMES:
        for b in NAMES:
            for out in NAMES:
                await pairs_through(dut, *(patterns(seed + i)[name] for i, name in enumerate((a, b, out))))


@cocotb.test()
async def full_rate_without_stalls(dut):
    await start(dut)
    times = await pairs_through(dut, None, None, None)
    steps = {(later - earlier) // PERIOD_NS for earlier, later in zip(times, times[1:], strict=False)}
    assert steps == {1}, f"a pair must leave in every cycle, not every {steps}"


def test_join_keeps_pairs():
    run("join_segment", __file__)


def test_no_path_crosses_the_join():
    assert structure.combinational_paths("qfx_join") == []


def test_planted_fault_is_seen(tmp_path: Path):
    source = plant(
        "qfx_join", "assign take = a_valid && b_valid && credit;", "assign take = a_valid && credit;", tmp_path
    )
    with pytest.raises(BenchFailure, match=r"out: word 0 must be"):
        run("join_segment", __file__, sources=[source], seeds=(1,))
