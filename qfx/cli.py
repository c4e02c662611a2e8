"""The command line: every step of a build, and what stands around it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from qfx.errors import MismatchError, QfxError, UsageError
from qfx.steps import engine

app = typer.Typer(
    name="qfx",
    help="From a PyTorch network to a small FPGA in fixed point, without losing a bit on the way.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_WIDE = 160  # columns of tables that no terminal shows
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_WRONG_USAGE, _INTERRUPTED = 2, 130

DesignArgument = Annotated[str, typer.Argument(metavar="DESIGN", help="A design folder, or the name of a shipped one.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Where results go (default: build in the design folder).")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run it though its result is up to date.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_NETWORK = "Such as pkg.mod:Net or path/model.py:Net: a module, or what makes one when called without arguments."
_FORMAT = "Format of an input code: u8.0 is unsigned, 8 bits, 0 of them fractional; s8.7 is signed, 7 fractional."
_RECIPE = (
    "YAML file of formats (default: 8 bits), such as `default: {weight: 4, activation: u4.2}`; see docs/training.md."
)


def main() -> None:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return the exit code; a user's mistake is one sentence on stderr."""
    try:
        code = app(arguments, prog_name="qfx", standalone_mode=False)
        if code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (QfxError, KeyboardInterrupt, typer.Abort) as error:
        return _told(error)
    except Exception as error:
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise  # a defect of ours
        error.show()  # wrong usage: typer's own exceptions, whose base class is not public
        return int(error.exit_code)


def _told(error: BaseException) -> int:
    """Say what the user must know of an error, and return the exit code."""
    if isinstance(error, QfxError):
        _complain(str(error))
        return _WRONG_USAGE if isinstance(error, UsageError) else 1
    _complain("interrupted; finished results are whole, the same command carries on")
    return _INTERRUPTED


def _leave(error: BaseException) -> None:
    """End the process at once, as the error would have ended it."""
    _err.show_cursor()  # which a progress bar hides
    os._exit(_told(error))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(sentence: str) -> None:
    _err.print("error:", style="bold red", end=" ")
    _err.print(sentence, markup=False)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            _out.print(f"qfx {metadata.version('qfx')}")
        except metadata.PackageNotFoundError:
            _out.print("qfx, not installed: run from its sources")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """From a PyTorch network to a small FPGA in fixed point, without losing a bit on the way."""


# Around the steps -------------------------------------------------------------------------------------------------


@app.command()
def new(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A name, or a path in a folder that is there. The design is called like its last part: small letters, "
            "digits and underscores.",
        ),
    ],
) -> None:
    """Make a small design folder that works, to start from."""
    from qfx.design import create

    create(folder)
    _out.print(f"new    {folder} with design.yaml, model.py and README.md", markup=False)
    _out.print(f"next: {shlex.join(['qfx', 'build', str(folder)])}", markup=False)


@app.command()
def check(
    network: Annotated[str, typer.Argument(metavar="MODULE:NAME", help=_NETWORK)],
    input_shape: Annotated[str, typer.Option("--input", help="Channels first: 3x32x32, 1x64, or features: 64.")],
    board: Annotated[str, typer.Option(help="A board's name, or its YAML file.")] = "ultra96v2",
    input_format: Annotated[str, typer.Option("--format", help=_FORMAT)] = "u8.0",
    recipe: Annotated[Path | None, typer.Option(help=_RECIPE)] = None,
    cycles: Annotated[int | None, typer.Option(help="The most cycles a frame may take.")] = None,
    clock: Annotated[float | None, typer.Option(help="The clock in MHz (default: the board's).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say, without training, what blocks a network, its formats and work, and how it fits the board."""
    from qfx.check import check as check_network
    from qfx.check import table

    found = check_network(network, input_shape, board, input_format, recipe, cycles, clock)
    if as_json:
        _out.print_json(json.dumps(found.to_json()))
    else:
        table(found, _out)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say which tools are here, in which version, and what to do about the others."""
    from qfx import doctor

    if code := doctor.run(as_json):
        raise typer.Exit(code)


# Steps ------------------------------------------------------------------------------------------------------------


def _step_command(name: str, text: str) -> None:
    """Add the command of one step."""

    def command(design: DesignArgument, out: OutOption = None, force: ForceOption = False) -> None:
        _run_step(name, design, out, force)

    app.command(name, help=text)(command)


@app.command()
def train(
    design: DesignArgument,
    out: OutOption = None,
    force: ForceOption = False,
    ranks: Annotated[int | None, typer.Option(help="Processes on this machine that share each batch out.")] = None,
) -> None:
    """Train the network in float and in fixed point."""
    from qfx import steps

    started = int(os.environ.get("WORLD_SIZE", "1"))
    _require_ranks(ranks, started)
    work = steps.open_build(design, out)
    if started == 1 and ((ranks or 1) == 1 or (not force and work.is_current("train"))):
        _run_step("train", design, out, force)
        return
    from qfx.train.launch import launched
    from qfx.train.team import joined

    with launched(work.design, ranks, _leave) if ranks else nullcontext(), joined(work.design) as leads:
        if leads:
            _run_step("train", design, out, force)


def _require_ranks(ranks: int | None, started: int) -> None:
    if ranks is not None and ranks < 1:
        raise UsageError(f"--ranks must be at least 1, not {ranks}")
    if ranks is not None and started > 1:
        raise UsageError(f"--ranks must be left out under torchrun, which has started {started} ranks")


for _name, _text in (
    ("lower", "Make the integer graph, and compare the interpreter with torch on the test images."),
    ("plan", "Choose parallelism, memories and FIFO depths for the board."),
    ("hls", "Write the hls4ml project and compare its csim with the golden vectors."),
    ("rtl", "Write the SystemVerilog."),
    ("sim", "Simulate the RTL with Verilator and cocotb and compare with the golden vectors."),
):
    _step_command(_name, _text)


@app.command()
def synth(
    design: DesignArgument,
    tool: Annotated[str, typer.Option(help="The synthesis tool: yosys.")] = "yosys",
    out: OutOption = None,
    force: ForceOption = False,
) -> None:
    """Count what every part takes, against the board's budget."""
    if tool != "yosys":
        raise UsageError(f"--tool must be yosys, not {tool!r}")
    result = _run_step("synth", design, out, force)
    table = Table("resource", "yosys", "estimate", "budget", "share", box=box.SIMPLE_HEAD)
    for key, count in result.figures["total"].items():
        limit = result.figures["budget"][key]
        share = f"{100 * count / limit:.1f} %" if limit else ""
        table.add_row(key, f"{count:,}", f"{result.figures['estimate'][key]:,}", f"{limit:,}", share)
    _out.print(table)


_step_command("report", "Write the HTML report of what the other steps left.")


@app.command()
def build(design: DesignArgument, out: OutOption = None, force: ForceOption = False) -> None:
    """Run every step that is not up to date, from training to the report."""
    from qfx import steps

    work = steps.open_build(design, out)
    work.told = _warn
    with _progress() as show:
        try:
            steps.run_all(work, force, show, lambda result: _print_result(work, result))
        except MismatchError as error:
            raise MismatchError(f"{error}; see {_report_page(work)}") from error
    _out.print(f"report: {_report_page(work)}", markup=False)


def _report_page(work: engine.Build) -> Path:
    return work.folder / "report" / "report.html"


def _run_step(name: str, design: str, out: Path | None, force: bool) -> engine.Result:
    """Run one step, print its line and the next command."""
    from qfx import steps

    work = steps.open_build(design, out)
    work.told = _warn
    for stale, why in work.stale(name).items():
        _warn(f"the result of {stale} is {why}; it is taken up as it is: `{work.command(stale)}` renews it")
    with _progress() as show:
        result = work.run(name, show(name), force)
    _print_result(work, result)
    names = list(work.steps)
    if name != names[-1]:
        _out.print(f"next: {work.command(names[names.index(name) + 1])}", markup=False)
    else:
        _out.print(f"report: {_report_page(work)}", markup=False)
    return result


def _print_result(work: engine.Build, result: engine.Result) -> None:
    """Print the step's line, any below it, and the warnings of one that is up to date; others were said already."""
    time = "up to date" if result.skipped else f"{result.seconds:.1f} s"
    _out.print(f"{result.step:6}", style="bold green", end=" ")
    said, *below = work.steps[result.step].summary(result.figures).splitlines()
    _out.print(f"{said} [{time}]", markup=False)
    for line in below:
        _out.print(f"{'':6} {line}", markup=False)
    for warning in result.warnings if result.skipped else ():
        _warn(warning)


def _warn(sentence: str) -> None:
    _err.print("warning:", style="bold yellow", end=" ")
    _err.print(sentence, markup=False)


@contextmanager
def _progress() -> Iterator[Callable[[str], engine.Progress]]:
    """Show one bar with an estimate of the time that is left, for one step after the other."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[step]:6}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=_err, transient=True) as bar:

        def show(step: str) -> engine.Progress:
            for task in bar.task_ids:
                bar.remove_task(task)
            task = bar.add_task("", total=1.0, step=step)
            return lambda done, doing: bar.update(task, completed=done, description=doing)

        yield show
