"""Several parameter sets of one module under one generated top, driven word by word in one loop."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb

from qfx.plan.parts import Literal
from qfx_sim import ports, scoreboard, stalls, stream
from qfx_sim.exercise import Expect, Feed, exercise


class Long(int):
    """A parameter of type longint."""


@dataclass(frozen=True, slots=True)
class Case:
    """One parameter set: instance ``u_<name>`` of the module, its ports by width, its ROM files by content."""

    name: str
    parameters: Mapping[str, int | str]
    inputs: Mapping[str, int] = field(default_factory=dict)  # stream -> bits a word
    out_bits: int = 0
    credits: int = 0  # depth of the FIFO behind the part; 0: a pipe part, its inputs have no ready either
    ports: Mapping[str, int] = field(default_factory=dict)  # instead of streams: port, ending in _i or _o -> bits
    reset: bool = True  # the part has a reset
    files: Mapping[str, str] = field(default_factory=dict)  # file name -> text


def write_top(name: str, module: str, cases: Sequence[Case], folder: Path) -> tuple[Path, list[Path]]:
    """Write the top with one instance a case, and the ROM files; return the top's path and theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = ["input logic clk_i", *(["input logic rst_ni"] if any(case.reset for case in cases) else [])]
    body: list[str] = []
    for case in cases:
        case_ports, case_body = _instance(module, case)
        ports += case_ports
        body += case_body
    text = f"// Bench top: {len(cases)} parameter sets of {module}.\nmodule {name} (\n  "
    text += ",\n  ".join(ports) + "\n);\n" + "\n".join(body) + "\nendmodule\n"
    top = folder / f"{name}.sv"
    top.write_text(text)
    files = [folder / file for case in cases for file in case.files]
    for case in cases:
        for file, content in case.files.items():
            (folder / file).write_text(content)
    return top, files


def parameters(dut: Any, case: Case) -> dict[str, int]:
    """Return the integer parameters of the case's instance as the model has them."""
    names = [name for name, value in case.parameters.items() if isinstance(value, int)]
    return {name: getattr(dut, f"{case.name}_{name}").value.to_signed() for name in names}


def _instance(module: str, case: Case) -> tuple[list[str], list[str]]:
    """Ports and text of one case."""
    signals, wires = [], ["    .clk_i", *(["    .rst_ni"] if case.reset else [])]
    for name, bits in case.ports.items():
        signals.append(f"{'input' if name.endswith('_i') else 'output'} logic [{bits - 1}:0] {case.name}_{name}")
        wires.append(f"    .{name}({case.name}_{name})")
    for name, bits in case.inputs.items():
        signals += [
            f"input logic {case.name}_{name}_valid_i",
            f"input logic [{bits - 1}:0] {case.name}_{name}_data_i",
        ]
        wires += [
            f"    .{name}_valid_i({case.name}_{name}_valid_i)",
            f"    .{name}_data_i({case.name}_{name}_data_i)",
        ]
        if case.credits:
            signals.append(f"output logic {case.name}_{name}_ready_o")
            wires.append(f"    .{name}_ready_o({case.name}_{name}_ready_o)")
    values = {**case.parameters, **({"Credits": case.credits} if case.credits else {})}
    constants = [f"  localparam {_declaration(case.name, key, value)};" for key, value in values.items()]
    texts = [f"    .{key}({case.name}_{key})" for key in values]
    head = "\n".join(constants) + f"\n  {module} #(\n" + ",\n".join(texts) + f"\n  ) u_{case.name} (\n"
    if case.ports:
        return signals, [head + ",\n".join(wires) + "\n  );"]
    signals += [f"output logic {case.name}_out_valid_o", f"output logic [{case.out_bits - 1}:0] {case.name}_out_data_o"]
    if not case.credits:
        wires += [f"    .out_valid_o({case.name}_out_valid_o)", f"    .out_data_o({case.name}_out_data_o)"]
        return signals, [head + ",\n".join(wires) + "\n  );"]
    signals.append(f"input logic {case.name}_out_ready_i")
    wires += [f"    .{name}({case.name}_{name})" for name in ("give_i", "out_valid", "out_data")]
    wires = [wire.replace(".out_valid(", ".out_valid_o(").replace(".out_data(", ".out_data_o(") for wire in wires]
    return signals, [
        f"  logic {case.name}_give_i, {case.name}_out_valid, {case.name}_room;",
        f"  logic [{case.out_bits - 1}:0] {case.name}_out_data;",
        head + ",\n".join(wires) + "\n  );",
        f"  qfx_fifo #(.Width({case.out_bits}), .Depth({case.credits})) u_{case.name}_fifo (",
        f"    .clk_i, .rst_ni, .in_valid_i({case.name}_out_valid), .in_ready_o({case.name}_room),",
        f"    .in_data_i({case.name}_out_data), .out_valid_o({case.name}_out_valid_o), .pop_o({case.name}_give_i),",
        f"    .out_ready_i({case.name}_out_ready_i), .out_data_o({case.name}_out_data_o)",
        "  );",
        # A source that overspends its credits would lose words: that must show.
        f"  always_ff @(posedge clk_i) assert (!rst_ni || !{case.name}_out_valid || {case.name}_room)",
        f'    else $error("{case.name}: the closing FIFO overflowed");',
    ]


def _declaration(case: str, key: str, value: int | str) -> str:
    kind, text = "int", str(value)
    if isinstance(value, Literal):
        bits, _, _ = value.partition("'")
        kind, text = f"logic [{int(bits) - 1}:0]", value
    elif isinstance(value, str):
        kind, text = "string", f'"{value}"'
    elif isinstance(value, Long):
        kind, text = "longint", f"{'-' if value < 0 else ''}64'sd{abs(value)}"
    return f"{kind} {case}_{key} /*verilator public*/ = {text}"


async def play(
    dut: Any,
    cases: Sequence[Case],
    inputs: Mapping[str, Mapping[str, Sequence[int]]],
    expected: Mapping[str, Sequence[int]],
    stall: float = 0.0,
) -> dict[str, list[int]]:
    """Reset, send the words of every input, check every output word, and return the cycle of each, by case.

    ``stall`` is the probability that a driver or a sink rests in a cycle. The cases run side by side. For pipe parts,
    which give one word for each that comes, return the cycles that each word took instead.
    """
    await ports.start(dut)
    feeds, expects, monitors = [], [], {}
    for case in cases:
        for name, words in inputs[case.name].items():
            port = (ports.stream if case.credits else ports.pipe)(dut, f"{case.name}_{name}")
            driver = stream.Source(port) if case.credits else stream.PipeDriver(port)
            feeds.append(Feed(driver, words, _stalls(stall)))
        if case.credits:
            sink = stream.Sink(ports.stream(dut, f"{case.name}_out"))
            expects.append(Expect(sink, expected[case.name], _stalls(stall)))
        else:
            monitors[case.name] = stream.PipeMonitor(ports.pipe(dut, f"{case.name}_out"))
    if not monitors:
        times = await exercise(feeds, expects)
        return {
            case.name: [time // ports.PERIOD_NS for time in found] for case, found in zip(cases, times, strict=True)
        }
    arrivals = {feed.driver.port.name: stream.PipeMonitor(feed.driver.port) for feed in feeds}
    senders = [cocotb.start_soon(feed.driver.send(feed.words, feed.stalls)) for feed in feeds]
    for sender in senders:
        await sender
    await ports.cycles(dut, 100)
    delays = {}
    for name, monitor in monitors.items():
        scoreboard.check(name, expected[name], monitor.words, monitor.times)
        pairs = zip(arrivals[f"{name}_in"].times, monitor.times, strict=True)
        delays[name] = [(left - came) // ports.PERIOD_NS for came, left in pairs]
    return delays


def _stalls(probability: float) -> Iterator[int] | None:
    return stalls.at_random(probability, random.randrange(1 << 30)) if probability else None


def frame_intervals(cycles: Sequence[int], frames: int) -> list[int]:
    """Return the cycles between the first words of successive frames, once the ring has settled (from the third on)."""
    starts = cycles[:: len(cycles) // frames]
    return [later - earlier for earlier, later in zip(starts[2:], starts[3:], strict=False)]
