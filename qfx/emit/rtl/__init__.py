"""RTL: a SystemVerilog design from a graph and its plan, its memories, and scripts for the vendor's tools."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qfx import resources
from qfx.arguments import as_path
from qfx.emit import manifest
from qfx.emit.rtl import scripts
from qfx.emit.rtl.axi import TDATA_WIDTHS, axi_text, can_have_shell, shell_text
from qfx.emit.rtl.memories import memory_files
from qfx.emit.rtl.top import module_name, output_ports, top_text
from qfx.errors import EmitError
from qfx.files import atomic_folder
from qfx.graph import Graph, require_graph
from qfx.plan import Plan, require_plan
from qfx.plan.dataflow import Network, Part, Stream, network

KIND = "rtl"


def rtl(graph: Graph, plan: Plan, folder: Path | str, tdata: int = 64) -> Path:
    """Write the design as RTL into ``folder`` and return it.

    The folder holds ``<name>.sv`` (the core of streams), the .mem files of its ROMs beside it, a copy of each module
    of `rtl/` that it uses, and ``manifest.json`` with what a bench or a driver needs to know: ports, formats, lanes,
    predicted cycles. Where the shell fits (one output, elements of at most 32 bits) there are also ``<name>_shell.sv``,
    ``<name>_axi.v`` for block designs with ``tdata`` bits a beat, and the Tcl that packages it.
    """
    if tdata not in TDATA_WIDTHS:
        raise EmitError(f"tdata must be one of {', '.join(map(str, TDATA_WIDTHS))}, not {tdata}")
    require_graph(graph, EmitError)
    require_plan(plan, EmitError)
    plan.check(graph)
    net = network(graph, plan.nodes, plan.depths)
    shell = can_have_shell(net)
    modules = used_modules(net, ("qfx_shell",) if shell else ())
    name = module_name(graph, (path.stem for path in modules))
    folder = as_path(EmitError, "folder", folder)
    with atomic_folder(folder, manifest.NAME, EmitError) as new:
        for file, text in memory_files(graph, net).items():
            (new / file).write_text(text, encoding="utf-8")
        for path in modules:
            shutil.copyfile(path, new / path.name)
        note = f"{plan.board}, {plan.clock_mhz:g} MHz: a frame every {plan.interval} cycles, latency {plan.latency}."
        core = [*(path.name for path in used_modules(net)), f"{name}.sv"]
        texts = {f"{name}.sv": top_text(graph, net, name, note)}
        texts[scripts.CLOCK] = scripts.clock_text(plan.clock_mhz)
        texts[scripts.SYNTH] = scripts.synth_text(name, plan.part, core)
        axi = [*(path.name for path in modules), f"{name}.sv", f"{name}_shell.sv", f"{name}_axi.v"] if shell else []
        if shell:
            texts[f"{name}_shell.sv"] = shell_text(graph, net, name, tdata)
            texts[f"{name}_axi.v"] = axi_text(name, tdata)
            texts[scripts.PACKAGE] = scripts.package_text(name, plan.part, axi)
        for file, text in texts.items():
            (new / file).write_text(text, encoding="utf-8")
        manifest.write(new, KIND, graph, **_facts(graph, plan, net, name), sources=core, axi_sources=axi, tdata=tdata)
    return folder


def parts(graph: Graph, plan: Plan) -> tuple[Part, ...]:
    """Return every instance of the design: module, parameters, and ``memories`` naming its .mem files.

    What `qfx synth` synthesises one by one; instances with equal module and parameters but for the names of the
    memories cost the same.
    """
    plan.check(graph)
    return network(graph, plan.nodes, plan.depths).parts


def used_modules(net: Network, others: Sequence[str] = ()) -> list[Path]:
    """Return the files of `rtl/` that a network and ``others`` need, those below its parts included."""
    library = {path.stem: path for path in resources.path("rtl").glob("*.sv")}
    waiting = [*(part.module for part in net.parts), *others]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = library[name]
            text = found[name].read_text(encoding="utf-8")
            waiting += [other for other in library if f"{other} #(" in text or f"{other} u_" in text]
    return [found[name] for name in sorted(found)]


def _facts(graph: Graph, plan: Plan, net: Network, name: str) -> dict[str, Any]:
    ports = {
        port: _stream(graph, result, s)
        for port, result, s in zip(output_ports(net), graph.outputs, net.outputs, strict=True)
    }
    return {
        "top": name,
        "board": plan.board,
        "clock_mhz": plan.clock_mhz,
        "interval": plan.interval,
        "latency": plan.latency,
        "input": _stream(graph, net.input.node, net.input),
        "outputs": ports,
        "nodes": {node: _stream(graph, node, stream) for node, stream in net.results().items()},
    }


def _stream(graph: Graph, node: str, stream: Stream) -> dict[str, Any]:
    kind = graph.by_name[node].type
    return {
        "node": node,
        "wire": stream.name,
        "shape": list(kind.shape),
        "format": str(kind.fixed),
        "lanes": stream.lanes,
        "channels": graph.by_name[stream.node].type.channels,
        "words": stream.words,
        "pipe": stream.pipe,
    }
