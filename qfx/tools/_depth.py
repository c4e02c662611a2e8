"""Logic depth of a netlist that yosys mapped to Xilinx cells.

A LUT, a wide multiplexer (MUXF*) and a read of LUT memory count 1. A contiguous carry chain counts 1 for each 16 bits
that a path runs along it, or part of them. Ports, flip-flops, block RAM, DSP blocks and buffers start and end paths
and count 0. (yosys' own `ltp` counts every CARRY4.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_CARRY_BITS = 16
_CARRY_CELLS = {"CARRY4": 4, "CARRY8": 8}
_ONE = ("LUT", "MUXF", "RAM32", "RAM64", "RAM128", "RAM256", "RAM512")
_WIRES = ("INV", "BUF")
_CLOCKED_INPUTS = {"WCLK", "CLK", "WE", "D", "DI", "DIA", "DIB", "DIC", "DID", "I"}  # of LUT memories


def logic_depth(module: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the depth of ``module`` (one of write_json's modules, flattened) and net names along a deepest path."""
    graph = _Netlist(module)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))
    try:
        worst = max(graph.driver, key=lambda bit: graph.arrival(bit)[0], default=None)
        if worst is None:
            return 0, []
        depth, path = graph.arrival(worst)
    finally:
        sys.setrecursionlimit(limit)
    return depth, [graph.names.get(bit, f"net {bit}") for bit in _unlink(path)]


_Link = tuple[int, Any] | None  # a path as a linked list of bits, the last one first


def _unlink(link: _Link) -> list[int]:
    bits: list[int] = []
    while link is not None:
        bit, link = link
        bits.append(bit)
    return bits[::-1]


class _Netlist:
    """The cells of one module with the arrival depth of each net bit, computed once for each."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.driver: dict[int, tuple[Mapping[str, Any], str, int]] = {}  # bit -> cell, port, index in the port
        self.known: dict[int, tuple[int, _Link]] = {}
        self.names: dict[int, str] = {}
        for name, net in module["netnames"].items():
            for index, bit in enumerate(net["bits"]):
                if isinstance(bit, int) and (bit not in self.names or self.names[bit].startswith("$")):
                    self.names[bit] = f"{name}[{index}]" if len(net["bits"]) > 1 else name
        for cell in module["cells"].values():
            for port, bits in cell["connections"].items():
                if cell["port_directions"].get(port) == "output":
                    for index, bit in enumerate(bits):
                        if isinstance(bit, int):
                            self.driver[bit] = (cell, port, index)

    def arrival(self, bit: int | str) -> tuple[int, _Link]:
        """Return the depth at ``bit`` and the path to it; constants, ports and clocked outputs are at 0."""
        if not isinstance(bit, int):
            return 0, None
        if bit not in self.driver:
            return 0, (bit, None)
        if bit not in self.known:
            self.known[bit] = (0, None)  # cuts a combinational loop, which lint refuses anyway
            cell, _, _ = self.driver[bit]
            kind = str(cell["type"])
            if kind in _CARRY_CELLS:
                depth, path = self._through_carry(cell)
            elif kind.startswith(_ONE):
                depth, path = self._latest(cell)
                depth += 1
            elif kind.startswith(_WIRES):
                depth, path = self._latest(cell)
            else:
                depth, path = 0, None
            self.known[bit] = (depth, (bit, path))
        return self.known[bit]

    def _latest(self, cell: Mapping[str, Any], skip: frozenset[str] = frozenset()) -> tuple[int, _Link]:
        """Return the latest arrival among the combinational inputs of ``cell``."""
        memory = str(cell["type"]).startswith("RAM")
        found: list[tuple[int, _Link]] = []
        for port, bits in cell["connections"].items():
            if cell["port_directions"].get(port) != "input" or port in skip or (memory and port in _CLOCKED_INPUTS):
                continue
            found += [self.arrival(bit) for bit in bits if isinstance(bit, int)]
        return max(found, key=lambda item: item[0], default=(0, None))

    def _through_carry(self, cell: Mapping[str, Any]) -> tuple[int, _Link]:
        """Return the arrival behind ``cell``: the worst over all places where a path may have entered its chain."""
        best: tuple[int, _Link] = (0, None)
        bits = 0
        current: Mapping[str, Any] | None = cell
        while current is not None:
            bits += _CARRY_CELLS[str(current["type"])]
            depth, path = self._latest(current, frozenset({"CI"}))
            below = self._carry_below(current)
            if below is None and current["connections"].get("CI"):
                depth, path = max(
                    (depth, path), self.arrival(current["connections"]["CI"][0]), key=lambda item: item[0]
                )
            best = max(best, (depth + -(-bits // _CARRY_BITS), path), key=lambda item: item[0])
            current = below
        return best

    def _carry_below(self, cell: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the carry cell whose last carry feeds ``cell``, or None at the start of a chain."""
        for bit in cell["connections"].get("CI", [])[:1]:
            if isinstance(bit, int) and bit in self.driver:
                driver, port, index = self.driver[bit]
                if (
                    str(driver["type"]) in _CARRY_CELLS
                    and port == "CO"
                    and index == _CARRY_CELLS[str(driver["type"])] - 1
                ):
                    return driver
        return None
