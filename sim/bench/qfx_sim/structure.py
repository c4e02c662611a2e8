"""Rule 5 of the stream contract as a search in the netlist: no combinational path crosses a part."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qfx import resources
from qfx.errors import ToolError
from qfx.tools import _cache, yosys
from qfx.tools._run import run
from qfx.tools.verilator import closure

# Outputs of a register; every other cell is taken as combinational from each input to each output.
_REGISTERS = ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$adff", "$adffe", "$aldff", "$_DFF", "$_SDFF", "$_ALDFF")
# Cells without a signal that matters here.
_SILENT = ("$check", "$print", "$scopeinfo", "$assert", "$assume", "$cover")

STREAM_OUTPUTS = ("_valid_o", "_ready_o", "_data_o", "tvalid", "tready", "tdata", "tkeep", "tlast")


def stream_paths(
    top: str,
    sources: Sequence[Path] = (),
    *,
    parameters: Mapping[str, int | str] | None = None,
    library: Sequence[Path] | None = None,
    data: Sequence[Path] = (),
) -> list[tuple[str, str]]:
    """Return the pairs (input, output) of combinational paths to any valid, ready or data output of ``top``.

    An empty list is what rule 5 demands. ``sources`` defaults to rtl/<top>.sv, ``library`` to rtl/; ``data`` are files
    for ``$readmemh``.
    """
    paths = combinational_paths(top, sources, parameters=parameters, library=library, data=data)
    return [(source, target) for source, target in paths if _bare(target).endswith(STREAM_OUTPUTS)]


def combinational_paths(
    top: str,
    sources: Sequence[Path] = (),
    *,
    parameters: Mapping[str, int | str] | None = None,
    library: Sequence[Path] | None = None,
    data: Sequence[Path] = (),
) -> list[tuple[str, str]]:
    """Return every pair (input port, output port) of ``top`` that a path without a register joins, sorted."""
    library = [resources.path("rtl")] if library is None else list(library)
    files = closure(list(sources) or [resources.path("rtl") / f"{top}.sv"], library)
    return search(_netlist(top, files, parameters or {}, data))


def search(module: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs (input port, output port) joined by a path without a register in a module of write_json."""
    inputs = {bit: name for name, bit in _bits(module, "input")}
    driver = _drivers(module)
    found = set()
    for name, start in _bits(module, "output"):
        seen, stack = {start}, [start]
        while stack:
            bit = stack.pop()
            if bit in inputs:
                found.add((inputs[bit], name))
            fresh = [b for b in driver.get(bit, ()) if b not in seen]
            seen.update(fresh)
            stack.extend(fresh)
    return sorted(found)


def _bits(module: Mapping[str, Any], direction: str) -> Iterator[tuple[str, int]]:
    for name, port in module["ports"].items():
        if port["direction"] == direction:
            yield from ((name, bit) for bit in port["bits"] if isinstance(bit, int))


def _drivers(module: Mapping[str, Any]) -> dict[int, list[int]]:
    """Return, for each bit that a combinational cell drives, the bits on which it depends."""
    driver: dict[int, list[int]] = {}
    for name, cell in module["cells"].items():
        kind = str(cell["type"])
        if kind.startswith(_REGISTERS) or kind in _SILENT:
            continue
        if not kind.startswith("$"):
            raise ToolError(f"cell {name} must be a cell of yosys, not an instance of the unknown module {kind}")
        sides: dict[str, list[int]] = {"input": [], "output": []}
        for port, bits in cell["connections"].items():
            if kind == "$mem_v2" and not _passes(port, cell):
                continue
            sides[cell["port_directions"][port]] += [bit for bit in bits if isinstance(bit, int)]
        driver |= dict.fromkeys(sides["output"], sides["input"])
    return driver


def _passes(port: str, cell: Mapping[str, Any]) -> bool:
    """Say whether ``port`` of a memory takes part in an unclocked read."""
    unclocked = "0" in str(cell["parameters"]["RD_CLK_ENABLE"])
    return unclocked and port in ("RD_ADDR", "RD_DATA", "RD_EN")


def _netlist(top: str, files: Sequence[Path], parameters: Mapping[str, int | str], data: Sequence[Path]) -> Any:
    """Return the flattened netlist of ``top`` as word-level cells, bitwise ones cut into bits; kept by content."""
    ordered = sorted(files, key=lambda path: path.name)
    given = "".join(f" -G {name}={yosys.literal(value)}" for name, value in parameters.items())
    script = (
        f"read_slang -j 1 {' '.join(path.name for path in ordered)} --top {top}{given}\n"
        f"hierarchy -check -top {top}\nproc\nflatten\nopt_clean\nmemory -nomap\nsimplemap\nopt_clean\n"
        "write_json netlist.json\n"
    )
    parts: list[str | bytes] = [yosys.version(), script]
    for path in (*ordered, *data):
        parts += [path.name, path.read_bytes()]

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=f"{top}.structure.") as place:
            work = Path(place)
            for path in (*ordered, *data):
                shutil.copyfile(path, work / path.name)
            (work / "netlist.ys").write_text(script, encoding="utf-8")
            command = [sys.executable, "-c", yosys.START, "-q", "-s", "netlist.ys"]
            log = _cache.root() / "logs" / f"{top}.structure.log"
            run(command, log=log, tool="yosys", version=yosys.version(), cwd=work, timeout=900.0)
            shutil.copyfile(work / "netlist.json", folder / "netlist.json")

    place = _cache.folder("structure", _cache.digest(parts), make)
    return json.loads((place / "netlist.json").read_text(encoding="utf-8"))["modules"][top]


def _bare(port: str) -> str:
    """Return the name of an AXI port without the suffix of its direction."""
    for part in ("tvalid", "tready", "tdata", "tkeep", "tlast"):
        if port.removesuffix("_o").endswith(part):
            return port.removesuffix("_o")
    return port
