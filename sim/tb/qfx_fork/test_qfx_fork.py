"""Bench of qfx_fork: every branch gets every word, in order, whatever the stalls of the others."""

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

BRANCHES = ("x", "y", "z")


async def copies_through(dut, stalls_in, stalls_out):
    words = [random.getrandbits(parameter(dut, "Width")) for _ in range(80)]
    expects = [
        Expect(Sink(stream(dut, name)), words, stalls) for name, stalls in zip(BRANCHES, stalls_out, strict=True)
    ]
    return await exercise([Feed(Source(stream(dut, "in")), words, stalls_in)], expects)


@cocotb.test()
async def every_branch_gets_every_word(dut):
    await start(dut)
    seed = random.getrandbits(16)
    for first in patterns(seed):
        for name in patterns(seed):
            outs = [patterns(seed + 1)[name], patterns(seed + 2)["random"], patterns(seed + 3)["none"]]
            random.shuffle(outs)
            await copies_through(dut, patterns(seed)[first], outs)


@cocotb.test()
async def full_rate_without_stalls(dut):
    await start(dut)
    for times in await copies_through(dut, None, [None, None, None]):
        steps = {(later - earlier) // PERIOD_NS for earlier, later in zip(times, times[1:], strict=False)}
        assert steps == {1}, f"a word must leave in every cycle, not every {steps}"


def test_fork_copies():
    run("fork_three", __file__)


def test_no_path_crosses_the_fork():
    assert structure.combinational_paths("qfx_fork", parameters={"Outputs": 3}) == []


def test_planted_fault_is_seen(tmp_path: Path):
    source = plant("qfx_fork", "assign in_ready_o = &room;", "assign in_ready_o = |room;", tmp_path)
    with pytest.raises(BenchFailure, match="every_branch_gets_every_word failed"):
        run("fork_three", __file__, sources=[source], seeds=(1,))
