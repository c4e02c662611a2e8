"""The event model: when each word moves in a design, cycle for cycle as in the RTL, with a sink always ready."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qfx.errors import PlanError
from qfx.plan.dataflow import Network, Part
from qfx.plan.events import Series, Wire, solve
from qfx.plan.timing import Fifo, Fork, Width

_SETTLED = 3  # equal frame times in a row that count as steady state
_FRAMES = (5, 10, 20, 40)  # frames tried until it is reached


@dataclass(frozen=True)
class Rate:
    """What the model finds: all in cycles, counted from the first one in which the design takes a word."""

    interval: int  # between output frames in steady state
    latency: int  # until the last output word of the first frame
    ends: tuple[int, ...]  # last output word of each frame


class Deadlock(PlanError):
    """The FIFOs of a design are so small that it stops."""


def rate(network: Network) -> Rate:
    """Return the steady rate of a design; raise Deadlock if it stops.

    The interval of a design whose frame times never become equal is the mean of the last ones, rounded up.
    """
    ends: list[int] = []
    for frames in _FRAMES:
        ends = frame_ends(network, frames)
        if len(set(np.diff(ends[-1 - _SETTLED :]))) == 1:
            break
    return Rate(steady_interval(ends), ends[0] + 1, tuple(ends))


def steady_interval(ends: Sequence[int]) -> int:
    """Return the cycles of a frame in steady state, from the ends of at least two frames.

    The last steps where they are equal; where frames leave in bursts, the mean of the later half, rounded up.
    """
    steps = [int(step) for step in np.diff(ends)]
    late = steps[-_SETTLED:] if len(set(steps[-_SETTLED:])) == 1 else steps[len(steps) // 2 :]
    return -(-sum(late) // len(late))


def keeps(network: Network, interval: int, frames: int = 6) -> bool:
    """Whether a design runs at ``interval`` cycles a frame, or faster, judged after a few frames."""
    try:
        ends = frame_ends(network, frames)
    except Deadlock:
        return False
    return max(b - a for a, b in zip(ends[-1 - _SETTLED :], ends[-_SETTLED:], strict=False)) <= interval


def frame_ends(network: Network, frames: int) -> list[int]:
    """Return the cycle of the last output word of each of ``frames`` frames (the latest of all outputs)."""
    wires = play(network, frames)
    return [int(end) for end in np.max([wires[stream.name].ends for stream in network.outputs], axis=0)]


def needed_depths(network: Network, pace: int, frames: int = 3) -> dict[str, int]:
    """Return for each FIFO of a network with ample ones the depth with which it never holds up a paced run.

    The paced schedule is then feasible, so the design, which starts everything as early as it can, is never slower:
    these depths keep a rate of one frame every ``pace`` cycles.
    """
    wires = play(network, frames, pace)
    depths = {}
    for part in network.parts:
        if isinstance(part.timing, Fifo):
            source = wires[next(iter(part.inputs.values())).name]
            enters = source.series.times  # of a segment's words into its source, where their credits are taken
            leaves = wires[part.outputs[0].name].times
            # Word n needs place n - depth, given back one cycle after its word has left.
            before = np.searchsorted(leaves, enters - 1, side="right")
            depths[part.name] = int((np.arange(len(enters)) - before).max()) + 1
    return depths


def play(network: Network, frames: int, pace: int = 0) -> dict[str, Wire]:
    """Run ``frames`` frames through the network and return every stream by name; raise Deadlock where it stops.

    The source is always valid, or with a ``pace`` spreads the words of each frame over so many cycles.
    """
    flow = [network.input, *(stream for part in network.parts for stream in part.outputs)]
    wires = {stream.name: Wire(Series(stream.words, frames)) for stream in flow if not stream.pipe}
    words = network.input.words
    wires[network.input.name].series.offers = np.arange(words * frames) * pace // words
    for part in network.parts:
        _link(part, wires)
    series = list(dict.fromkeys(wires[stream.name].series for stream in flow))
    counts = dict(zip(series, solve(series), strict=True))
    for stream in network.outputs:
        if (count := counts[wires[stream.name].series]) < stream.words * frames:
            raise Deadlock(
                f"the design must not stop, but node {stream.node!r} gives {count} of {stream.words * frames} "
                f"words of {frames} frames: its FIFOs are too small"
            )
    return wires


def _link(part: Part, wires: dict[str, Wire]) -> None:
    """Join the streams of a part; a pipe that it feeds is then known."""
    inputs, outputs = [wires[stream.name] for stream in part.inputs.values()], part.outputs
    timing = part.timing
    if isinstance(timing, Fifo | Fork | Width):
        timing.link(inputs[0], *(wires[stream.name] for stream in outputs))
    else:
        wires[outputs[0].name] = timing.link(*inputs)
