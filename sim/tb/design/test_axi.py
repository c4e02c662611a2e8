"""Bench of the AXI top of a design: packets of frames give the interpreter's codes, and the registers say so."""

import random
import shutil
from pathlib import Path

import cocotb
import numpy as np
import pytest

from qfx.boards import Board
from qfx.emit import manifest
from qfx.emit.rtl import rtl
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Input, Requantize
from qfx.plan import plan
from qfx_sim.axi import AxiLite, beats_of, container_of
from qfx_sim.exercise import Expect, Feed, exercise
from qfx_sim.ports import axis, start
from qfx_sim.runner import BenchFailure, run
from qfx_sim.stalls import patterns
from qfx_sim.stream import Sink, Source
from tests.rtl.examples import frames

ID, VERSION, ERRORS, FRAMES, DONE, IN, OUT, LAYOUT = 0x00, 0x04, 0x0C, 0x10, 0x1C, 0x20, 0x24, 0x28
SHORT = 1
TDATA = 64


def small() -> Graph:
    """A convolution whose frames end inside a beat, and whose results are wider than its inputs and signed."""
    b, rng = GraphBuilder("packets"), np.random.default_rng(3)
    b.add("x", Input((5, 3, 2), Fixed(5, 0)))
    b.constant("conv.w", rng.integers(-7, 8, (3, 3, 2, 3)), Fixed(4, 2))
    b.add("conv", Conv2d(padding=(1, 1, 1, 1)), "x", "conv.w")
    b.add("result", Requantize(Fixed(9, 1)), "conv")
    return b.build("result")


class Bench:
    """The ports of the top, and what the interpreter says must leave it."""

    def __init__(self, dut):
        self.source, self.sink, self.lite = Source(axis(dut, "s_axis")), Sink(axis(dut, "m_axis")), AxiLite(dut)
        self.graph, self.tdata = small(), len(dut.s_axis_tdata)
        self.node = self.graph.by_name[self.graph.outputs[0]]

    def packet(self, count, rest=0):
        """Return the beats of ``count`` random frames and ``rest`` elements, and the codes of the frames' results."""
        codes = frames(self.graph, count + 1, random.getrandbits(16))
        sent = codes.ravel()[: count * self.graph.input.type.size + rest].tolist()
        results = self.graph.evaluate_codes(codes[:count])[self.node.name].ravel().tolist()
        return beats_of(sent, self.graph.input.type.fixed.width, self.tdata), results

    def answer(self, results):
        """Return the beats of a packet of results."""
        return beats_of(results, self.node.type.fixed.width, self.tdata)

    async def expect(self, registers):
        """Compare registers, address -> value."""
        found = {address: await self.lite.read(address) for address in registers}
        assert found == {address: (value, 0) for address, value in registers.items()}


async def started(dut):
    """The bench, its valid signals at 0 before the reset ends."""
    bench = Bench(dut)
    await start(dut)
    return bench


@cocotb.test()
async def registers_describe_the_design(dut):
    bench = await started(dut)
    sizes = [bench.graph.input.type, bench.node.type]
    inputs, results = (container_of(kind.fixed.width) for kind in sizes)
    layout = bench.tdata << 16 | results << 8 | inputs
    await bench.expect({ID: 0x51465831, VERSION: 1, IN: sizes[0].size, OUT: sizes[1].size, LAYOUT: layout, FRAMES: 1})
    assert await bench.lite.write(FRAMES, 3) == 0
    await bench.expect({FRAMES: 3, DONE: 0, ERRORS: 0})


@cocotb.test()
async def packets_of_frames_give_the_codes_of_the_interpreter(dut):
    bench, seed, done = await started(dut), random.getrandbits(16), 0
    assert await bench.lite.write(FRAMES, 3) == 0
    for stalls_in, stalls_out in (("none", "none"), ("random", "bursts"), ("bursts", "random"), ("none", "periodic")):
        packets = [bench.packet(count) for count in (3, 3, 2)]  # the last packet of a data set may be short
        feed = Feed(bench.source, [beat for sent, _ in packets for beat in sent], patterns(seed)[stalls_in])
        beats = [beat for _, results in packets for beat in bench.answer(results)]
        await exercise([feed], [Expect(bench.sink, beats, patterns(seed + 9)[stalls_out])])
        done += 8
        await bench.expect({DONE: done, ERRORS: 0})


@cocotb.test()
async def a_packet_that_ends_inside_a_frame_is_flagged_and_costs_that_frame(dut):
    bench = await started(dut)
    assert await bench.lite.write(FRAMES, 2) == 0
    (broken, first), (whole, second) = bench.packet(1, rest=7), bench.packet(2)
    await exercise([Feed(bench.source, broken + whole)], [Expect(bench.sink, bench.answer(first + second))])
    await bench.expect({DONE: 3, ERRORS: SHORT})
    assert await bench.lite.write(ERRORS, SHORT) == 0
    await bench.expect({ERRORS: 0})


@pytest.fixture(scope="module")
def design(tmp_path_factory) -> Path:
    graph = small()
    return rtl(graph, plan(graph, Board.load("ultra96v2"), 200), tmp_path_factory.mktemp("axi") / "rtl", tdata=TDATA)


def simulate(folder: Path, **options) -> None:
    """Run the bench on the AXI top of the design in ``folder``."""
    facts = manifest.read(folder, "rtl")
    sources = [folder / name for name in facts["axi_sources"]]
    memories = sorted(folder.glob("*.mem"))
    run(f"{facts['top']}_axi", __file__, sources=sources, library=[], data=memories, quick_build=True, **options)


def test_the_axi_top_passes_packets(design):
    simulate(design)


FAULTS = {  # file, what stands there, what is planted
    "halves_swapped": ("packets_axi.v", "_i(s_axis_tdata)", "_i({s_axis_tdata[31:0], s_axis_tdata[63:32]})"),
    "results_unsigned": ("packets_shell.sv", ".OutSigned(1'b1)", ".OutSigned(1'b0)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(design, fault, tmp_path):
    file, old, new = FAULTS[fault]
    faulty = tmp_path / "rtl"
    shutil.copytree(design, faulty)
    text = (faulty / file).read_text()
    assert text.count(old) == 1
    (faulty / file).write_text(text.replace(old, new))
    with pytest.raises(BenchFailure, match="packets_of_frames.* failed: m_axis: word"):
        simulate(faulty, seeds=[1], test_filter="packets_of_frames")
