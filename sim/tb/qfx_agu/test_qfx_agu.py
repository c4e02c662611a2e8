"""Bench of qfx_agu: the steps of all loops in order, each as soon as its pixels, credit and start are there."""

import itertools
import random
from pathlib import Path

import cocotb
import pytest

from qfx_sim import cases, stalls
from qfx_sim.faults import plant
from qfx_sim.lockstep import lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

NAMES = ("Height", "Width", "OutHeight", "OutWidth", "StrideH", "StrideW", "PadTop", "PadLeft", "ReachH", "ReachW",
         "Rows", "Groups", "Folds", "TapsH", "TapsW", "StepH", "StepW", "Words", "RepeatH", "RepeatW",
         "Blocks")  # fmt: skip
FRAMES = 3


class Walk:
    """The loops of the header, and what each step waits for."""

    def __init__(self, p):
        self.p, self.steps = p, self.walk()
        self.rows = self.release = self.released = self.frames = 0  # rows that the ring has announced
        self.next = next(self.steps)

    def walk(self):
        """Each step: its outputs, the rows and pixels that it waits for, and the rows that it frees."""
        p = self.p
        names = ("OutHeight", "RepeatH", "OutWidth", "RepeatW", "Groups", "Folds", "TapsH", "TapsW", "Words")
        extents = [range(p[name]) for name in names]
        innermost = [len(extent) - 1 for extent in extents]
        for frame in itertools.count():
            for index in itertools.product(*extents):
                row, again_h, col, again_w, group, _, ky, kx, word = index
                part = p["Blocks"] * (again_h * p["RepeatW"] + again_w) * p["Groups"] * p["Words"]
                top, left = row * p["StrideH"] - p["PadTop"], col * p["StrideW"] - p["PadLeft"]
                outputs = {
                    "first_o": (ky, kx, word) == (0, 0, 0),
                    "last_o": [*index[6:]] == innermost[6:],
                    "pixel_last_o": [*index[4:]] == innermost[4:],
                    "row_o": top,
                    "col_o": left,
                    "slot_o": (frame * p["Height"] + top) % p["Rows"],
                    "ky_o": ky * p["StepH"],
                    "kx_o": kx * p["StepW"],
                    "word_o": part + group * p["Words"] + word,
                }
                waits = index[4:] == (0,) * 5
                bottom = min(max(top + p["ReachH"], 0), p["Height"] - 1)
                need = (frame * p["Height"] + bottom, max(left + p["ReachW"] + 1, 1))
                end = [*index[1:]] == innermost[1:]
                self.frames = frame
                yield outputs, need if waits else None, self.freed(row) if end else 0

    def freed(self, row):
        """Rows of the image that no window after those of ``row`` reads."""
        first = [
            min(max(index * self.p["StrideH"] - self.p["PadTop"], 0), self.p["Height"]) for index in (row, row + 1)
        ]
        return (self.p["Height"] if row == self.p["OutHeight"] - 1 else first[1]) - first[0]

    def __call__(self, given):
        outputs, need, freed = self.next
        there = need is None or self.rows > need[0] or (self.rows, True) == (need[0], given["ring_pixels_i"] >= need[1])
        go = there and (need is None or given["start_i"]) and (not outputs["first_o"] or given["credit_i"])
        wanted = {"step_o": go, "take_o": go and outputs["first_o"], "release_o": self.release}
        if go:
            wanted |= outputs
            self.next = next(self.steps)
        self.released += self.release
        self.release = freed if go else 0
        self.rows += given["ring_row_i"]
        return wanted


def orders(model, pattern, seed, limit=50_000):
    """Rows as a ring of Rows rows announces them, start and credit, all with the stall pattern, for some frames."""
    p, complete, pixel, row, pixels = model.p, 0, 0, 0, 0
    go = [stalls.patterns(seed + i)[pattern] for i in range(3)]
    for _ in range(limit):
        start_, credit, write = (1 - next(stall) for stall in go)
        yield {"ring_row_i": row, "ring_pixels_i": pixels, "start_i": start_, "credit_i": credit}
        if model.frames == FRAMES:
            return
        push = write and complete - model.released < p["Rows"]
        row, pixels = int(push and pixel == p["Width"] - 1), pixel
        pixel, complete = (pixel + push) % p["Width"], complete + row
    raise AssertionError(f"{FRAMES} frames must end within {limit} cycles, not {model.frames}")


def agu_case(name, *values):
    """One address generator."""
    p = dict(zip(NAMES, values, strict=True))
    ports = {"start_i": 1, "credit_i": 1, "take_o": 1, "ring_row_i": 1, "step_o": 1, "first_o": 1, "last_o": 1}
    ports |= {"pixel_last_o": 1, "ring_pixels_i": bits(p["Width"] - 1), "release_o": bits(p["Height"])}
    ports |= {
        "row_o": bits(p["OutHeight"] * p["StrideH"] + p["PadTop"]) + 1,
        "col_o": bits(p["OutWidth"] * p["StrideW"] + p["PadLeft"]) + 1,
        "slot_o": bits(p["Rows"] - 1),
        "ky_o": bits((p["TapsH"] - 1) * p["StepH"]),
        "kx_o": bits((p["TapsW"] - 1) * p["StepW"]),
        "word_o": bits(p["Groups"] * p["Words"] * (p["RepeatH"] * p["RepeatW"] if p["Blocks"] else 1) - 1),
    }
    return cases.Case(name, p, ports=ports)


def bits(largest):
    """Bits of a number, at least 1."""
    return max(largest.bit_length(), 1)


CASES = [
    agu_case("least", 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0),
    agu_case("all_loops", 7, 5, 3, 2, 2, 3, 1, 2, 4, 2, 7, 3, 2, 3, 3, 2, 1, 2, 2, 3, 0),
    agu_case("input_bound", 6, 5, 3, 2, 2, 3, 1, 1, 2, 2, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0),
    agu_case("tall_padding", 3, 3, 8, 8, 1, 1, 3, 5, 2, 2, 3, 1, 1, 1, 3, 1, 1, 1, 1, 1, 0),
    agu_case("repeated", 3, 2, 3, 2, 1, 1, 0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 0),
    agu_case("blocks", 3, 2, 3, 2, 1, 1, 0, 0, 0, 0, 2, 2, 1, 1, 1, 1, 1, 3, 2, 3, 1),
]


async def walk(dut, pattern):
    await start(dut)
    models = {case.name: Walk(cases.parameters(dut, case)) for case in CASES}
    seed = random.getrandbits(16)
    await lockstep(dut, {name: (orders(model, pattern, seed), model) for name, model in models.items()})


@cocotb.test()
async def no_step_waits_without_a_reason(dut):
    await walk(dut, "none")


@cocotb.test()
async def stalls_change_no_step(dut):
    await walk(dut, "random")


@cocotb.test()
async def bursts_change_no_step(dut):
    await walk(dut, "bursts")


def test_agus_walk_the_loops(tmp_path):
    top, _ = cases.write_top("agu_cases", "qfx_agu", CASES, tmp_path)
    run("agu_cases", __file__, sources=[top], quick_build=True)


FAULTS = {
    "one_pixel_early": (
        "ring_pixels_i})) >= edge_q",
        "ring_pixels_i})) >= edge_q - 1",
        "input_bound_step_o must be 0 in cycle",
    ),
    "negative_edge": (
        "EdgeWidth'(signed'({1'b0, ring_pixels_i}))",
        "EdgeWidth'({1'b0, ring_pixels_i})",
        "tall_padding_step_o must be 1",
    ),
    "row_freed_too_soon": ("step_line && again_h_last", "step_line && (again_h_last || row_last)", "_o must be"),
    "slot_not_wrapped": ("slot_sum >= (SlotWidth+1)'(Rows)", "slot_sum > (SlotWidth+1)'(Rows)", "slot_o must be 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    old, new, message = FAULTS[fault]
    top, _ = cases.write_top("agu_cases", "qfx_agu", CASES, tmp_path)
    sources = [top, plant("qfx_agu", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=message):
        run("agu_cases", __file__, sources=sources, seeds=(1,), test_filter="reason", quick_build=True)
