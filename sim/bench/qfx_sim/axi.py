"""AXI for benches: packets of containers as beats, and an AXI-Lite master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.triggers import Combine

from qfx_sim.lanes import codes_of, word_of
from qfx_sim.ports import Port, clock_of, find
from qfx_sim.stream import Sink, Source

Beat = tuple[int, int, int]  # tdata, tkeep, tlast


def container_of(width: int) -> int:
    """Return the bits of the container of an element: 8, 16 or 32."""
    return next(bits for bits in (8, 16, 32) if width <= bits)


def beats_of(codes: Sequence[int], width: int, tdata_width: int) -> list[Beat]:
    """Return the packet that carries ``codes``, sign-extended, the last beat filled up with zeros."""
    container = container_of(width)
    per_beat = tdata_width // container
    beats = []
    for start in range(0, len(codes), per_beat):
        part = codes[start : start + per_beat]
        keep = (1 << (len(part) * container // 8)) - 1
        beats.append((word_of(part, container), keep, int(start + per_beat >= len(codes))))
    return beats


def elements_of(beats: Sequence[Beat], width: int, signed: bool) -> list[int]:
    """Return the codes in ``beats``, without what TKEEP excludes."""
    container = container_of(width)
    return [
        code for data, keep, _ in beats for code in codes_of(data, container, keep.bit_count() * 8 // container, signed)
    ]


class AxiLite:
    """Master of an AXI-Lite port of 32-bit registers."""

    def __init__(self, dut: Any, name: str = "s_axil") -> None:
        def port(channel: str, *data: str) -> Port:
            handles = tuple(find(dut, f"{name}_{channel}{part}") for part in data)
            valid, ready = (find(dut, f"{name}_{channel}{part}") for part in ("valid", "ready"))
            return Port(f"{name}_{channel}", clock_of(dut), valid, ready, handles)

        self.aw, self.w = Source(port("aw", "addr")), Source(port("w", "data", "strb"))
        self.ar = Source(port("ar", "addr"))
        self.b, self.r = Sink(port("b", "resp")), Sink(port("r", "data", "resp"))

    async def write(self, address: int, value: int, strobe: int = 0xF) -> int:
        """Write ``value`` and return the response code (0 = OKAY)."""
        response = cocotb.start_soon(self.b.receive(1))
        sent = [cocotb.start_soon(self.w.send([(value, strobe)])), cocotb.start_soon(self.aw.send([address]))]
        await Combine(*sent)
        return int((await response)[0])

    async def read(self, address: int) -> tuple[int, int]:
        """Return the value of a register and the response code (0 = OKAY)."""
        answer = cocotb.start_soon(self.r.receive(1))
        await self.ar.send([address])
        value, response = (await answer)[0]
        return value, response
