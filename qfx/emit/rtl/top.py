"""The generated top module: one instance for each part of the network, joined by named wires."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qfx.graph import Graph
from qfx.plan.dataflow import Network, Part, Stream
from qfx.plan.parts import Literal

_BITS = re.compile(r".*Signed|PerChannel|Blocks")  # parameters of type bit
_LONG = ("Low", "High")  # of type longint


def module_name(graph: Graph, taken: Iterable[str]) -> str:
    """Return a legal module name for the graph that is none of ``taken``."""
    name = re.sub(r"\W+", "_", graph.name, flags=re.ASCII).strip("_").lower() or "design"
    name = f"net_{name}" if name[0].isdigit() else name
    return f"{name}_net" if name in set(taken) or name in KEYWORDS else name


KEYWORDS = frozenset(
    """
    and assert assign begin bit buf case class cover default design do edge else end enum event final for force
    forever fork function generate genvar global if import in initial inout input int interface join local logic
    longint module nand new nor not null or output package packed parameter priority program property pure rand
    real reg release repeat return sequence shortint signed small soft static string struct super table task
    this time tri type union unique unsigned var vectored virtual void wait wand weak while wire with wor xnor
    xor
    """.split()
)


def top_text(graph: Graph, network: Network, name: str, note: str) -> str:
    """Return the SystemVerilog of the design's top module."""
    return "\n".join(
        [
            f"// The network {graph.name!r} as a dataflow of parts; written by qfx, do not edit.",
            *(f"// {line}" for line in note.splitlines()),
            f"module {name} (",
            *_ports(graph, network),
            ");",
            "",
            *_wires(network),
            "",
            *(line for part in network.parts for line in _instance(graph, network, part)),
            *_output_wires(network),
            "",
            "endmodule",
            "",
        ]
    )


def output_ports(network: Network) -> list[str]:
    """The names of the output streams' ports: ``out``, or ``out0``, ``out1``, ... where there are several."""
    count = len(network.outputs)
    return ["out"] if count == 1 else [f"out{number}" for number in range(count)]


def _ports(graph: Graph, network: Network) -> list[str]:
    lines = ["  input  logic clk_i,", "  input  logic rst_ni,"]
    entry = network.input
    lines += [
        f"  // {entry.node}: {graph.by_name[entry.node].type}, {entry.lanes} lanes",
        "  input  logic in_valid_i,",
        "  output logic in_ready_o,",
        f"  input  logic [{entry.width - 1}:0] in_data_i,",
    ]
    for name, result, stream in zip(output_ports(network), graph.outputs, network.outputs, strict=True):
        lines += [
            f"  // {result}: {graph.by_name[result].type}, {stream.lanes} lanes",
            f"  output logic {name}_valid_o,",
            f"  input  logic {name}_ready_i,",
            f"  output logic [{stream.width - 1}:0] {name}_data_o,",
        ]
    lines[-1] = lines[-1].removesuffix(",")
    return lines


def _wires(network: Network) -> list[str]:
    lines = []
    for part in network.parts:
        for stream in part.outputs:
            ready = "" if stream.pipe else f", {stream.name}_ready"
            lines += [f"  logic {stream.name}_valid{ready};", f"  logic [{stream.width - 1}:0] {stream.name}_data;"]
        if part.module == "qfx_fifo":
            used = "" if part.closes else "_unused"
            lines.append(f"  logic {part.name}_pop{used};")
            if part.closes:
                lines.append(f"  logic {part.name}_in_ready_unused; // a credit stands for each place")
    return lines


def _instance(graph: Graph, network: Network, part: Part) -> list[str]:
    parameters = [f"    .{key}({_literal(key, value)})" for key, value in part.parameters.items()]
    connections = ["    .clk_i(clk_i)", "    .rst_ni(rst_ni)"]
    for port, stream in part.inputs.items():
        connections += _input(part, port, stream)
    connections += _outputs(part)
    if part.module == "qfx_fifo":
        connections.append(f"    .pop_o({part.name}_pop{'' if part.closes else '_unused'})")
    fifo = next((other.name for other in network.parts if other.closes == part.name), "")
    if fifo:
        connections.append(f"    .give_i({fifo}_pop)")
    node = graph.by_name[part.node]
    role = f"{type(node.op).__name__}, {node.type}" if part.computes else "result of"
    return [
        f"  // {part.node} ({role})" if part.computes else f"  // {role} {part.node}",
        f"  {part.module} #(",
        ",\n".join(parameters),
        f"  ) u_{part.name} (",
        ",\n".join(connections),
        "  );",
        "",
    ]


def _input(part: Part, port: str, stream: Stream) -> list[str]:
    valid, ready, data = _nets(stream)
    if port == "offset":
        data = _fitted(data, stream.width, (int(part.parameters["MaxDilation"])).bit_length())
    lines = [f"    .{port}_valid_i({valid})"]
    if part.closes:
        lines.append(f"    .{port}_ready_o({part.name}_in_ready_unused)")
    elif not stream.pipe:
        lines.append(f"    .{port}_ready_o({ready})")
    return [*lines, f"    .{port}_data_i({data})"]


def _outputs(part: Part) -> list[str]:
    def joined(suffix: str) -> str:
        names = [f"{stream.name}_{suffix}" for stream in reversed(part.outputs)]
        return names[0] if part.module != "qfx_fork" else "{" + ", ".join(names) + "}"

    lines = [f"    .out_valid_o({joined('valid')})"]
    if not part.outputs[0].pipe:
        lines.append(f"    .out_ready_i({joined('ready')})")
    return [*lines, f"    .out_data_o({joined('data')})"]


def _nets(stream: Stream) -> tuple[str, str, str]:
    if stream.name == "in":
        return "in_valid_i", "in_ready_o", "in_data_i"
    return f"{stream.name}_valid", f"{stream.name}_ready", f"{stream.name}_data"


def _fitted(data: str, width: int, wanted: int) -> str:
    """An unsigned word in another width; the bits left out are 0 by the graph's proof."""
    return data if width == wanted else f"{wanted}'({data})"


def _output_wires(network: Network) -> list[str]:
    lines = []
    for name, stream in zip(output_ports(network), network.outputs, strict=True):
        lines += [
            f"  assign {name}_valid_o = {stream.name}_valid;",
            f"  assign {name}_data_o = {stream.name}_data;",
            f"  assign {stream.name}_ready = {name}_ready_i;",
        ]
    return lines


def _literal(name: str, value: int | str) -> str:
    if isinstance(value, Literal):
        return value
    if isinstance(value, str):
        return f'"{value}"'
    if _BITS.fullmatch(name):
        return f"1'b{value}"
    if name in _LONG:
        return f"-64'sd{-value}" if value < 0 else f"64'sd{value}"
    return str(value)
