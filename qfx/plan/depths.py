"""FIFO depths: the smallest with which a design keeps the rate that it has with FIFOs of any size."""

from __future__ import annotations

from collections.abc import Mapping

from qfx.errors import PlanError
from qfx.graph import Graph
from qfx.plan.data import NodePlan
from qfx.plan.model import Rate, keeps, rate
from qfx.plan.dataflow import network
from qfx.plan.timing import SHIFT_DEPTH


def size_fifos(graph: Graph, nodes: Mapping[str, NodePlan]) -> tuple[dict[str, int], Rate]:
    """Return the depth of each FIFO by its key, and the design's rate with them.

    One FIFO after the other is made as small as the rate allows, those on the branches of forks first; since a smaller FIFO
    never makes a design faster, each is minimal in the end: one word less costs cycles or stops the design.
    """
    free = network(graph, nodes, {})
    frame = max(stream.words for part in free.parts for stream in part.outputs)
    depths = dict.fromkeys(free.fifos, 2 * frame + 64)
    wanted = rate(network(graph, nodes, depths)).interval
    for key in sorted(depths, key=lambda key: "->" not in key):
        _shrink(graph, nodes, depths, key, wanted)
    found = rate(network(graph, nodes, depths))
    if found.interval != wanted:
        raise PlanError(f"sized FIFOs must keep the rate of {wanted} cycles a frame, not make it {found.interval}")
    return depths, found


def _shrink(graph: Graph, nodes: Mapping[str, NodePlan], depths: dict[str, int], key: str, wanted: int) -> None:
    """Set ``depths[key]`` to the smallest depth that keeps the rate; a depth of 0 leaves the FIFO of a branch out."""

    def enough(depth: int) -> bool:
        return keeps(network(graph, nodes, {**depths, key: depth}), wanted)

    least = 0 if "->" in key else 1
    # A deep FIFO takes three cycles longer than a shallow one, so the two kinds are searched apart.
    low, high = (least, SHIFT_DEPTH) if enough(SHIFT_DEPTH) else (SHIFT_DEPTH + 1, depths[key])
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    depths[key] = high
