"""When each kind of part moves its words: the recurrences behind the event model (`qfx.plan.model`).

Time is counted in clock cycles; an event of a stream is the transfer of a word, in the first cycle in which its sender
offers it, its receiver has room, and the word before has gone. Each class stands for one RTL module; its ``link`` says
what follows what, with the module's register delays: offers follow what comes in, room follows what goes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from qfx.graph.window import Pair
from qfx.plan.events import Array, Series, Wire

RAM_FIFO_LATENCY = 4  # of qfx_fifo above SHIFT_DEPTH words
SHIFT_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Pipe:
    """A free-running part."""

    latency: int

    def link(self, i: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        return i.later(self.latency)


@dataclass(frozen=True, slots=True)
class Fifo:
    """qfx_fifo: a shift register, or a memory whose prefetch buffer is large enough never to be felt."""

    depth: int

    def link(self, i: Wire, o: Wire) -> None:
        """Join the streams at both ends. In a pipe it is the segment's source that waits: credits are places."""
        o.series.follow(i, 0, 1 if self.depth <= SHIFT_DEPTH else RAM_FIFO_LATENCY)
        i.series.follow(o, self.depth, 1)


@dataclass(frozen=True, slots=True)
class Fork:
    """qfx_fork: two words of buffer a branch."""

    def link(self, i: Wire, *outputs: Wire) -> None:
        """Join the stream and its branches."""
        for o in outputs:
            o.series.follow(i, 0, 1)
            i.series.follow(o, 2, 1)


@dataclass(frozen=True, slots=True)
class Width:
    """qfx_width: ``groups`` slim words a pixel, ``ratio`` of them in a wide word."""

    groups: int
    ratio: int
    widens: bool

    def link(self, i: Wire, o: Wire) -> None:
        """Join the streams at both ends, of which one is wide."""
        wide = -(-self.groups // self.ratio)
        if self.widens:
            o.series.follow_each(i, self._last_slim(np.arange(o.series.words), wide), 1)
            i.series.follow_each(o, self._wide(np.arange(i.series.words), wide) - 2, 1)
        else:
            o.series.follow_each(i, self._wide(np.arange(o.series.words), wide), 1)
            i.series.follow_each(o, self._last_slim(np.arange(i.series.words) - 2, wide), 1)

    def _wide(self, slim: Array, wide: int) -> Array:
        """The wide word that holds slim word number ``slim``."""
        return slim // self.groups * wide + slim % self.groups // self.ratio

    def _last_slim(self, m: Array, wide: int) -> Array:
        """The last slim word of wide word number ``m``."""
        return m // wide * self.groups + np.minimum((m % wide + 1) * self.ratio, self.groups) - 1


@dataclass(frozen=True, slots=True)
class Gate:
    """qfx_gate: a word enters the segment for each credit."""

    def link(self, i: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        return i.later(1)


@dataclass(frozen=True, slots=True)
class Join:
    """qfx_join: pairs of words, two of each side buffered, one credit a pair."""

    def link(self, a: Wire, b: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        takes = Wire(Series(a.series.words, a.series.frames))
        for side in (a, b):
            takes.series.follow(side, 0, 1)
            side.series.follow(takes, 2, 1)
        return takes.later(1)


@dataclass(frozen=True, slots=True)
class Turns:
    """qfx_concat: of each pixel ``a`` words of one stream, then ``b`` of the other, two of each side buffered."""

    a: int
    b: int

    def link(self, a: Wire, b: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        takes = Wire(Series(a.series.words + b.series.words, a.series.frames))
        pixel, word = np.divmod(np.arange(takes.series.words), self.a + self.b)
        for side, count, first in ((a, self.a, 0), (b, self.b, self.a)):
            # While the other side has its turn, the last word of this side is long there.
            takes.series.follow_each(side, pixel * count + np.clip(word - first, -1, count - 1), 1)
            before, number = np.divmod(np.arange(side.series.words) - 2, count)
            side.series.follow_each(takes, before * (self.a + self.b) + first + number, 1)
        return takes.later(1)


@dataclass(frozen=True, slots=True)
class Pixels:
    """qfx_select, qfx_reduce: whole pixels of ``a`` words come, those of ``b`` words leave; two are kept."""

    a: int
    b: int
    latency: int = 3  # from the choice of a word to its output

    def link(self, i: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        takes = Wire(Series(i.series.words // self.a * self.b, i.series.frames))
        takes.series.follow_each(i, np.arange(takes.series.words) // self.b * self.a + self.a - 1, 1)
        before = np.arange(i.series.words) // self.a - 2  # the pixel whose place a word takes
        i.series.follow_each(takes, before * self.b + self.b - 1, 1)
        return takes.later(self.latency)


@dataclass(frozen=True)
class Sieve:
    """qfx_slice: some words of each frame go on, the others are dropped; two are buffered."""

    words: int  # of a frame
    kept: tuple[int, ...]  # their numbers, in order

    def link(self, i: Wire) -> Wire:
        """Return the stream behind, a pipe."""
        takes = Wire(Series(len(self.kept), i.series.frames))
        takes.series.follow_each(i, np.array(self.kept), 1)
        # A word has a place when the last but one has gone: dropped words go one a cycle, as the stream comes.
        frame, word = np.divmod(np.arange(self.words) - 2, self.words)
        before = np.searchsorted(self.kept, word, side="right") - 1 + frame * len(self.kept)
        i.series.follow_each(takes, before, 1)
        return takes.later(1)


@dataclass(frozen=True)
class Window:
    """qfx_agu_window behind qfx_ring: the source of convolution and pooling.

    A result pixel makes ``words`` words of ``steps`` issue cycles each; ``latency`` runs from a word's last issue to
    its output. The window of output row r needs the image's rows up to ``last_row(r)``.
    """

    size: Pair  # of the image
    out: Pair  # of the result
    stride: Pair
    pad: Pair  # top, left
    reach: Pair  # rows and columns of a window, less 1
    rows: int  # of the ring
    pixel_words: int  # words a pixel of the image
    words: int
    steps: int
    latency: int
    square: bool = False  # a second input stream gives the dilation of each pixel
    repeat: Pair = (1, 1)  # rows and columns of the result for each window

    RELEASE: int = field(default=7, init=False)  # from a row's last step to room in the ring
    SEEN: int = field(default=2, init=False)  # from a pixel's last word to the window seeing it

    @property
    def cycles(self) -> int:
        """The part's own time for a frame: issue cycles, or words in where those are more."""
        return max(self.out[0] * self.out[1] * self.words * self.steps, self.size[0] * self.size[1] * self.pixel_words)

    @cached_property
    def needs(self) -> list[int]:
        """For each output pixel, the number of the frame's input words that must have come, at least a pixel."""
        height, width = self.size
        result = []
        for row in range(self.out[0]):
            top = row // self.repeat[0] * self.stride[0] - self.pad[0]
            last = min(max(top + self.reach[0], 0), height - 1)
            for column in range(self.out[1]):
                left = column // self.repeat[1] * self.stride[1] - self.pad[1]
                edge = min(max(left + self.reach[1] + 1, 1), width)
                result.append((last * width + edge) * self.pixel_words)
        return result

    @cached_property
    def first_rows(self) -> list[int]:
        """For each output row and the end of the frame, how many of the frame's rows are not needed from then on."""
        height = self.size[0]
        tops = [row // self.repeat[0] * self.stride[0] - self.pad[0] for row in range(1, self.out[0])]
        first = [min(max(top, 0), height) for top in tops]
        return [*first, height]

    def link(self, image: Wire, dilation: Wire | None = None) -> Wire:
        """Return the stream behind, a pipe."""
        pixels, row_words = len(self.needs), self.size[1] * self.pixel_words
        issue = Wire(Series(pixels * self.words, image.series.frames, self.steps))
        issue.series.follow_each(image, np.repeat(np.array(self.needs) - 1, self.words), self.SEEN)
        ends = np.arange(1, pixels + 1) * self.words - 1  # last word of each pixel
        if dilation is not None:
            issue.series.follow_each(dilation, np.repeat(np.arange(pixels), self.words), 1)
            dilation.series.follow_each(issue, np.arange(-1, pixels - 1) * self.words - 1, self.steps)
        frame, row = np.divmod(np.arange(self.size[0]) - self.rows, self.size[0])
        releases = ends[self.out[1] - 1 :: self.out[1]][np.searchsorted(self.first_rows, row, side="right")]
        image.series.follow_each(
            issue, np.repeat(frame * issue.series.words + releases, row_words), self.steps - 1 + self.RELEASE
        )
        return issue.later(self.steps - 1 + self.latency)


Timing = Pipe | Fifo | Fork | Width | Gate | Join | Turns | Pixels | Sieve | Window
