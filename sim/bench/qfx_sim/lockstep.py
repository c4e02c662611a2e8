"""Compares a part with a model of it cycle by cycle: for parts whose ports are no streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge

from qfx_sim import stalls
from qfx_sim.ports import clock_of
from qfx_sim.scoreboard import Mismatch

Inputs = Mapping[str, int]
Outputs = Mapping[str, int | range]  # a range: any number in it; what is left out may be anything
Model = Callable[[Inputs], Outputs]
"""Given the inputs of a cycle, return what the outputs must be in it, and go on to the next cycle."""


async def lockstep(dut: Any, runs: Mapping[str, tuple[Iterable[Inputs], Model]]) -> None:
    """Apply the inputs of every case (`qfx_sim.cases`), one set a cycle, side by side, each compared with its model.

    Raise Mismatch at the first output of a case that is not what its model says.
    """
    tasks = [cocotb.start_soon(_lockstep(dut, f"{case}_", inputs, model)) for case, (inputs, model) in runs.items()]
    for task in tasks:
        await task


async def _lockstep(dut: Any, prefix: str, inputs: Iterable[Inputs], model: Model) -> None:
    edge = RisingEdge(clock_of(dut))
    for cycle, given in enumerate(inputs):
        for name, value in given.items():
            handle = getattr(dut, prefix + name)
            handle.value = value % (1 << len(handle))
        await edge
        for name, want in model(given).items():
            handle = getattr(dut, prefix + name)
            got, right = int(handle.value), want if isinstance(want, range) else want % (1 << len(handle))
            if got not in right if isinstance(right, range) else got != right:
                raise Mismatch(f"{prefix}{name} must be {right} in cycle {cycle}, not {got}")


def pipeline(function: Callable[[Inputs], Outputs], latency: int) -> Model:
    """Return the model of a part without state: its outputs are ``function`` of the inputs ``latency`` cycles ago."""
    line: deque[Outputs] = deque([{}] * latency)

    def model(given: Inputs) -> Outputs:
        line.append(function(given))
        return line.popleft()

    return model


def goes(seed: int, cycles: int) -> Iterator[int]:
    """Return 1 for go and 0 for rest, ``cycles`` times for each stall pattern, the one without stalls first."""
    return (1 - stall for pattern in stalls.patterns(seed).values() for stall in islice(pattern, cycles))
