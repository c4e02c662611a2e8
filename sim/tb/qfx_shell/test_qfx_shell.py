"""Bench of qfx_shell: good packets pass exactly, broken ones cost their own results only, and set an error flag."""

import random
from pathlib import Path

import cocotb
import numpy as np
import pytest

from qfx_sim import structure
from qfx_sim.axi import AxiLite, beats_of
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.faults import plant
from qfx_sim.lanes import Lanes
from qfx_sim.ports import axis, cycles, parameter, start
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source

ID, VERSION, STATUS, ERRORS, FRAMES, CYCLE, CYCLE_HIGH, DONE, IN, OUT, LAYOUT = range(0, 44, 4)
SHORT, LONG = 1, 2


class Bench:
    """The DUT's parameters, its ports, and the model of what it must answer."""

    def __init__(self, dut):
        names = ("TDataWidth", "InWidth", "OutWidth", "Lanes", "Channels", "Pixels")
        self.tdata, self.width, self.out_width, self.lanes, self.channels, self.pixels = (
            parameter(dut, name) for name in names
        )
        self.elements = self.channels * self.pixels
        self.source, self.sink, self.lite = Source(axis(dut, "s_axis")), Sink(axis(dut, "m_axis")), AxiLite(dut)
        self.open: list[int] = []  # codes of the output packet that has not ended

    def codes(self, count):
        half = 1 << (self.width - 1)
        return [random.randrange(-half, half) for _ in range(count)]

    def core(self, frame):
        """Return what the core makes of the codes of a frame."""
        groups = Lanes(self.out_width, self.lanes, self.channels).groups
        index = np.arange(self.channels) // self.lanes + groups * np.arange(self.pixels)[:, None]
        half = 1 << (self.out_width - 1)
        total = np.array(frame).reshape(self.pixels, self.channels) + index
        return ((total + half) % (2 * half) - half).reshape(-1).tolist()

    def answer(self, packet, frames):
        """Return the beats that ``packet`` (codes) makes leave, and its error flags."""
        beats, errors = [], 0
        for index in range(frames):
            frame, rest = packet[: self.elements], packet[self.elements :]
            if len(frame) < self.elements:
                errors |= SHORT
                break
            self.open += self.core(frame)
            last = not rest or index == frames - 1
            errors |= LONG if rest and index == frames - 1 else 0
            whole = beats_of(self.open, self.out_width, self.tdata)
            if last:
                beats, self.open = beats + whole, []
                break
            packet = rest
        return beats, errors

    async def packets(self, packets, frames, stalls_in=None, stalls_out=None):
        """Send ``packets``, compare all beats and the error flags, and clear the flags."""
        beats, errors = [], 0
        for packet in packets:
            more, flags = self.answer(packet, frames)
            beats, errors = beats + more, errors | flags
        sent = [beat for packet in packets for beat in beats_of(packet, self.width, self.tdata)]
        await exercise([Feed(self.source, sent, stalls_in)], [Expect(self.sink, beats, stalls_out)])
        assert await self.lite.read(ERRORS) == (errors, 0), f"error flags must be {errors}"
        assert await self.lite.write(ERRORS, 3) == 0
        assert await self.lite.read(ERRORS) == (0, 0)


@cocotb.test()
async def good_packets_pass(dut):
    await start(dut)
    bench, seed = Bench(dut), random.getrandbits(16)
    for frames in (1, 3):
        assert await bench.lite.write(FRAMES, frames) == 0
        for name in patterns(seed):
            for other in ("none", "random", "bursts"):
                packets = [bench.codes(frames * bench.elements) for _ in range(3)]
                await bench.packets(packets, frames, patterns(seed)[name], patterns(seed + 9)[other])


@cocotb.test()
async def broken_packets_cost_their_own_results_only(dut):
    await start(dut)
    bench, seed = Bench(dut), random.getrandbits(16)
    for name in ("none", "random", "bursts", "none", "periodic", "random"):
        count = bench.elements
        lengths = [count, count - 1, count, count + 1, count, 1, 3 * count, count, 2 * count + 3, count]
        random.shuffle(lengths)
        packets = [bench.codes(length) for length in lengths]
        await bench.packets(packets, 1, patterns(seed)[name], patterns(seed + 3)[name])


@cocotb.test()
async def broken_packets_of_several_frames(dut):
    await start(dut)
    bench, seed, count = Bench(dut), random.getrandbits(16), parameter(dut, "Channels") * parameter(dut, "Pixels")
    assert await bench.lite.write(FRAMES, 3) == 0
    for name in ("none", "random", "bursts"):
        lengths = [
            3 * count,
            2 * count,
            count,
            2 * count + 1,
            3 * count,
            4 * count,
            count - 1,
            3 * count + 1,
            3 * count,
        ]
        packets = [bench.codes(length) for length in lengths]
        await bench.packets(packets, 3, patterns(seed)[name], patterns(seed + 5)["random"])


@cocotb.test()
async def dropped_tlast_is_flagged(dut):
    await start(dut)
    bench = Bench(dut)
    first, second = bench.codes(bench.elements), bench.codes(bench.elements)
    merged = beats_of(first, bench.width, bench.tdata)
    merged[-1] = (*merged[-1][:2], 0)
    sent = merged + beats_of(second, bench.width, bench.tdata)
    beats, _ = bench.answer(first, 1)
    await exercise([Feed(bench.source, sent)], [Expect(bench.sink, beats)])
    assert await bench.lite.read(ERRORS) == (LONG, 0)
    assert await bench.lite.write(ERRORS, LONG) == 0
    await bench.packets([second], 1)


@cocotb.test()
async def a_null_beat_with_tlast_is_no_frame(dut):
    await start(dut)
    bench = Bench(dut)
    codes = bench.codes(bench.elements)
    beats, _ = bench.answer(codes, 1)
    await exercise(
        [Feed(bench.source, [(0, 0, 1), *beats_of(codes, bench.width, bench.tdata)])], [Expect(bench.sink, beats)]
    )
    assert await bench.lite.read(ERRORS) == (0, 0)


@cocotb.test()
async def registers_follow_the_map(dut):
    await start(dut)
    bench = Bench(dut)
    lite = bench.lite
    assert await lite.read(ID) == (0x51465831, 0)
    assert await lite.read(VERSION) == (42, 0)
    assert await lite.read(FRAMES) == (1, 0)
    assert [await lite.read(a) for a in (IN, OUT)] == [(bench.elements, 0)] * 2
    containers = [next(c for c in (8, 16, 32) if w <= c) for w in (bench.out_width, bench.width)]
    assert await lite.read(LAYOUT) == (bench.tdata << 16 | containers[0] << 8 | containers[1], 0)
    assert await lite.write(FRAMES, 0x0203) == 0
    assert await lite.write(FRAMES, 0x0999, strobe=1) == 0
    assert await lite.read(FRAMES) == (0x0299, 0)
    assert await lite.write(FRAMES, 0) == 0
    assert await lite.read(FRAMES) == (1, 0), "no frame a packet is one frame a packet"
    assert (await lite.read(44))[1] == 2 and await lite.write(ID, 5) == 2, "SLVERR where there is nothing"
    before = (await lite.read(CYCLE))[0]
    await cycles(dut, 100)
    assert 100 < (await lite.read(CYCLE))[0] - before < 112
    assert await lite.read(CYCLE_HIGH) == (0, 0)
    assert await lite.read(STATUS) == (0, 0)
    await bench.packets([bench.codes(bench.elements)], 1)
    assert await lite.read(DONE) == (1, 0)
    await bench.source.send(beats_of(bench.codes(bench.elements), bench.width, bench.tdata))
    await cycles(dut, 20)
    assert await lite.read(STATUS) == (1, 0), "a result that waits keeps the shell busy"


@cocotb.test()
async def wide_side_sets_the_rate(dut):
    await start(dut)
    bench = Bench(dut)
    count = 20
    assert await bench.lite.write(FRAMES, count) == 0
    packet = bench.codes(count * bench.elements)
    beats, _ = bench.answer(packet, count)
    sent = beats_of(packet, bench.width, bench.tdata)
    words = Lanes(bench.out_width, bench.lanes, bench.channels).groups * bench.pixels * count
    (times,) = await exercise([Feed(bench.source, sent)], [Expect(bench.sink, beats)])
    cycles_taken = (times[-1] - times[0]) // 4
    assert cycles_taken <= max(words, len(beats), len(sent)) + words // count, f"{cycles_taken} cycles"


SETS = {
    "bytes": {"TDataWidth": 64, "InWidth": 8, "OutWidth": 12, "Lanes": 3, "Channels": 3, "Pixels": 5},
    "partial_groups": {"TDataWidth": 32, "InWidth": 5, "OutWidth": 6, "Lanes": 2, "Channels": 5, "Pixels": 13},
    "words": {"TDataWidth": 128, "InWidth": 20, "OutWidth": 9, "Lanes": 9, "Channels": 4, "Pixels": 3},
}


@pytest.mark.parametrize("name", SETS)
def test_shell_keeps_frames(name):
    run("shell_core", __file__, parameters=SETS[name])


@pytest.mark.parametrize("module", ["qfx_shell", "qfx_axis_unpack", "qfx_axis_pack", "qfx_axil_regs"])
def test_no_path_crosses(module):
    assert structure.stream_paths(module) == []


FAULTS = {
    "tlast_dropped": ("qfx_axis_pack", "assign m_axis_tlast_o  = flush_q &&", "assign m_axis_tlast_o  = !suppress &&"),
    "short_result_leaves": ("qfx_axis_unpack", "{short_q || !enough, ended || full}", "{1'b0, ended || full}"),
    "long_not_seen": ("qfx_axis_unpack", "assign long_o      = finish && full && !ended;", "assign long_o = 1'b0;"),
    "zeros_not_sign": ("qfx_axis_pack", "Container'($signed(element))", "Container'(element)"),
    "keep_of_whole_beat": ("qfx_axis_pack", "{(Container/8){i < 32'(count_q)}}", "'1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    source = plant(*FAULTS[fault], tmp_path)
    with pytest.raises(BenchFailure, match="failed"):
        run("shell_core", __file__, sources=[source], parameters=SETS["bytes"], seeds=(1,))
