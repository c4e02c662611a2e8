"""Bench of qfx_ring: every word lies where the header says, rows are announced once, and no row is taken too early."""

import random
from collections import deque
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lanes import codes_of, word_of
from qfx_sim.lockstep import goes, lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

NAMES = ("Width", "RowPixels", "PixelWords", "Rows", "ReadPorts", "ReleaseWidth")


class Ring:
    """The rows as they were written; a read sees every word that was written before it."""

    def __init__(self, p):
        self.p, self.row_words = p, p["RowPixels"] * p["PixelWords"]
        self.depth = p["Rows"] * self.row_words
        self.address_bits = (self.depth - 1).bit_length()
        self.memory: dict[int, int] = {}
        self.written = self.released = self.row = self.pixels = 0
        self.reads = deque([{}, {}])

    @property
    def ready(self):
        return self.written // self.row_words - self.released < self.p["Rows"]

    @property
    def held(self):
        """Complete rows that have not been released."""
        return self.written // self.row_words - self.released

    def __call__(self, given):
        p = self.p
        wanted = {"in_ready_o": self.ready, "row_o": self.row, "pixels_o": self.pixels} | self.reads.popleft()
        words = [self.memory.get(a) for a in codes_of(given["raddr_i"], self.address_bits, p["ReadPorts"], False)]
        self.reads.append({} if None in words else {"rdata_o": word_of(words, p["Width"])})
        before, ready = self.written, self.ready
        if given["in_valid_i"] and ready:
            self.memory[before % self.depth] = given["in_data_i"]
            self.written += 1
        self.released += given["release_i"]
        self.row = self.written // self.row_words - before // self.row_words
        self.pixels = before % self.row_words // p["PixelWords"]
        return wanted


def orders(model, seed, cycles=60):
    """Write and release with every pair of stall patterns, reading anywhere."""
    p = model.p
    for write, free in zip(goes(seed, 5 * cycles), [*goes(seed + 9, cycles)] * 5, strict=True):
        most = min(model.held, (1 << p["ReleaseWidth"]) - 1)
        yield {
            "in_valid_i": write,
            "in_data_i": random.getrandbits(p["Width"]),
            "release_i": random.randint(1, most) if free and most and random.random() < 0.3 else 0,
            "raddr_i": word_of([random.randrange(model.depth) for _ in range(p["ReadPorts"])], model.address_bits),
        }


def ring_case(name, *values):
    """One ring."""
    p = dict(zip(NAMES, values, strict=True))
    ports = {
        "in_valid_i": 1,
        "in_ready_o": 1,
        "in_data_i": p["Width"],
        "row_o": 1,
        "pixels_o": max((p["RowPixels"] - 1).bit_length(), 1),
        "release_i": p["ReleaseWidth"],
        "raddr_i": p["ReadPorts"] * (p["Rows"] * p["RowPixels"] * p["PixelWords"] - 1).bit_length(),
        "rdata_o": p["ReadPorts"] * p["Width"],
    }
    return cases.Case(name, p, ports=ports)


CASES = [
    ring_case("least", 1, 1, 1, 2, 1, 1),
    ring_case("two_ports", 5, 3, 2, 3, 2, 1),
    ring_case("many_rows_at_once", 9, 5, 1, 7, 1, 3),
]


@cocotb.test()
async def rows_are_kept_until_they_are_released(dut):
    await start(dut)
    models = {case.name: Ring(cases.parameters(dut, case)) for case in CASES}
    seed = random.getrandbits(16)
    await lockstep(dut, {name: (orders(model, seed), model) for name, model in models.items()})
    assert all(model.written > 3 * model.depth for model in models.values()), "the rings must go round several times"


def test_rings_keep_rows(tmp_path):
    top, _ = cases.write_top("ring_cases", "qfx_ring", CASES, tmp_path)
    run("ring_cases", __file__, sources=[top], quick_build=True)


FAULTS = {
    "release_lost": ("+ FreeWidth'(release_i)", "+ (row_end ? '0 : FreeWidth'(release_i))", "in_ready_o must be 1"),
    "announced_early": ("pixels_o   <= pixel;", "pixels_o   <= pixel + PixelWidth'(push);", "pixels_o must be"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    old, new, message = FAULTS[fault]
    top, _ = cases.write_top("ring_cases", "qfx_ring", CASES, tmp_path)
    with pytest.raises(BenchFailure, match=message):
        sources = [top, plant("qfx_ring", old, new, tmp_path)]
        run("ring_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
