"""What a plan says: parallelism, arithmetic, memories and FIFO depths for one graph on one board, and its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qfx.arguments import require_kind
from qfx.errors import PlanError, QfxError
from qfx.files import write_text
from qfx.graph import Graph, fingerprint

VERSION = 1  # of the file format
AXES = ("row", "col", "co", "ci", "ky", "kx")
ARITHMETIC = ("none", "dsp", "lut", "khot")
MEMORY = ("none", "auto", "block", "distributed")


@dataclass(frozen=True, slots=True)
class Resources:
    """Counts of what an FPGA has; block RAM in halves of 36 Kbit, as RAMB18."""

    lut: int = 0
    ff: int = 0
    bram18: int = 0
    dsp: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.lut + other.lut, self.ff + other.ff, self.bram18 + other.bram18, self.dsp + other.dsp)


@dataclass(frozen=True)
class NodePlan:
    """How one node of the graph is built.

    ``unroll`` gives, for each named loop axis, how many iterations run in one cycle; unrolls that do not divide their
    extent are legal and leave lanes idle. ``cycles`` is the part's own time for one frame.
    """

    unroll: Mapping[str, int]
    arithmetic: str = "none"
    memory: str = "none"
    cycles: int = 0
    resources: Resources = Resources()

    def __post_init__(self) -> None:
        if tuple(self.unroll) != AXES or any(type(n) is not int or n < 1 for n in self.unroll.values()):
            raise PlanError(f"unroll must give each of {', '.join(AXES)} as at least 1, not {dict(self.unroll)}")
        if self.arithmetic not in ARITHMETIC:
            raise PlanError(f"arithmetic must be one of {', '.join(ARITHMETIC)}, not {self.arithmetic!r}")
        if self.memory not in MEMORY:
            raise PlanError(f"memory must be one of {', '.join(MEMORY)}, not {self.memory!r}")

    @property
    def in_lanes(self) -> int:
        """Channels in one word of the stream that the node reads."""
        return self.unroll["ci"]

    @property
    def out_lanes(self) -> int:
        """Channels in one word of the stream that the node makes."""
        return self.unroll["co"]


def unroll(**axes: int) -> dict[str, int]:
    """Return an unroll of every axis: the named ones as given, 1 elsewhere."""
    return {axis: axes.get(axis, 1) for axis in AXES}


@dataclass(frozen=True)
class Plan:
    """How a graph is built on a board, and the rate that follows.

    ``depths`` holds the words of each FIFO, by the name that ``qfx.plan.dataflow`` gives it. ``interval`` is the number
    of cycles between output frames in steady state, source always valid, sink always ready; ``latency`` runs from the
    first input word to the last output word of the first frame. Both come from the event model and are exact.
    """

    graph: str
    fingerprint: str
    board: str
    part: str  # the device, as its vendor names it
    clock_mhz: float
    nodes: Mapping[str, NodePlan]
    depths: Mapping[str, int]
    interval: int
    latency: int
    others: Resources  # what no node owns: FIFOs, forks, adapters
    budget: Resources

    @property
    def frames_per_second(self) -> float:
        """The frame rate at the plan's clock."""
        return self.clock_mhz * 1e6 / self.interval

    @property
    def resources(self) -> Resources:
        """The estimate for the whole design."""
        return sum((node.resources for node in self.nodes.values()), self.others)

    @property
    def bottleneck(self) -> str:
        """The node that takes the most cycles a frame."""
        return max(self.nodes, key=lambda name: self.nodes[name].cycles)

    def lanes(self, producer: str) -> int:
        """Return the lanes of the stream that a node makes."""
        return self.nodes[producer].out_lanes

    def check(self, graph: Graph) -> None:
        """Raise PlanError if the plan was not made for exactly this graph."""
        if fingerprint(graph) != self.fingerprint:
            raise PlanError(
                f"the plan must belong to the graph {graph.name!r}, but was made for another version of "
                f"{self.graph!r}: plan again"
            )

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = {"format": "qfx-plan", "version": VERSION, **asdict(self)}
        write_text(path, json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, graph: Graph | None = None) -> Plan:
        """Read a plan and check it, against ``graph`` too if given."""
        plan = _from_json(path, _read(path))
        if graph is not None:
            plan.check(graph)
        return plan


class NoFitError(PlanError):
    """A plan needs more than the board has; ``plan`` is that plan."""

    def __init__(self, sentence: str, plan: Plan) -> None:
        super().__init__(sentence)
        self.plan = plan


def require_plan(made: Plan, error: type[QfxError]) -> None:
    """Raise ``error`` unless ``made`` is a Plan."""
    require_kind(error, "plan", made, Plan, "a Plan, such as qfx.plan.plan(graph, board) gives")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path} must be a readable file, but {error.strerror}: plan first") from error
    except ValueError as error:
        raise PlanError(f"{path} must be whole JSON, but {error}: plan again") from error
    if not isinstance(content, dict) or content.pop("format", None) != "qfx-plan":
        raise PlanError(f"{path} must be a qfx plan ('format': 'qfx-plan'), but is something else")
    if content.get("version") != VERSION:
        raise PlanError(f"{path} must have version {VERSION}, not {content.get('version')!r}: plan again")
    if content.pop("sha256", None) != _digest({"format": "qfx-plan", **content}):
        raise PlanError(f"{path} must be as qfx wrote it, but it was edited: plan again")
    del content["version"]
    return content


def _from_json(path: Path, content: dict[str, Any]) -> Plan:
    try:
        nodes = {
            name: NodePlan(**{**entry, "resources": Resources(**entry["resources"])})
            for name, entry in content["nodes"].items()
        }
        resources = {key: Resources(**content[key]) for key in ("others", "budget")}
        return Plan(**{**content, "nodes": nodes, **resources})
    except (KeyError, TypeError) as error:
        raise PlanError(f"{path} must be a whole qfx plan, but {type(error).__name__}: {error}: plan again") from error


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
