"""Bench of qfx_ram_sdp: a read sees every write before it, two cycles later, and the old word of a collision."""

import random
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from qfx_sim import scoreboard
from qfx_sim.faults import plant
from qfx_sim.ports import parameter, start
from qfx_sim.runner import BenchFailure, run


@cocotb.test()
async def reads_give_the_words_before_them(dut):
    await start(dut)
    width, depth = parameter(dut, "Width"), parameter(dut, "Depth")
    mem: dict[int, int] = {}
    expected, received, known = [0, 0], [0, 0], [False, False]
    for _ in range(3000):
        write, read, word = random.randrange(depth), random.randrange(depth), random.getrandbits(width)
        enable = random.getrandbits(1)
        if random.random() < 0.3:
            read = write
        dut.we_i.value, dut.waddr_i.value, dut.wdata_i.value, dut.raddr_i.value = enable, write, word, read
        expected.append(mem.get(read, 0))
        known.append(read in mem)
        if enable:
            mem[write] = word
        await RisingEdge(dut.clk_i)
        received.append(int(dut.rdata_o.value))
    # The word that is seen at edge t was addressed at edge t - 2.
    pairs = [(e, r) for e, r, k in zip(expected, received[2:], known, strict=False) if k]
    scoreboard.check("rdata", [e for e, _ in pairs], [r for _, r in pairs])


def test_reads_give_the_words_before_them():
    run("qfx_ram_sdp", __file__, parameters={"Width": 9, "Depth": 11})


def test_planted_fault_is_seen(tmp_path: Path):
    source = plant("qfx_ram_sdp", "read_q  <= mem[raddr_i];", "read_q  <= we_i ? wdata_i : mem[raddr_i];", tmp_path)
    with pytest.raises(BenchFailure, match="rdata: word"):
        run("qfx_ram_sdp", __file__, sources=[source], parameters={"Width": 9, "Depth": 11}, seeds=(1,))
