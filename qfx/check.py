"""check: what qfx would make of a network, found without training it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from qfx import yamlfile
from qfx.arguments import counted, require_clock, require_cycles
from qfx.boards import Board
from qfx.errors import DesignError, LowerError, PlanError, UsageError
from qfx.fixed import Fixed, require_input_format
from qfx.graph import Graph
from qfx.plan import NoFitError, plan
from qfx.steps.facts import RESOURCES, graph_facts, plan_facts


@dataclass(frozen=True)
class Found:
    """What a check found; the later fields are None where a problem kept it from getting there."""

    network: str
    input: str
    board: str
    problems: tuple[str, ...]  # everything that blocks the network, each a sentence
    graph: Mapping[str, Any] | None  # `facts.graph_facts`
    plan: Mapping[str, Any] | None  # `facts.plan_facts`
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the network can become hardware on the board."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The fields, and ``ok``."""
        return {"ok": self.ok, **asdict(self)}


def check(
    network: str,
    input_shape: str,
    board: str = "ultra96v2",
    input_format: str = "u8.0",
    recipe: Path | None = None,
    cycles: int | None = None,
    clock_mhz: float | None = None,
) -> Found:
    """Convert, calibrate on random inputs, lower and plan a network, and say what came of it.

    Args:
        network: ``pkg.mod:Net`` or ``path/model.py:Net``.
        input_shape: of one input, channels first, such as ``3x32x32``, ``1x64`` or ``64``.
        recipe: a YAML file; without one, 8 bits everywhere.

    Raises:
        UsageError: shape, format, cycles or clock are none; the sentence names the option of the command.
        QfxError: there is no such network, recipe or board.
    """
    start = time.monotonic()
    require_cycles(UsageError, "--cycles", cycles)
    require_clock(UsageError, "--clock", clock_mhz)
    shape, fixed, onto = _shape(input_shape), _format(input_format), Board.load(board)
    problems: list[str] = []
    graph = _lowered(network, shape, fixed, recipe, problems)
    planned: dict[str, Any] | None = None
    if graph is not None:
        try:
            made = plan(graph, onto, cycles, clock_mhz, estimate_rate=True)
            planned = plan_facts(made, onto)
            if cycles is not None and made.interval > cycles:
                problems.append(f"a frame must take at most {counted(cycles, 'cycle')}, but takes {made.interval:,}")
        except NoFitError as error:
            planned = plan_facts(error.plan, onto)
            problems.append(str(error))
        except PlanError as error:
            problems += _sentences(str(error))
    facts = None if graph is None else graph_facts(graph)
    seconds = round(time.monotonic() - start, 2)
    return Found(network, f"{input_shape} {fixed}", onto.name, tuple(problems), facts, planned, seconds)


def _lowered(
    network: str, shape: tuple[int, ...], fixed: Fixed, recipe: Path | None, problems: list[str]
) -> Graph | None:
    """Return the network's graph, or None and add what is in its way."""
    from qfx.graph.lower import lower
    from qfx.nn.recipe import placed
    from qfx.train.probe import find_network, untrained

    try:
        with _enough_memory(network, shape), placed(recipe):
            model = find_network(network)
            converted, example = untrained(model, shape, fixed, yamlfile.read(recipe) if recipe else {})
            return lower(converted, example, name=type(model).__name__)
    except LowerError as error:
        problems += _sentences(str(error))
    except RuntimeError as error:  # torch's own words for shapes that do not fit
        problems.append(f"the network must take an input of shape {'x'.join(map(str, shape))}, but torch says: {error}")
    return None


@contextmanager
def _enough_memory(network: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Say in a sentence that memory was short in the block, however deep and in whose words."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError) or "allocate memory" in str(cause):
                name, size = network.rpartition(":")[2], "x".join(map(str, shape))
                raise DesignError(
                    f"memory must hold {name} and an input of {size}, but is short: check a smaller one, or where "
                    "there is more memory"
                ) from error
            cause = cause.__cause__
        raise


def _sentences(text: str) -> list[str]:
    """The single problems in an error that lists several below its first line."""
    first, *others = text.splitlines()
    return [line.strip(" -") for line in others if line.strip()] or [first]


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", text):
        raise UsageError(
            "--input must be channels x height x width such as 3x32x32, channels x length such as 1x64, or features, "
            f"not {text!r}"
        )
    return tuple(int(size) for size in text.split("x"))


def _format(text: str) -> Fixed:
    try:
        return Fixed.parse(require_input_format(text))
    except ValueError as error:
        raise UsageError(f"--format {error}, not {text!r}") from None


def table(found: Found, console: Console) -> None:
    """Print what was found for people."""
    if found.graph:
        console.print(_nodes(found))
        console.print(
            f"{found.network}, {found.input}: {found.graph['macs']:,} MACs, {found.graph['parameters']:,} parameters, "
            f"{found.graph['weight_bits'] / 8192:,.1f} KiB of constants"
        )
    if found.plan:
        console.print(_fit(found.plan))
        console.print(
            f"{counted(found.plan['interval'], 'cycle')} a frame: {found.plan['frames_per_second']:,.0f} frames/s at "
            f"{found.plan['clock_mhz']:g} MHz; {found.plan['bottleneck']} sets the rate"
        )
    for problem in found.problems:
        console.print("blocked:", style="bold red", end=" ")
        console.print(problem, markup=False)
    verdict = f"fits {found.board}" if found.ok else "blocked"
    console.print(f"check  {verdict} [{found.seconds:.1f} s]", markup=False)


def _nodes(found: Found) -> Table:
    assert found.graph is not None  # asked by the caller
    shown = Table("node", "operation", "result", "format", "constants", "MACs", "cycles", box=box.SIMPLE_HEAD)
    shown.columns[0].overflow = "fold"
    for column in shown.columns[-2:]:
        column.justify = "right"
    cycles = {name: node["cycles"] for name, node in found.plan["nodes"].items()} if found.plan else {}
    for node in found.graph["nodes"]:
        constants = ", ".join(
            constant["format"] + (f" {constant['digits']}-hot" if constant["digits"] else "")
            for constant in node["constants"]
        )
        shown.add_row(
            node["name"],
            node["op"],
            "x".join(map(str, node["shape"])),
            node["format"],
            constants,
            f"{node['macs']:,}" if node["macs"] else "",
            f"{cycles[node['name']]:,}" if cycles.get(node["name"]) else "",
        )
    return shown


def _fit(planned: Mapping[str, Any]) -> Table:
    shown = Table("resource", "estimate", "budget", "share", box=box.SIMPLE_HEAD)
    for column in shown.columns[1:]:
        column.justify = "right"
    for key, name in RESOURCES:
        count, limit = planned["resources"][key], planned["board"]["budget"][key]
        shown.add_row(name, f"{count:,}", f"{limit:,}", f"{100 * count / limit:.1f} %" if limit else "")
    return shown
