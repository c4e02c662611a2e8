"""Drives and watches streams and pipes word by word; values are read as they were just before a rising clock edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from cocotb.utils import get_sim_time

from qfx_sim.ports import Port


class ProtocolError(AssertionError):
    """A port broke a rule of the stream contract."""


class Source:
    """Sends words into a stream (rule 3: valid never waits for ready)."""

    def __init__(self, port: Port) -> None:
        self.port = port
        port.valid.value = 0

    async def send(self, words: Iterable[Any], stalls: Iterator[int] | None = None) -> None:
        """Send ``words``; before each one wait while ``stalls`` gives 1. Return at the edge of the last transfer."""
        port = self.port
        edge = RisingEdge(port.clock)
        assert port.ready is not None, f"{port.name} must be a stream, but is a pipe: use PipeDriver"
        for word in words:
            if stalls is not None and next(stalls):
                port.valid.value = 0
                port.scramble()
                await edge
                while next(stalls):
                    await edge
            port.valid.value = 1
            port.write(word)
            await edge
            while not port.ready.value:
                await RisingEdge(port.ready)  # no Python while the stream stands
                await edge
        port.valid.value = 0
        port.scramble()


class Sink:
    """Takes words from a stream."""

    def __init__(self, port: Port) -> None:
        self.port = port
        assert port.ready is not None, f"{port.name} must be a stream, but is a pipe: use PipeMonitor"
        self.ready = port.ready
        self.times: list[int] = []  # ns, of each word ever received
        self.ready.value = 0

    async def receive(self, count: int, stalls: Iterator[int] | None = None) -> list[Any]:
        """Return the next ``count`` words, ready being low in each cycle for which ``stalls`` gives 1."""
        port, words = self.port, list[Any]()
        edge, arrival = RisingEdge(port.clock), RisingEdge(port.valid)
        driven = -1
        while len(words) < count:
            stall = next(stalls) if stalls is not None else 0
            if driven != 1 - stall:
                driven = 1 - stall
                self.ready.value = driven
            await edge
            if not port.valid.value:
                if stalls is not None:
                    continue
                await arrival  # no Python while nothing comes
                await edge
            if not stall:
                words.append(port.read())
                self.times.append(_now())
        self.ready.value = 0
        return words


class Monitor:
    """Records the transfers of a stream and refuses a breach of rule 2: valid stays, data stay, until a transfer.

    Make it after the reset: before, registers are arbitrary.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        self.words: list[Any] = []
        self.times: list[int] = []
        self.task = cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        port = self.port
        assert port.ready is not None, f"{port.name} must be a stream, but is a pipe: use PipeMonitor"
        edge, arrival = RisingEdge(port.clock), RisingEdge(port.valid)
        while True:
            if not port.valid.value:
                await arrival
            await edge
            if not port.valid.value:
                continue
            word = port.read()
            while not port.ready.value:
                await edge
                if not port.valid.value:
                    raise ProtocolError(f"{port.name}: valid must stay until a transfer, but fell at {_now()} ns")
                if (now := port.read()) != word:
                    change = f"not turn from {word!r} to {now!r}"
                    raise ProtocolError(f"{port.name}: data must stay until a transfer, {change}, at {_now()} ns")
            self.words.append(word)
            self.times.append(_now())


class PipeDriver:
    """Sends words into a pipe: one each cycle in which ``stalls`` gives 0."""

    def __init__(self, port: Port) -> None:
        self.port = port
        port.valid.value = 0

    async def send(self, words: Iterable[Any], stalls: Iterator[int] | None = None) -> None:
        """Send ``words`` and return at the edge that takes the last one."""
        port = self.port
        edge = RisingEdge(port.clock)
        for word in words:
            while stalls is not None and next(stalls):
                port.valid.value = 0
                port.scramble()
                await edge
            port.valid.value = 1
            port.write(word)
            await edge
        port.valid.value = 0
        port.scramble()


class PipeMonitor:
    """Records every word of a pipe with its time."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.words: list[Any] = []
        self.times: list[int] = []
        self.task = cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        port = self.port
        edge, arrival = RisingEdge(port.clock), RisingEdge(port.valid)
        while True:
            if not port.valid.value:
                await arrival
            await edge
            if port.valid.value:
                self.words.append(port.read())
                self.times.append(_now())

    async def until(self, count: int) -> None:
        """Wait until ``count`` words have come."""
        while len(self.words) < count:
            await RisingEdge(self.port.clock)


async def valid_without_ready(port: Port, within: int = 1000) -> None:
    """Hold ready low and refuse a producer that waits for it (rule 3): valid must rise in ``within`` cycles."""
    assert port.ready is not None
    port.ready.value = 0
    for _ in range(within):
        await RisingEdge(port.clock)
        if port.valid.value:
            return
    raise ProtocolError(f"{port.name}: valid must not wait for ready, but did not rise in {within} cycles")


def _now() -> int:
    return int(get_sim_time("ns"))
