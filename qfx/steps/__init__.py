"""The steps of a build, each a function of a design: emit, run a tool, compare, record.

Each takes up what the earlier ones left in the build folder and does nothing where its result is up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qfx.arguments import as_path
from qfx.design import Design
from qfx.errors import DesignError, MismatchError
from qfx.steps.engine import Build, Progress, Result, Step, silent
from qfx.steps.hardware import HLS, PLAN_STEP, RTL, SIM, SYNTH
from qfx.steps.reporting import REPORT
from qfx.steps.training import LOWER, TRAIN

STEPS: tuple[Step, ...] = (TRAIN, LOWER, PLAN_STEP, HLS, RTL, SIM, SYNTH, REPORT)
"""All steps in the order of a build."""


def train(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Train the design's network in float and in fixed point.

    Args of this and of every other step:
        design: the folder, or the name of a shipped design.
        out: where results go, by default ``build`` in the design folder.
        force: run it though it is up to date.
        progress: told how much is done (0 to 1), and what is being done.

    Returns:
        the step's record; its figures are those of ``result.json``.

    Raises:
        QfxError: what is wrong, in a sentence; earlier results are as they were.
    """
    return open_build(design, out).run("train", progress, force)


def lower(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Make the integer graph and golden vectors; show that the interpreter gives the integers of torch."""
    return open_build(design, out).run("lower", progress, force)


def plan(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Choose parallelism, memories and FIFO depths for the board and the target."""
    return open_build(design, out).run("plan", progress, force)


def hls(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Write the hls4ml project, build its csim and compare every node with the golden vectors."""
    return open_build(design, out).run("hls", progress, force)


def rtl(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Write the SystemVerilog of the design."""
    return open_build(design, out).run("rtl", progress, force)


def sim(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Simulate the RTL with Verilator and cocotb, with and without stalls, and compare with the golden vectors."""
    return open_build(design, out).run("sim", progress, force)


def synth(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Count what the parts of the design take, with yosys, against the board's budget."""
    return open_build(design, out).run("synth", progress, force)


def report(
    design: Design | Path | str, out: Path | None = None, force: bool = False, progress: Progress = silent
) -> Result:
    """Write the HTML report of whatever the other steps left."""
    return open_build(design, out).run("report", progress, force)


def build(
    design: Design | Path | str,
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[str], Progress] = lambda step: silent,
    done: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run every step that is not up to date and return all results.

    Args:
        progress: gives each step, by its name, someone to tell how far it is.
        done: told each result as soon as it is there.

    Raises:
        MismatchError: engines gave different integers; the report is written before, and names the first wrong node.
    """
    return run_all(open_build(design, out), force, progress, done)


def run_all(
    work: Build,
    force: bool = False,
    progress: Callable[[str], Progress] = lambda step: silent,
    done: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run the steps of ``work`` in their order, as `build` does."""
    results = []
    for name in work.steps:
        try:
            results.append(work.run(name, progress(name), force))
        except MismatchError:
            if "report" in work.steps:
                done(work.run("report"))
            raise
        done(results[-1])
    return results


def open_build(design: Design | Path | str, out: Path | None = None) -> Build:
    """Return the build of a design in its folder, or in ``out``."""
    folder = None if out is None else as_path(DesignError, "out", out)
    return Build(design if isinstance(design, Design) else Design.load(design), STEPS, folder)
