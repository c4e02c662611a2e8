"""Bench of qfx_rom: each address gives its line of the file two cycles later; a missing file stops the simulation."""

import random
import re
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from qfx_sim import scoreboard
from qfx_sim.ports import parameter, start
from qfx_sim.runner import BenchFailure, run

FILE = "qfx_rom.mem"
PARAMETERS: dict[str, int | str] = {"Width": 18, "Depth": 13, "InitFile": FILE}


def contents(width, depth):
    return [(7919 * (i + 1)) & ((1 << width) - 1) for i in range(depth)]


@cocotb.test()
async def reads_give_lines_of_the_file(dut):
    await start(dut)
    words = contents(parameter(dut, "Width"), parameter(dut, "Depth"))
    addresses = [*range(len(words)), *(random.randrange(len(words)) for _ in range(200)), 0, 0]
    received = []
    for address in addresses:
        dut.addr_i.value = address
        await RisingEdge(dut.clk_i)
        received.append(int(dut.data_o.value))
    scoreboard.check("data", [words[a] for a in addresses[:-2]], received[2:])


def write_file(folder: Path, flip: int = 0) -> Path:
    words = contents(18, 13)
    words[5] ^= flip
    path = folder / FILE
    path.write_text("".join(f"{word:x}\n" for word in words))
    return path


def test_reads_give_lines_of_the_file(tmp_path: Path):
    run("qfx_rom", __file__, parameters=PARAMETERS, data=[write_file(tmp_path)])


def test_planted_fault_is_seen(tmp_path: Path):
    with pytest.raises(BenchFailure, match="data: word 5 must be"):
        run("qfx_rom", __file__, parameters=PARAMETERS, data=[write_file(tmp_path, flip=4)], seeds=(1,))


def test_missing_file_stops_the_simulation():
    with pytest.raises(BenchFailure, match="ended prematurely") as failure:
        run("qfx_rom", __file__, parameters=PARAMETERS, seeds=(1,))
    log = re.search(r"log: (\S+)\)", str(failure.value))
    assert log is not None
    assert f"InitFile must name a readable file, not '{FILE}'" in Path(log[1]).read_text()
