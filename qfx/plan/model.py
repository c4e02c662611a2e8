"""The event model: when each word moves in a design, cycle for cycle as in the RTL, with a sink always ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qfx.errors import PlanError
from qfx.plan.dataflow import Network
from qfx.plan.timing import Wire

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
    ends = []
    for stream in network.outputs:
        times = wires[stream.name].x
        if len(times) < stream.words * frames:
            raise Deadlock(
                f"the design must not stop, but node {stream.node!r} gives {len(times)} of {stream.words * frames} "
                f"words of {frames} frames: its FIFOs are too small"
            )
        ends.append(times[stream.words - 1 :: stream.words])
    return [max(each) for each in zip(*ends, strict=True)]


def play(network: Network, frames: int, pace: int = 0) -> dict[str, Wire]:
    """Run ``frames`` frames through the network and return the words of every stream by name.

    The source is always valid, or with a ``pace`` spreads the words of each frame over so many cycles.
    """
    return _play(network, frames, pace)[0]


def needed_depths(network: Network, pace: int, frames: int = 3) -> dict[str, int]:
    """Return for each FIFO of a network with ample ones the depth with which it never holds up a paced run.

    The paced schedule is then feasible, so the design, which starts everything as early as it can, is never slower:
    these depths keep a rate of one frame every ``pace`` cycles.
    """
    wires, states = _play(network, frames, pace)
    takes = {part.name: state.get("takes") for part, state in zip(network.parts, states, strict=True)}
    depths = {}
    for part in network.parts:
        if part.module == "qfx_fifo":
            source = next(iter(part.inputs.values()))
            enters = np.array(takes[part.closes] if part.closes else wires[source.name].x)
            leaves = np.array(wires[part.outputs[0].name].x)
            # Word n needs place n - depth, given back one cycle after its word has left.
            before = np.searchsorted(leaves, enters - 1, side="right")
            depths[part.name] = int((np.arange(len(enters)) - before).max()) + 1
    return depths


def _play(network: Network, frames: int, pace: int) -> tuple[dict[str, Wire], list[dict]]:
    wires = {stream.name: Wire() for part in network.parts for stream in (*part.inputs.values(), *part.outputs)}
    words = network.input.words
    wires[network.input.name].offer = [n * pace // words for n in range(words * frames)]
    for stream in network.outputs:
        wires[stream.name].room = [0] * (stream.words * frames)
    actors = _actors(network, wires)
    _settle(actors)
    return wires, [actor.state for actor in actors]


@dataclass(slots=True)
class _Actor:
    """A part at work: its streams, and who is to be woken when one of them moves."""

    step: Callable[..., None]
    state: dict
    inputs: list[Wire]
    outputs: list[Wire]
    give: Wire | None
    flows: list[tuple[Wire, tuple[int, ...]]]  # streams with a ready, and the parts at their ends
    pipes: list[tuple[Wire, tuple[int, ...]]]  # pipes that it feeds
    waiting: bool = True


def _actors(network: Network, wires: dict[str, Wire]) -> list[_Actor]:
    index = {part.name: number for number, part in enumerate(network.parts)}
    gives = {part.closes: part.outputs[0].name for part in network.parts if part.closes}
    ends: dict[str, list[int]] = {name: [] for name in wires}
    for number, part in enumerate(network.parts):
        for stream in (*part.inputs.values(), *part.outputs):
            ends[stream.name].append(number)
    for source, name in gives.items():
        ends[name].append(index[source])
    actors = []
    for part in network.parts:
        streams = [*part.inputs.values(), *part.outputs]
        flows = [(wires[s.name], tuple(ends[s.name])) for s in streams if not s.pipe]
        pipes = [(wires[s.name], tuple(ends[s.name])) for s in part.outputs if s.pipe]
        give = wires[gives[part.name]] if part.name in gives else None
        inputs, outputs = [wires[s.name] for s in part.inputs.values()], [wires[s.name] for s in part.outputs]
        actors.append(_Actor(part.timing.step, {}, inputs, outputs, give, flows, pipes))
    return actors


def _settle(actors: list[_Actor]) -> None:
    """Let each part whose streams have moved move its own, until nothing moves."""
    waiting = deque(range(len(actors)))
    while waiting:
        actor = actors[waiting.popleft()]
        actor.waiting = False
        made = len(actor.pipes[0][0].x) if actor.pipes else 0
        actor.step(actor.state, actor.inputs, actor.outputs, actor.give)
        for wire, others in actor.flows:
            if len(wire.x) < len(wire.offer) and len(wire.x) < len(wire.room):
                wire.advance()
                _wake(actors, others, waiting)
        for wire, others in actor.pipes:
            if len(wire.x) > made:
                _wake(actors, others, waiting)


def _wake(actors: list[_Actor], others: tuple[int, ...], waiting: deque[int]) -> None:
    for number in others:
        if not actors[number].waiting:
            actors[number].waiting = True
            waiting.append(number)
