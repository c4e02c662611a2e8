"""Bench of qfx_gate and qfx_credit: a segment never loses a word, and runs at full rate with enough credits."""

import random
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from qfx_sim import structure
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.faults import plant
from qfx_sim.ports import PERIOD_NS, parameter, start, stream
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source


@cocotb.test()
async def words_pass_in_order(dut):
    await start(dut)
    source, sink = Source(stream(dut, "in")), Sink(stream(dut, "out"))
    seed, width = random.getrandbits(16), parameter(dut, "Width")
    for name in patterns(seed):
        for other in patterns(seed):
            words = [random.getrandbits(width) for _ in range(80)]
            feed = Feed(source, words, patterns(seed)[name])
            await exercise([feed], [Expect(sink, words, patterns(seed + 7)[other])])


@cocotb.test()
async def rate_is_credits_in_a_loop(dut):
    await start(dut)
    credits, delay = parameter(dut, "Credits"), parameter(dut, "Delay")
    words = list(range(100))
    (times,) = await exercise([Feed(Source(stream(dut, "in")), words)], [Expect(Sink(stream(dut, "out")), words)])
    loop = 1 + delay + 1 + 1  # gate, pipe, FIFO, credit counter
    cycles = (times[10 * credits] - times[0]) // PERIOD_NS
    assert cycles == 10 * max(credits, loop), f"{10 * credits} words must take {10 * max(credits, loop)}, not {cycles}"


@cocotb.test()
async def takes_exactly_the_credits(dut):
    await start(dut)
    port, credits = stream(dut, "in"), parameter(dut, "Credits")
    port.valid.value = 1
    taken = 0
    for _ in range(4 * credits + 20):
        await RisingEdge(dut.clk_i)
        taken += int(port.ready.value)
    assert taken == credits, f"the segment must take {credits} words, not {taken}"


@pytest.mark.parametrize(("credits", "delay"), [(1, 1), (3, 5), (7, 4)])
def test_segment_keeps_words_and_order(credits, delay):
    run("gate_segment", __file__, parameters={"Credits": credits, "Delay": delay})


def test_no_path_crosses_the_gate():
    assert structure.combinational_paths("qfx_gate") == []
    assert structure.combinational_paths("qfx_credit") == []


FAULTS = {
    "one_credit_too_many": ("qfx_credit", "<= CountWidth'(Credits);", "<= CountWidth'(Credits + 1);", "."),
    "credit_lost": ("qfx_credit", "+ CountWidth'(give_i)", "+ CountWidth'(give_i && !take_i)", "."),
    "bit_flipped": ("qfx_gate", "out_data_o <= in_data_i;", "out_data_o <= in_data_i ^ Width'(&in_data_i);", "must be"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    module, old, new, message = FAULTS[fault]
    with pytest.raises(BenchFailure, match=f"failed.*{message}"):
        run("gate_segment", __file__, sources=[plant(module, old, new, tmp_path)], parameters={"Width": 3}, seeds=(1,))
