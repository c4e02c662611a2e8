"""Runs words through a DUT between sources and sinks, with any stalls, and checks all that comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, with_timeout

from qfx_sim import scoreboard
from qfx_sim.lanes import Lanes
from qfx_sim.ports import PERIOD_NS
from qfx_sim.stream import Monitor, PipeDriver, PipeMonitor, Sink, Source

SETTLE_CYCLES = 20


@dataclass(frozen=True, slots=True)
class Feed:
    """Words that go into a port."""

    driver: Source | PipeDriver
    words: Sequence[Any]
    stalls: Iterator[int] | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """Words that must come out of a stream, no more and no fewer."""

    sink: Sink
    words: Sequence[Any]
    stalls: Iterator[int] | None = None
    lanes: Lanes | None = None


async def exercise(feeds: Sequence[Feed], expects: Sequence[Expect], limit_cycles: int = 200_000) -> list[list[int]]:
    """Send all ``feeds``, receive all ``expects`` and return the times (ns) of each one's words.

    Every output is watched for breaches of the stream contract and compared at once; then, for a few cycles, nothing
    more may come. Raise Mismatch, ProtocolError, or SimTimeoutError where words do not come.
    """
    monitors = [Monitor(expect.sink.port) for expect in expects]
    senders = [cocotb.start_soon(feed.driver.send(feed.words, feed.stalls)) for feed in feeds]
    marks = [len(expect.sink.times) for expect in expects]
    receivers = [cocotb.start_soon(expect.sink.receive(len(expect.words), expect.stalls)) for expect in expects]
    times = []
    for expect, receiver, mark in zip(expects, receivers, marks, strict=True):
        words = await with_timeout(receiver, limit_cycles * PERIOD_NS, "ns")
        times.append(expect.sink.times[mark:])
        scoreboard.check(expect.sink.port.name, expect.words, words, times[-1], expect.lanes)
    for sender in senders:
        await with_timeout(sender, limit_cycles * PERIOD_NS, "ns")
    await nothing_more([expect.sink for expect in expects])
    for monitor in monitors:
        monitor.task.cancel()
    return times


async def nothing_more(sinks: Sequence[Sink], cycles: int = SETTLE_CYCLES) -> None:
    """Refuse a word that comes within ``cycles`` cycles."""
    for _ in range(cycles):
        await RisingEdge(sinks[0].port.clock)
        for sink in sinks:
            if sink.port.valid.value:
                raise scoreboard.Mismatch(f"{sink.port.name}: no more words must come, but {sink.port.read()!r} came")


async def collect(feeds: Sequence[Feed], monitor: PipeMonitor, count: int, limit_cycles: int = 200_000) -> list[Any]:
    """Send all ``feeds`` and return the first ``count`` words that ``monitor`` sees on a pipe port."""
    for feed in feeds:
        cocotb.start_soon(feed.driver.send(feed.words, feed.stalls))
    await with_timeout(monitor.until(count), limit_cycles * PERIOD_NS, "ns")
    return monitor.words[:count]
