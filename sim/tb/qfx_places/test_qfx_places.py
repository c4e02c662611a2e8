"""Bench of qfx_places: words come while a place is free, and go while a whole pixel and a credit are there."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
import pytest

from qfx_sim import cases
from qfx_sim.faults import plant
from qfx_sim.lockstep import goes, lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

PORTS = ("in_valid_i", "in_ready_o", "in_last_i", "push_o", "out_last_i", "take_o", "give_i")
CASES = [cases.Case(f"c{n}", {"Credits": n}, ports=dict.fromkeys(PORTS, 1)) for n in (1, 2, 5)]


class Places:
    """The formula of the header."""

    def __init__(self, p: dict[str, int]) -> None:
        self.total = self.credits = p["Credits"]
        self.pixels, self.seen = 0, set[int]()

    def __call__(self, given: dict[str, int]) -> dict[str, int]:
        ready, take = self.pixels < 2, self.pixels > 0 and self.credits > 0
        push = bool(given["in_valid_i"]) and ready
        self.pixels += int(push and given["in_last_i"]) - int(take and given["out_last_i"])
        self.credits += given["give_i"] - take
        self.seen.add(self.pixels)
        return {"in_ready_o": ready, "push_o": push, "take_o": take}


def orders(model: Places, seed: int, cycles: int = 40) -> Iterator[dict[str, int]]:
    """Each stall pattern of words that come with each of credits that come back; pixels of one word and more."""
    rng = random.Random(seed)
    for come, give in zip(goes(seed, 5 * cycles), [*goes(seed + 9, cycles)] * 5, strict=True):
        last = {"in_last_i": int(rng.random() < 0.7), "out_last_i": int(rng.random() < 0.6)}
        yield {"in_valid_i": int(come), **last, "give_i": int(give and model.credits < model.total)}


@cocotb.test()
async def words_come_and_go_as_there_is_room(dut: Any) -> None:
    await start(dut)
    seed = random.getrandbits(16)
    models = {case.name: Places(cases.parameters(dut, case)) for case in CASES}
    await lockstep(dut, {name: (orders(model, seed), model) for name, model in models.items()})
    assert all(model.seen == {0, 1, 2} for model in models.values()), "both places must be full at times, and empty"


def test_places_are_filled_and_left(tmp_path: Path) -> None:
    top, _ = cases.write_top("places_cases", "qfx_places", CASES, tmp_path)
    run("places_cases", __file__, sources=[top], quick_build=True)


FAULTS = {  # what is planted, and how it shows first
    "a third pixel": ("pixels_d != 2'd2", "1'b1", "in_ready_o must be 0 in cycle|ended prematurely"),
    "half a pixel": ("2'(push_o && in_last_i)", "2'(push_o || in_last_i)", "must be [01] in cycle|ended prematurely"),
    "early credit": ("credit && full_q", "(credit || give_i) && full_q", "take_o must be 0 in cycle|ended prematurely"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault: str, tmp_path: Path) -> None:
    old, new, shows = FAULTS[fault]
    top, _ = cases.write_top("places_cases", "qfx_places", CASES, tmp_path)
    sources = [top, plant("qfx_places", old, new, tmp_path)]
    with pytest.raises(BenchFailure, match=shows):
        run("places_cases", __file__, sources=sources, seeds=(1,), quick_build=True)
