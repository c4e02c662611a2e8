"""Passes: functions from graph to graph that keep every value; the verifier runs after each."""

from collections.abc import Callable, Sequence

from qfx.graph.graph import Graph
from qfx.graph.passes.fuse_requantize import fuse_requantize as fuse_requantize
from qfx.graph.passes.narrow_widths import narrow_widths as narrow_widths
from qfx.graph.passes.remove_dead import remove_dead as remove_dead
from qfx.graph.passes.remove_zero_width import remove_zero_width as remove_zero_width
from qfx.graph.verify import verify

Pass = Callable[[Graph], Graph]
DEFAULT: tuple[Pass, ...] = (remove_zero_width, remove_dead, fuse_requantize, narrow_widths)


def run_passes(graph: Graph, passes: Sequence[Pass] = DEFAULT) -> Graph:
    """Apply passes in order and verify the graph after each."""
    for apply in passes:
        graph = apply(graph)
        verify(graph)
    return graph
