"""Bench of qfx_fifo: every word leaves once, in order, whatever the stalls; it holds Depth words, at full rate."""

import random
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from qfx_sim import structure
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.faults import plant
from qfx_sim.ports import PERIOD_NS, cycles, parameter, start, stream
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source, valid_without_ready

SHIFT_DEPTH_MAX = 32


def random_words(dut, count):
    return [random.getrandbits(parameter(dut, "Width")) for _ in range(count)]


@cocotb.test()
async def words_leave_in_order(dut):
    await start(dut)
    source, sink = Source(stream(dut, "in")), Sink(stream(dut, "out"))
    seed = random.getrandbits(16)
    for name in patterns(seed):
        for other in patterns(seed):
            words = random_words(dut, 60 + parameter(dut, "Depth"))
            feed = Feed(source, words, patterns(seed)[name])
            await exercise([feed], [Expect(sink, words, patterns(seed + 7)[other])])


@cocotb.test()
async def full_rate_and_latency_without_stalls(dut):
    await start(dut)
    depth = parameter(dut, "Depth")
    source, sink = Source(stream(dut, "in")), Sink(stream(dut, "out"))
    words = random_words(dut, 40)
    begin = int(cocotb.utils.get_sim_time("ns"))
    (times,) = await exercise([Feed(source, words)], [Expect(sink, words)])
    steps = {(b - a) // PERIOD_NS for a, b in zip(times, times[1:], strict=False)}
    assert steps == {2 if depth == 1 else 1}, f"words must come in every cycle, not {steps} cycles apart"
    latency = (times[0] - begin) // PERIOD_NS - 1  # the first transfer in is one edge after the start
    assert latency == (1 if depth <= SHIFT_DEPTH_MAX else 4), f"latency is {latency}"


@cocotb.test()
async def holds_exactly_depth_words(dut):
    await start(dut)
    port, depth = stream(dut, "in"), parameter(dut, "Depth")
    port.valid.value = 1
    taken = 0
    for _ in range(2 * depth + 10):
        await RisingEdge(dut.clk_i)
        taken += int(port.ready.value)
    assert taken == depth, f"the FIFO must take {depth} words, not {taken}"


@cocotb.test()
async def valid_does_not_wait_for_ready(dut):
    await start(dut)
    cocotb.start_soon(Source(stream(dut, "in")).send([1]))
    await valid_without_ready(stream(dut, "out"))


@cocotb.test()
async def reset_empties_it(dut):
    await start(dut)
    await Source(stream(dut, "in")).send([1])
    await cycles(dut, 5)
    await start(dut, reset_cycles=1)
    for _ in range(6):
        await RisingEdge(dut.clk_i)
        assert not dut.out_valid_o.value, "a word must not outlive the reset"


@pytest.mark.parametrize("depth", [1, 2, 5, 32, 33])
def test_fifo_keeps_words_and_order(depth):
    run("qfx_fifo", __file__, parameters={"Width": 8, "Depth": depth})


@pytest.mark.parametrize("depth", [1, 2, 5, 40])
def test_no_path_crosses_the_fifo(depth):
    assert structure.stream_paths("qfx_fifo", parameters={"Depth": depth}) == []


FAULTS = {
    "newest_first": (
        "qfx_fifo_shift",
        "words_q[oldest_q]",
        "words_q[oldest_q >> 1]",
        5,
        "words_leave_in_order",
        "must",
    ),
    "one_too_many": ("qfx_fifo_ram", "< Depth + 32'(pop)", "<= Depth + 32'(pop)", 33, ".", "."),
    "valid_waits_for_ready": (
        "qfx_fifo_shift",
        "out_valid_o <= 1'b1;",
        "out_valid_o <= out_ready_i;",
        5,
        "valid_does_not_wait_for_ready",
        "valid must not wait for ready",
    ),
    "valid_falls": (
        "qfx_fifo_shift",
        "assign pop  = out_valid_o && out_ready_i;",
        "assign pop  = out_valid_o && (out_ready_i || (push && in_data_i[3:0] == 4'd5));",
        5,
        "words_leave_in_order",
        "must stay until a transfer",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    module, old, new, depth, test, message = FAULTS[fault]
    source = plant(module, old, new, tmp_path)
    with pytest.raises(BenchFailure, match=f"{test}.*{message}"):
        run("qfx_fifo", __file__, sources=[source], parameters={"Depth": depth}, seeds=(1,), test_filter=test)


def test_planted_path_is_seen(tmp_path: Path):
    source = plant("qfx_fifo", "assign pop_o = out_valid_o", "assign pop_o = in_ready_o", tmp_path)
    top = source.read_text().replace(".in_ready_o,", ".in_ready_o(room),")
    top = top.replace("localparam int", "logic room; assign in_ready_o = room || out_ready_i;\n  localparam int")
    source.write_text(top)
    assert ("out_ready_i", "in_ready_o") in structure.stream_paths("qfx_fifo", [source])
