"""The cocotb side of `qfx_sim.design`: sends the words of the job and writes down those of every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, SimTimeoutError, with_timeout
from cocotb.utils import get_sim_time

from qfx_sim import stalls
from qfx_sim.exercise import nothing_more
from qfx_sim.ports import PERIOD_NS, pipe, start, stream
from qfx_sim.stream import Monitor, PipeMonitor, Sink, Source


@cocotb.test()
async def every_frame_comes_out(dut: Any) -> None:
    """All words of all frames leave the design, and no more; with stalls each output keeps the stream contract."""
    job = json.loads(Path("job.json").read_text(encoding="utf-8"))
    await start(dut)
    entry = stream(dut, "in")
    sinks = {name: Sink(stream(dut, name)) for name in job["outputs"]}
    monitors = [Monitor(sink.port) for sink in sinks.values()] if job["stalls"] else []
    taps = {node: _tap(dut, wire, is_pipe) for node, (wire, is_pipe, _) in job["taps"].items()}
    seed = job["seed"]
    receivers = {
        name: cocotb.start_soon(sink.receive(job["outputs"][name], stalls.bursts(seed + i) if job["stalls"] else None))
        for i, (name, sink) in enumerate(sinks.items())
    }
    begin = cocotb.start_soon(_first_transfer(entry))
    gaps = stalls.at_random(0.3, seed + 99) if job["stalls"] else None
    sender = cocotb.start_soon(Source(entry).send(job["input"], gaps))
    words = {}
    for name, receiver in receivers.items():
        try:
            words[name] = await with_timeout(receiver, job["limit"] * PERIOD_NS, "ns")
        except SimTimeoutError:
            got = len(sinks[name].times)
            raise AssertionError(
                f"the design must give {job['outputs'][name]} words at {name}, but stopped after {got} "
                f"(within {job['limit']} cycles)"
            ) from None
    await with_timeout(sender, job["limit"] * PERIOD_NS, "ns")
    await nothing_more(list(sinks.values()))
    del monitors
    times = {name: sink.times for name, sink in sinks.items()}
    for node, monitor in taps.items():
        words[node], times[node] = (list(values)[: job["taps"][node][2]] for values in (monitor.words, monitor.times))
    result = {"start_ns": begin.result(), "period_ns": PERIOD_NS, "words": words, "times": times}
    Path("result.json").write_text(json.dumps(result), encoding="utf-8")


def _tap(dut: Any, wire: str, is_pipe: bool) -> Monitor | PipeMonitor:
    return PipeMonitor(pipe(dut, wire)) if is_pipe else Monitor(stream(dut, wire))


async def _first_transfer(port: Any) -> int:
    """Return the time (ns) of the first word that the design takes."""
    while True:
        await RisingEdge(port.clock)
        if port.valid.value and port.ready.value:
            return int(get_sim_time("ns"))
