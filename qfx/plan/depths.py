"""FIFO depths: the smallest with which a design keeps the rate that it has with FIFOs of any size."""

from __future__ import annotations

from collections.abc import Mapping

from qfx.graph import Graph
from qfx.plan.data import NodePlan
from qfx.plan.dataflow import Network, least_depths, network
from qfx.plan.model import Rate, keeps, needed_depths, rate
from qfx.plan.timing import SHIFT_DEPTH, Window

FORK_WORDS = 2  # that each branch of a qfx_fork holds
REFINED = 40_000  # words a frame of all streams, times FIFOs, up to which each FIFO is searched for its minimum


def size_fifos(graph: Graph, nodes: Mapping[str, NodePlan], refined: int = REFINED) -> tuple[dict[str, int], Rate]:
    """Return the depth of each FIFO by its key, and the design's rate with them.

    A paced run bounds every depth (`needed_depths`). Then one FIFO after the other is made as small as the rate allows,
    those on the branches of forks first; since a smaller FIFO never makes a design faster, each is minimal in the end:
    one word less costs cycles or stops the design. Designs of more than ``refined`` words times FIFOs keep the bounds,
    but for branches whose fork holds enough itself.
    """
    least = least_depths(graph)
    shape = network(graph, nodes, {})
    words = sum(stream.words for part in shape.parts for stream in part.outputs)
    ample = network(graph, nodes, dict.fromkeys(shape.fifos, 2 * words + 64))
    wanted = own_cycles(shape)
    bounds = needed_depths(ample, wanted)
    enough = depths = {key: max(bounds[ample.fifos[key]], least[key]) for key in shape.fifos}
    without = {key: least[key] if "->" in key and depths[key] <= FORK_WORDS else depths[key] for key in depths}
    if keeps(network(graph, nodes, without), wanted):
        depths = without
    depths = dict(depths)
    if words * len(depths) <= refined and keeps(network(graph, nodes, depths), wanted):
        for key in sorted(depths, key=lambda key: "->" not in key):
            _shrink(graph, nodes, depths, key, least[key], wanted)
    found = rate(network(graph, nodes, depths))
    if found.interval > wanted:  # a few frames did not show it
        return enough, rate(network(graph, nodes, enough))
    return depths, found


def own_cycles(shape: Network) -> int:
    """The cycles of a frame in the slowest part: what a design with ample FIFOs takes."""
    windows = [part.timing.cycles for part in shape.parts if isinstance(part.timing, Window)]
    streams = [stream.words for part in shape.parts for stream in part.outputs]
    return max(*windows, *streams, shape.input.words) if windows else max(*streams, shape.input.words)


def _shrink(
    graph: Graph, nodes: Mapping[str, NodePlan], depths: dict[str, int], key: str, least: int, wanted: int
) -> None:
    """Set ``depths[key]``, which is enough, to the smallest depth that keeps the rate; 0 leaves out a branch's FIFO."""

    def enough(depth: int) -> bool:
        return keeps(network(graph, nodes, {**depths, key: depth}), wanted)

    low, high = least, depths[key]
    # A deep FIFO takes three cycles longer than a shallow one, so the two kinds are searched apart.
    if low <= SHIFT_DEPTH < high:
        low, high = (low, SHIFT_DEPTH) if enough(SHIFT_DEPTH) else (SHIFT_DEPTH + 1, high)
    # Most often the least is enough, or nothing less than the bound.
    if low < high and enough(low):
        high = low
    elif low < high and not enough(high - 1):
        low = high
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    depths[key] = high
