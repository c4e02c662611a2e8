"""The event model: when each word moves in a design, cycle for cycle as the RTL does, source always valid, sink always ready."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from qfx.errors import PlanError
from qfx.plan.dataflow import Network
from qfx.plan.timing import Wire

_SETTLED = 3  # equal frame times in a row that count as steady state
_FRAMES = (6, 12, 24, 48)  # frames tried until it is reached


@dataclass(frozen=True)
class Rate:
    """What the model finds: all in cycles, counted from the first one in which the design takes a word."""

    interval: int  # between output frames in steady state
    latency: int  # until the last output word of the first frame
    ends: tuple[int, ...]  # last output word of each frame


class Unsettled(PlanError):
    """The frame times of a design go on changing."""


class Deadlock(PlanError):
    """The FIFOs of a design are so small that it stops."""


def rate(network: Network) -> Rate:
    """Return the steady rate of a design; raise Deadlock if it stops."""
    for frames in _FRAMES:
        ends = frame_ends(network, frames)
        steps = [b - a for a, b in zip(ends, ends[1:], strict=False)]
        if len(set(steps[-_SETTLED:])) == 1:
            return Rate(steps[-1], ends[0] + 1, tuple(ends))
    raise Unsettled(f"a design must settle within {_FRAMES[-1]} frames, but its frame times are still {steps[-8:]}")


def keeps(network: Network, interval: int, frames: int = 8) -> bool:
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
                f"the design must not stop, but node {stream.node!r} gives {len(times)} of {stream.words * frames} words "
                f"of {frames} frames: its FIFOs are too small"
            )
        ends.append(times[stream.words - 1 :: stream.words])
    return [max(each) for each in zip(*ends, strict=True)]


def play(network: Network, frames: int) -> dict[str, Wire]:
    """Run ``frames`` frames through the network and return the words of every stream by name."""
    wires: dict[str, Wire] = {}
    ends: dict[str, list[int]] = {}  # stream -> parts at either end
    for number, part in enumerate(network.parts):
        for stream in (*part.inputs.values(), *part.outputs):
            wires.setdefault(stream.name, Wire())
            ends.setdefault(stream.name, []).append(number)
    wires[network.input.name].offer = [0] * (network.input.words * frames)
    for stream in network.outputs:
        wires[stream.name].room = [0] * (stream.words * frames)
    _settle(network, wires, ends)
    return wires


def _settle(network: Network, wires: dict[str, Wire], ends: dict[str, list[int]]) -> None:
    """Let each part whose streams have moved move its own, until nothing moves."""
    index = {part.name: number for number, part in enumerate(network.parts)}
    states: list[dict] = [{} for _ in network.parts]
    gives: list[str] = [""] * len(network.parts)
    for part in network.parts:
        if part.closes:
            gives[index[part.closes]] = part.outputs[0].name
            ends[part.outputs[0].name].append(index[part.closes])
    waiting = deque(range(len(network.parts)))
    queued = set(waiting)
    while waiting:
        number = waiting.popleft()
        queued.discard(number)
        part = network.parts[number]
        inputs, outputs = list(part.inputs.values()), part.outputs
        made = [len(wires[o.name].x) for o in outputs if o.pipe]
        part.timing.step(
            states[number],
            [wires[s.name] for s in inputs],
            [wires[s.name] for s in outputs],
            wires[gives[number]] if gives[number] else None,
        )
        moved = [s.name for s in (*inputs, *outputs) if not s.pipe and wires[s.name].advance()]
        pipes = [o for o in outputs if o.pipe]
        moved += [o.name for o, before in zip(pipes, made, strict=True) if len(wires[o.name].x) > before]
        for name in moved:
            for other in ends[name]:
                if other not in queued:
                    queued.add(other)
                    waiting.append(other)
