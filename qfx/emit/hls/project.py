"""Writing the hls4ml project of a graph: configuration, conversion, the check of every type, the files."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

from qfx.arguments import as_path, require_kind
from qfx.emit import manifest
from qfx.emit.hls.check import check_model
from qfx.emit.hls.layers import LayerSpec, layer_specs, reuse_factor
from qfx.errors import EmitError
from qfx.files import atomic_folder
from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import Graph, require_graph, verify
from qfx.graph.ops import Input
from qfx.plan import Plan, require_plan

IoType = Literal["io_stream", "io_parallel"]
_PLAIN = (Rounding.TRN, Overflow.WRAP)
MAX_CONSUMERS = 7  # hls4ml copies a stream at most so many times


def hls(
    graph: Graph,
    plan: Plan | None,
    folder: Path | str,
    io_type: IoType = "io_stream",
    part: str | None = None,
) -> Path:
    """Write the hls4ml project of ``graph`` to ``folder`` and return it.

    Args:
        plan: gives the clock and each layer's unroll, hence its reuse factor; None: 250 MHz, everything unrolled.
        folder: replaced as a whole when the project is complete; left as it was on an error.
        part: of the device; None: the plan's board's, or without a plan the Ultra96's.
        io_type: "io_stream" (one word a pixel) or "io_parallel" (everything in one cycle: small graphs).

    Raises:
        EmitError: an op or a shape has no kernel, or hls4ml changed a type, a shape or a weight.
    """
    if io_type not in ("io_stream", "io_parallel"):
        raise EmitError(f"io_type must be 'io_stream' or 'io_parallel', not {io_type!r}")
    require_graph(graph, EmitError)
    verify(graph)
    if plan is not None:
        require_plan(plan, EmitError)
        plan.check(graph)
    clock_mhz = plan.clock_mhz if plan else 250.0
    require_kind(EmitError, "part", part, (str, type(None)), "the name of a device")
    part = part or (plan.part if plan else "xczu3eg-sbva484-1-i")
    _check_edges(graph, io_type)
    specs = layer_specs(graph)
    folder = as_path(EmitError, "folder", folder)
    with atomic_folder(folder, manifest.NAME, EmitError) as new:
        model = _convert(graph, plan, specs, new, io_type, part, clock_mhz)
        check_model(model, specs)
        with redirect_stdout(io.StringIO()):
            model.write()
        manifest.write(new, "hls", graph, **_facts(graph, io_type, part, clock_mhz))
    return folder


def top_name(graph: Graph) -> str:
    """Return the name of the top-level C++ function."""
    return "qfx_" + re.sub(r"[^A-Za-z0-9_]", "_", graph.name)


def precision(fixed: Fixed, modes: tuple[Rounding, Overflow] = (Rounding.TRN, Overflow.WRAP)) -> str:
    """Return hls4ml's spelling of a type: width and integer width, the sign included in both, and the modes."""
    integer = fixed.width - fixed.scalar_frac
    return f"{'' if fixed.signed else 'u'}fixed<{fixed.width},{integer},{modes[0].value},{modes[1].value}>"


def _check_edges(graph: Graph, io_type: IoType) -> None:
    if len(set(graph.outputs)) != len(graph.outputs):
        raise EmitError(f"each output must be named once, not {graph.outputs}")
    for node in graph.nodes:
        consumers = len(graph.consumers[node.name]) + (node.name in graph.outputs)
        if isinstance(node.op, Input) and node.name in graph.outputs:
            raise EmitError(f"an output must be computed, but {node.name!r} is the input")
        if io_type == "io_stream" and consumers > MAX_CONSUMERS:
            raise EmitError(
                f"node {node.name!r} must have at most {MAX_CONSUMERS} consumers in io_stream, not {consumers}"
            )
        if consumers == 0:
            raise EmitError(f"node {node.name!r} must be read by a node or be an output: run remove_dead first")


def _convert(
    graph: Graph, plan: Plan | None, specs: list[LayerSpec], folder: Path, io_type: IoType, part: str, clock_mhz: float
) -> Any:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # hls4ml's own, about packages that it could use
        import hls4ml

        import qfx_hls4ml

        qfx_hls4ml.require_registered()
        config = hls4ml.utils.config.create_config(
            output_dir=str(folder),
            project_name=top_name(graph),
            backend=qfx_hls4ml.BACKEND,
            io_type=io_type,
            part=part,
            clock_period=1000.0 / clock_mhz,
        )
        config["HLSConfig"] = _hls_config(plan, specs)
        names = {spec.node.name: spec.name for spec in specs}
        entries = []
        for record, spec in enumerate(specs):
            entry = dict(spec.entry)
            if not isinstance(spec.node.op, Input):
                entry |= {"qfx_record": record - 1, "qfx_node": spec.node.name}
            entries.append(entry)
        return hls4ml.model.ModelGraph.from_layer_list(
            config, entries, inputs=[names[graph.input.name]], outputs=[names[name] for name in graph.outputs]
        )


def _hls_config(plan: Plan | None, specs: list[LayerSpec]) -> dict[str, Any]:
    """Every type of every layer, so that hls4ml has nothing to infer."""
    layers = {}
    for spec in specs:
        reuse = reuse_factor(spec, plan.nodes[spec.node.name].unroll) if plan and spec.node.name in plan.nodes else 1
        types = {
            role: precision(fixed, spec.modes if role == "result" else _PLAIN) for role, fixed in spec.types.items()
        }
        layers[spec.name] = {
            "Precision": types,
            "ReuseFactor": reuse,
            "Strategy": "Latency" if reuse == 1 else "Resource",
        }
    # The default shows up wherever a type was forgotten; the check finds it there.
    model = {"Precision": {"default": "fixed<3,1>"}, "ReuseFactor": 1, "Strategy": "Latency", "BitExact": False}
    return {"Model": model, "LayerName": layers}


def _facts(graph: Graph, io_type: IoType, part: str, clock_mhz: float) -> dict[str, Any]:
    """What qfx.tools.csim and a user of the project need to know."""
    return {
        "top": top_name(graph),
        "io_type": io_type,
        "part": part,
        "clock_mhz": clock_mhz,
        "input": {
            "node": graph.input.name,
            "shape": list(graph.input.type.shape),
            "format": str(graph.input.type.fixed),
        },
        "outputs": list(graph.outputs),
        "record": [
            {"node": node.name, "shape": list(node.type.shape), "format": str(node.type.fixed)}
            for node in graph.nodes
            if not isinstance(node.op, Input)
        ],
    }
