"""FIFO depths from an even schedule: an estimate that is quick however large the network, unlike `qfx.plan.model`.

Word n of a stream of W words moves at ``start + n * pace / W``, a straight line, and every part starts as early as its
inputs' lines allow. A FIFO then holds what lies between the line that enters it and the one that leaves it. Where a
frame takes fewer cycles than the parts' latency, depths can be too small: it is an estimate. With those of 3 in 60
random graphs at 600 cycles the design is slower than it says (tests/plan/test_pacing.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from qfx.graph import Graph
from qfx.plan.data import NodePlan
from qfx.plan.dataflow import Network, Part, Stream, least_depths, network
from qfx.plan.depths import own_cycles
from qfx.plan.model import Rate
from qfx.plan.timing import RAM_FIFO_LATENCY, Fifo, Fork, Gate, Join, Pipe, Pixels, Sieve, Turns, Width, Window

_SLACK = 2  # words: what a FIFO's own registers and the rounding of lines may take


def paced_fifos(graph: Graph, nodes: Mapping[str, NodePlan]) -> tuple[dict[str, int], Rate]:
    """Return a depth for each FIFO, by its key, and the rate that the design about has with them.

    The interval is that of the slowest part alone, and the latency that of the even schedule: the design's own is less.
    """
    least = least_depths(graph)
    shape = network(graph, nodes, {})
    pace = own_cycles(shape)
    ample = network(graph, nodes, dict.fromkeys(shape.fifos, sum(s.words for p in shape.parts for s in p.outputs)))
    schedule = _Schedule(ample, pace)
    found = schedule.depths()
    latency = ceil(max(schedule.start[stream.name] for stream in ample.outputs)) + pace
    return {key: max(found[ample.fifos[key]], least[key]) for key in shape.fifos}, Rate(pace, latency, (latency - 1,))


@dataclass
class _Schedule:
    network: Network
    pace: int
    start: dict[str, float] = field(default_factory=dict)  # stream -> when its word 0 moves
    taken: dict[str, float] = field(default_factory=dict)  # stream -> when word 0 took its place in the FIFO ahead
    feeds: dict[str, str] = field(default_factory=dict)  # stream -> the FIFO that it leaves, an adapter between or not
    late: dict[str, float] = field(default_factory=dict)  # FIFO -> cycles that its reader keeps words waiting, at most

    def depths(self) -> dict[str, int]:
        """Return the depth of each FIFO part."""
        self.start[self.network.input.name] = 0.0
        for part in self.network.parts:
            self._step(part)
        return {part.name: self._depth(part) for part in self.network.parts if isinstance(part.timing, Fifo)}

    def _depth(self, part: Part) -> int:
        stream = part.outputs[0]
        time = self.start[stream.name] + self.late.get(part.name, 0.0) - self.taken[stream.name]
        return min(ceil(time / self._period(stream)), stream.words) + _SLACK

    def _period(self, stream: Stream) -> float:
        return self.pace / stream.words

    def _step(self, part: Part) -> None:
        streams, timing = list(part.inputs.values()), part.timing
        begin = max(self.start.get(stream.name, 0.0) for stream in streams)
        taken = min(self.taken.get(stream.name, begin) for stream in streams)
        match timing:
            case Fifo():
                taken = taken if part.closes else begin
                begin += RAM_FIFO_LATENCY  # a shallow one is faster
            case Fork():
                begin += 1
            case Width():
                slim = min(streams[0], part.outputs[0], key=lambda stream: stream.lanes)
                begin += 1 + (timing.ratio - 1) * self._period(slim) * timing.widens
                self.feeds[part.outputs[0].name] = self.feeds.get(streams[0].name, "")
            case Pipe():
                begin += timing.latency
            case Gate() | Join():
                self._wait(streams, begin)
                taken, begin = begin, begin + 2
            case Turns():
                begin += self.pace / (streams[0].words // timing.a)  # each side waits for a pixel of the other
                self._wait(streams, begin + self.pace / (streams[0].words // timing.a))
                taken, begin = begin, begin + 2
            case Pixels():
                begin += self.pace / (streams[0].words // timing.a)  # a pixel is whole before it is read
                self._hold(streams[0], self.pace / (streams[0].words // timing.a))
                taken, begin = begin, begin + 1 + timing.latency
            case Sieve():
                come = np.array(timing.kept) * self._period(streams[0])
                ahead = come - np.arange(len(come)) * self._period(part.outputs[0])
                taken, begin = begin + 1 + float(ahead.min()), begin + 2 + float(ahead.max())
            case Window():
                taken, begin = self._window(timing, streams, part.outputs[0])
        for stream in part.outputs:
            self.start[stream.name], self.taken[stream.name] = begin, taken
            if isinstance(timing, Fifo):
                self.feeds[stream.name] = part.name

    def _wait(self, streams: list[Stream], until: float) -> None:
        """Word 0 of each stream is taken at ``until``, and the others on a line behind it."""
        for stream in streams:
            self._hold(stream, until - self.start[stream.name])

    def _hold(self, stream: Stream, cycles: float) -> None:
        fifo = self.feeds.get(stream.name, "")
        self.late[fifo] = max(self.late.get(fifo, 0.0), cycles)

    def _window(self, window: Window, streams: list[Stream], out: Stream) -> tuple[float, float]:
        """When the first step is issued, and when its word leaves: each pixel's words on a line, the image in time."""
        image, pixels = streams[0], len(window.needs)
        line = np.arange(pixels) * (self.pace / pixels)
        come = self.start[image.name] + np.array(window.needs) * self._period(image) + window.SEEN
        issue = float((come - line).max())
        if window.square:
            issue = max(issue, self.start[streams[1].name] + 1)
            self._hold(streams[1], issue - self.start[streams[1].name])
        # A row enters the ring when the row that it replaces is released.
        ends = issue + line[window.out[1] - 1 :: window.out[1]] + window.words * window.steps + window.RELEASE
        released = ends[np.searchsorted(window.first_rows, np.arange(1, window.size[0] + 1))]
        rows = self.start[image.name] + np.arange(window.size[0]) * (self.pace / window.size[0])
        behind = released[: -window.rows] - rows[window.rows :]
        self._hold(image, max(0.0, float(behind.max(initial=0.0))))
        return issue, issue + window.steps - 1 + window.latency
