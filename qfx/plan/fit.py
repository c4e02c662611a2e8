"""The planner: the cheapest plan that meets a number of cycles within a budget, and the fastest that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from qfx.arguments import counted, require_clock, require_cycles, require_kind
from qfx.boards import Board
from qfx.errors import PlanError
from qfx.graph import Graph, fingerprint, require_graph
from qfx.plan.cost import estimate
from qfx.plan.data import NodePlan, NoFitError, Plan, Resources
from qfx.plan.dataflow import network
from qfx.plan.depths import size_fifos
from qfx.plan.limits import RESOURCES, available, excess
from qfx.plan.pacing import paced_fifos
from qfx.plan.search import Search, total

_TRIES = 4  # each but the first leaves as much room as the FIFOs and adapters of the one before took


class _Built(Protocol):
    @property
    def resources(self) -> Resources: ...


T = TypeVar("T", bound=_Built)


def plan(
    graph: Graph,
    board: Board,
    target_cycles: int | None = None,
    clock_mhz: float | None = None,
    estimate_rate: bool = False,
    budget: Resources | None = None,
) -> Plan:
    """Choose how ``graph`` is built on ``board``.

    With a target, a budget that the plan without it keeps changes nothing.

    Args:
        target_cycles: cycles of a frame that no part may exceed; None: as few as fit the board with a margin.
        clock_mhz: None: the board's.
        estimate_rate: take FIFO depths, interval and latency from an even schedule (`qfx.plan.pacing`) instead of from
            the event model, which is exact but takes time and memory for each word of a large network.
        budget: what the design may take (`limits`); None: all of the board.

    Raises:
        PlanError: the target cannot be met, or nothing that meets it fits; the node and the resource are named.
    """
    _require_arguments(graph, board, target_cycles, clock_mhz)
    most = budget or available(board)

    def build(nodes: Mapping[str, NodePlan]) -> Plan:
        depths, rate = paced_fifos(graph, nodes) if estimate_rate else size_fifos(graph, nodes)
        net = network(graph, nodes, depths)
        costs = {name: total(estimate(p) for p in net.parts if p.computes and p.node == name) for name in nodes}
        return Plan(
            graph.name, fingerprint(graph), board.name, board.part, clock_mhz or board.clock_mhz,
            {name: replace(node, resources=costs[name]) for name, node in nodes.items()}, depths,
            rate.interval, rate.latency, total(estimate(part) for part in net.parts if not part.computes), most,
        )  # fmt: skip

    made = fitted(graph, available(board), most, target_cycles, build)
    _require_fit(made, target_cycles)
    return made


def fitted(
    graph: Graph,
    whole: Resources,
    budget: Resources,
    target_cycles: int | None,
    build: Callable[[Mapping[str, NodePlan]], T],
) -> T:
    """Return the first build that keeps the budget, else the one that exceeds it least.

    Args:
        whole: what the board has; ``budget`` is of it.
        build: makes a design, FIFOs and all, of the unroll and arithmetic of each node.
    """
    least: T | None = None
    for search, cycles in _searches(graph, whole, budget, target_cycles):
        for made in _builds(graph, search, cycles, budget, build):
            if not excess(made.resources, budget):
                return made
            if least is None or _over(made, budget) < _over(least, budget):
                least = made
    assert least is not None  # every search builds something
    return least


def _searches(
    graph: Graph, whole: Resources, budget: Resources, target_cycles: int | None
) -> Iterator[tuple[Search, int]]:
    """Where to look for what fits, with the cycles of a frame.

    To a target: at the prices of the whole board, so that a budget that is kept anyhow changes nothing. Without one: at
    the rate that the budget allows with a margin, then the slowest; last as without the budget, lest that is refused.
    """
    search = Search(graph, whole)
    if target_cycles is not None:
        yield search, target_cycles
        return
    within = search.at(budget)
    yield within, within.fastest()
    yield within, within.targets[-1]
    if budget != whole:
        yield search, search.fastest()


def _builds(
    graph: Graph, search: Search, cycles: int, budget: Resources, build: Callable[[Mapping[str, NodePlan]], T]
) -> Iterator[T]:
    """The cheapest build, unless its nodes alone exceed the budget; then what leaves room for FIFOs and adapters."""
    nodes, room = search.within(cycles), budget
    if excess(_computing(graph, nodes), budget):
        nodes = search.within(cycles, budget)
    for _ in range(_TRIES):
        made = build(nodes)
        yield made
        if excess(_nodes(nodes), room):
            return
        room = _room(budget, made, nodes)
        before, nodes = nodes, search.within(cycles, room)
        if nodes == before:
            return


def _computing(graph: Graph, nodes: Mapping[str, NodePlan]) -> Resources:
    """What a design takes at least: all but what stores and moves results."""
    return total(estimate(part) for part in network(graph, nodes, {}).parts if part.computes)


def _nodes(nodes: Mapping[str, NodePlan]) -> Resources:
    return total(node.resources for node in nodes.values())


def _room(budget: Resources, made: _Built, nodes: Mapping[str, NodePlan]) -> Resources:
    """What is left of a budget for nodes beside all else that a design takes."""
    own = _nodes(nodes)
    return Resources(
        **{r: max(0, getattr(budget, r) - getattr(made.resources, r) + getattr(own, r)) for r in RESOURCES}
    )


def _over(made: _Built, budget: Resources) -> float:
    """The sum of what each resource exceeds the budget by, as a share of it."""
    pairs = [(getattr(made.resources, name), getattr(budget, name)) for name in RESOURCES]
    return sum(max(0, needed - most) / max(1, most) for needed, most in pairs)


def _require_arguments(graph: Graph, board: Board, target_cycles: int | None, clock_mhz: float | None) -> None:
    require_graph(graph, PlanError)
    require_kind(PlanError, "board", board, Board, 'a Board, such as Board.load("ultra96v2")')
    require_clock(PlanError, "clock_mhz", clock_mhz)
    require_cycles(PlanError, "target_cycles", target_cycles)


def _require_fit(made: Plan, target_cycles: int | None) -> None:
    """Raise NoFitError where the estimate exceeds the budget."""
    exceeded = []
    for name, words in excess(made.resources, made.budget).items():
        worst = max(made.nodes, key=lambda node: getattr(made.nodes[node].resources, name))
        exceeded.append(f"{words} (node {worst!r}: {getattr(made.nodes[worst].resources, name):,})")
    if not exceeded:
        return
    if target_cycles is None:
        found, remedy = "in the smallest folding found, of", "use smaller widths, fewer channels or a larger board"
    else:
        found, remedy = "at", "allow more cycles a frame, or use smaller widths or fewer channels"
    raise NoFitError(
        f"the graph {made.graph!r} must fit {made.board}, but needs {', '.join(exceeded)} {found} "
        f"{counted(made.interval, 'cycle')} a frame: {remedy}",
        made,
    )
