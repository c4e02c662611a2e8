"""Finds the ports of a DUT and starts it: clock, reset, inputs at 0."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cocotb.clock import Clock
from cocotb.handle import Immediate
from cocotb.triggers import RisingEdge

PERIOD_NS = 4


@dataclass(frozen=True, slots=True)
class Port:
    """Handles of a stream or, without ``ready``, of a pipe; a word is an int, or a tuple where ``data`` has several."""

    name: str
    clock: Any
    valid: Any
    ready: Any | None
    data: tuple[Any, ...]

    def read(self) -> Any:
        """Return the word that is there now."""
        if len(self.data) == 1:
            return int(self.data[0].value)
        return tuple(int(handle.value) for handle in self.data)

    def write(self, word: Any) -> None:
        """Put ``word`` on the data signals."""
        values = word if len(self.data) > 1 else (word,)
        for handle, value in zip(self.data, values, strict=True):
            handle.value = value

    def scramble(self) -> None:
        """Turn every bit of the data that was written last: data without valid mean nothing."""
        for handle in self.data:
            handle.value = int(handle.value) ^ ((1 << len(handle)) - 1)


def find(dut: Any, name: str) -> Any:
    """Return the handle of the port ``name``, with or without a suffix ``_i`` or ``_o``."""
    for suffix in ("_i", "_o", ""):
        if hasattr(dut, name + suffix):
            return getattr(dut, name + suffix)
    raise AttributeError(f"{dut._name} must have a port {name}, {name}_i or {name}_o, but has none")


def clock_of(dut: Any) -> Any:
    """Return the clock: clk_i, or aclk on an AXI top."""
    return dut.clk_i if hasattr(dut, "clk_i") else dut.aclk


def reset_of(dut: Any) -> Any | None:
    """Return the reset, active low: rst_ni, or aresetn on an AXI top; None where there is none."""
    return next((getattr(dut, name) for name in ("rst_ni", "aresetn") if hasattr(dut, name)), None)


def stream(dut: Any, name: str, data: Sequence[str] = ("data",)) -> Port:
    """Return the stream ``name``: its signals are ``<name>_valid``, ``_ready`` and ``_<data>``."""
    handles = tuple(find(dut, f"{name}_{part}") for part in data)
    return Port(name, clock_of(dut), find(dut, f"{name}_valid"), find(dut, f"{name}_ready"), handles)


def pipe(dut: Any, name: str, data: Sequence[str] = ("data",)) -> Port:
    """Return the pipe port ``name``: valid and data, no ready."""
    handles = tuple(find(dut, f"{name}_{part}") for part in data)
    return Port(name, clock_of(dut), find(dut, f"{name}_valid"), None, handles)


def axis(dut: Any, name: str) -> Port:
    """Return the AXI-Stream ``name``; its words are (tdata, tkeep, tlast)."""
    handles = tuple(find(dut, f"{name}_{part}") for part in ("tdata", "tkeep", "tlast"))
    return Port(name, clock_of(dut), find(dut, f"{name}_tvalid"), find(dut, f"{name}_tready"), handles)


def parameter(dut: Any, name: str) -> int:
    """Return the integer parameter ``name`` of the DUT."""
    return int(getattr(dut, name).value)


async def start(dut: Any, reset_cycles: int = 4) -> None:
    """Start the clock, set all inputs to 0, reset for ``reset_cycles`` cycles, and return after the first free edge.

    Call it before anything else in a test.
    """
    clock, reset = clock_of(dut), reset_of(dut)
    for handle in dut:
        name = handle._name
        if name.endswith("_i") and name != clock._name and hasattr(handle, "set"):
            handle.value = 0
    # At once, since Verilator's first evaluation would take a random 1 of the clock for an edge out of reset.
    if reset is not None:
        reset.value = Immediate(0)
    clock.value = Immediate(0)
    Clock(clock, PERIOD_NS, "ns").start(start_high=False)
    await cycles(dut, reset_cycles)
    if reset is not None:
        reset.value = 1
    await cycles(dut, 1)


async def cycles(dut: Any, count: int) -> None:
    """Wait for ``count`` rising edges of the clock."""
    clock = clock_of(dut)
    for _ in itertools.repeat(None, count):
        await RisingEdge(clock)
