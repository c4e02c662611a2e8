"""When each kind of part moves its words: the recurrences behind the event model (`qfx.plan.model`).

Time is counted in clock cycles; ``x[n]`` is the cycle in which word n of a stream is transferred. A part turns the
transfers of its inputs into *offers* (the first cycle in which its output is valid with word n) and those of its
outputs into *room* (the first cycle in which it is ready for word n); a transfer happens in the first cycle that has
both and follows the transfer before. Each class stands for one RTL module and repeats its register delays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from qfx.graph.window import Pair

RAM_FIFO_LATENCY = 4  # of qfx_fifo above SHIFT_DEPTH words
SHIFT_DEPTH = 32
PREFETCH = 4  # words that the RAM FIFO holds at its output


class Wire:
    """The words of one stream: their transfers, as far as both ends are known. In a pipe the offer is the transfer."""

    __slots__ = ("offer", "room", "x", "readers")

    def __init__(self) -> None:
        self.offer: list[int] = []
        self.room: list[int] = []
        self.x: list[int] = []

    def advance(self) -> bool:
        """Compute the transfers whose two sides are known; tell whether there were any."""
        x, offer, room = self.x, self.offer, self.room
        start, end = len(x), min(len(offer), len(room))
        last = x[-1] if x else -1
        for n in range(start, end):
            last = max(offer[n], room[n], last + 1)
            x.append(last)
        return end > start


@dataclass(frozen=True, slots=True)
class Pipe:
    """A free-running part."""

    latency: int

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        del state, give
        source, target = i[0].x, o[0].x
        target.extend([t + self.latency for t in source[len(target) :]])


@dataclass(frozen=True, slots=True)
class Fifo:
    """qfx_fifo: a shift register, or a memory with a prefetch buffer."""

    depth: int

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        del give
        source, target = i[0], o[0]
        _room(source.room, target.x, self.depth)
        if self.depth <= SHIFT_DEPTH:
            target.offer.extend([t + 1 for t in source.x[len(target.offer) :]])
            return
        last = state.get("issue", -1)
        for n in range(len(target.offer), min(len(source.x), len(target.x) + PREFETCH)):
            last = max(source.x[n] + 1, last + 1, target.x[n - PREFETCH] + 1 if n >= PREFETCH else 0)
            target.offer.append(last + RAM_FIFO_LATENCY - 1)
        state["issue"] = last


@dataclass(frozen=True, slots=True)
class Fork:
    """qfx_fork: two words of buffer a branch."""

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        del state, give
        source = i[0]
        known = min(len(branch.x) for branch in o)
        for n in range(len(source.room), known + 2):
            source.room.append(max(branch.x[n - 2] for branch in o) + 1 if n >= 2 else 0)
        for branch in o:
            branch.offer.extend([t + 1 for t in source.x[len(branch.offer) :]])


@dataclass(frozen=True, slots=True)
class Width:
    """qfx_width: ``groups`` slim words a pixel, ``ratio`` of them in a wide word."""

    groups: int
    ratio: int
    widens: bool

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        del state, give
        source, target = i[0], o[0]
        wide = -(-self.groups // self.ratio)
        if self.widens:
            while (last := self._last_slim(len(target.offer), wide)) < len(source.x):
                target.offer.append(source.x[last] + 1)
            while (m := self._wide(len(source.room), wide)) < len(target.x) + 2:
                source.room.append(target.x[m - 2] + 1 if m >= 2 else 0)
            return
        while (m := self._wide(len(target.offer), wide)) < len(source.x):
            target.offer.append(source.x[m] + 1)
        while (m := len(source.room)) < 2 or self._last_slim(m - 2, wide) < len(target.x):
            source.room.append(target.x[self._last_slim(m - 2, wide)] + 1 if m >= 2 else 0)

    def _wide(self, slim: int, wide: int) -> int:
        """The wide word that holds slim word number ``slim``."""
        return (slim // self.groups) * wide + (slim % self.groups) // self.ratio

    def _last_slim(self, m: int, wide: int) -> int:
        """The last slim word of wide word number ``m``."""
        return (m // wide) * self.groups + min((m % wide + 1) * self.ratio, self.groups) - 1


@dataclass(frozen=True, slots=True)
class Gate:
    """qfx_gate: a word enters the segment for each credit."""

    credits: int

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        assert give is not None
        state["takes"] = i[0].x
        _room(i[0].room, give.x, self.credits)
        o[0].x.extend([t + 1 for t in i[0].x[len(o[0].x) :]])


@dataclass(frozen=True, slots=True)
class Join:
    """qfx_join: pairs of words, two of each side buffered, one credit a pair."""

    credits: int

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        assert give is not None
        a, b, out = i[0], i[1], o[0].x
        takes: list[int] = state.setdefault("takes", [])
        for n in range(len(takes), min(len(a.x), len(b.x), len(give.x) + self.credits)):
            credit = give.x[n - self.credits] + 1 if n >= self.credits else 0
            takes.append(max(a.x[n] + 1, b.x[n] + 1, credit, takes[-1] + 1 if takes else 0))
            out.append(takes[-1] + 1)
        _room(a.room, takes, 2)
        _room(b.room, takes, 2)


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
    credits: int
    square: bool = False  # a second input stream gives the dilation of each pixel

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
            last = min(max(row * self.stride[0] - self.pad[0] + self.reach[0], 0), height - 1)
            for column in range(self.out[1]):
                edge = min(max(column * self.stride[1] - self.pad[1] + self.reach[1] + 1, 1), width)
                result.append((last * width + edge) * self.pixel_words)
        return result

    @cached_property
    def first_rows(self) -> list[int]:
        """For each output row and the end of the frame, how many of the frame's rows are not needed from then on."""
        height = self.size[0]
        first = [min(max(row * self.stride[0] - self.pad[0], 0), height) for row in range(1, self.out[0])]
        return [*first, height]

    def step(self, state: dict, i: list[Wire], o: list[Wire], give: Wire | None) -> None:
        assert give is not None
        ends: list[int] = state.setdefault("ends", [])  # last step of each pixel
        released: list[int] = state.setdefault("released", [])  # last step with each image row
        self._issue(state, i, o[0].x, give.x, ends, released)
        row_words = self.size[1] * self.pixel_words
        room = i[0].room
        while (row := len(room) // row_words) < len(released) + self.rows:
            room.extend([released[row - self.rows] + self.RELEASE if row >= self.rows else 0] * row_words)
        if self.square:
            _room(i[1].room, ends, 2)

    def _issue(
        self, state: dict, i: list[Wire], out: list[int], give: list[int], ends: list[int], released: list[int]
    ) -> None:
        pixels, frame_words = len(self.needs), self.size[0] * self.size[1] * self.pixel_words
        source, dilation = i[0].x, i[1].x if self.square else None
        takes: list[int] = state.setdefault("takes", [])
        last, word = state.get("last", -1), state.get("word", 0)
        while True:
            n = len(out)
            start = last + 1
            if n >= self.credits:
                if n - self.credits >= len(give):
                    break
                start = max(start, give[n - self.credits] + 1)
            if word == 0:
                frame, pixel = divmod(len(ends), pixels)
                needed = frame * frame_words + self.needs[pixel]
                if needed > len(source) or (dilation is not None and len(ends) >= len(dilation)):
                    break
                if needed > 0:
                    start = max(start, source[needed - 1] + self.SEEN)
                if dilation is not None:
                    start = max(start, dilation[len(ends)] + 1)
            takes.append(start)
            last = start + self.steps - 1
            out.append(last + self.latency)
            word += 1
            if word == self.words:
                word = 0
                ends.append(last)
                frame, pixel = divmod(len(ends) - 1, pixels)
                if (pixel + 1) % self.out[1] == 0:
                    count = frame * self.size[0] + self.first_rows[pixel // self.out[1]] - len(released)
                    released.extend([last] * count)
        state["last"], state["word"] = last, word


Timing = Pipe | Fifo | Fork | Width | Gate | Join | Window


def _room(room: list[int], leaves: list[int], places: int) -> None:
    """Word n finds room one cycle after word ``n - places`` has left."""
    if len(room) < places:
        room.extend([0] * (places - len(room)))
    room.extend([t + 1 for t in leaves[len(room) - places :]])
