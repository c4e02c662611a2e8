"""The event model word by word: each time is computed once, when all that it follows is known. Slow and simple.

It is written against the RTL's registers, not against `qfx.plan.timing`: what each part offers and where it has room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qfx.plan.dataflow import Network, Part
from qfx.plan.timing import Fifo, Fork, Gate, Join, Pipe, Pixels, Sieve, Turns, Width, Window

SHIFT_DEPTH, PREFETCH, RAM_LATENCY = 32, 4, 4


@dataclass
class Words:
    """The words of a stream as far as known: when offered, when there is room, when they move."""

    offer: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    x: list[int] = field(default_factory=list)

    def move(self) -> None:
        """Let the words go whose two sides are known."""
        for n in range(len(self.x), min(len(self.offer), len(self.room))):
            self.x.append(max(self.offer[n], self.room[n], self.x[-1] + 1 if self.x else 0))


def transfers(network: Network, frames: int) -> dict[str, list[int]]:
    """Return when the words of each stream move, all that ever do; the source offers all, the sink takes all."""
    streams = [network.input, *(stream for part in network.parts for stream in part.outputs)]
    words = {stream.name: Words() for stream in streams}
    words[network.input.name].offer = [0] * (network.input.words * frames)
    for stream in network.outputs:
        words[stream.name].room = [0] * (stream.words * frames)
    gives = {part.closes: words[part.outputs[0].name] for part in network.parts if part.closes}
    states: dict[str, State] = {part.name: State() for part in network.parts}
    known = -1
    while known < (known := sum(len(each.x) for each in words.values())):
        for part in network.parts:
            _step(part, words, states[part.name], gives.get(part.name, Words()))
            for stream in (*part.inputs.values(), *part.outputs):
                if not stream.pipe:
                    words[stream.name].move()
    return {name: each.x for name, each in words.items()}


@dataclass
class State:
    """What a part remembers: when it took or issued each word, ended each pixel, released each row."""

    takes: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)


def _step(part: Part, words: Mapping[str, Words], state: State, give: Words) -> None:
    i, o = [words[s.name] for s in part.inputs.values()], [words[s.name] for s in part.outputs]
    credits = int(part.parameters.get("Credits", 0))
    match part.timing:
        case Pipe(latency):
            o[0].x = [t + latency for t in i[0].x]
        case Fifo(depth):
            i[0].room = _room(o[0].x, depth)
            _offer_of_fifo(depth, i[0], o[0], state)
        case Fork():
            gone = [max(times) + 1 for times in zip(*(branch.x for branch in o), strict=False)]
            i[0].room = [0, 0, *gone]
            for branch in o:
                branch.offer = [t + 1 for t in i[0].x]
        case Width() as width:
            _width(width, i[0], o[0])
        case Gate():
            i[0].room = _room(give.x, credits)
            o[0].x = [t + 1 for t in i[0].x]
        case Join():
            _join(i[0], i[1], give, credits, state)
            o[0].x = [t + 1 for t in state.takes]
        case Turns(a, b):
            _turns(i, (a, b), give, credits, state)
            o[0].x = [t + 1 for t in state.takes]
        case Pixels(a, b, latency):
            _pixels(i[0], (a, b), give, credits, state)
            o[0].x = [t + latency for t in state.takes]
        case Sieve(length, kept):
            _sieve(i[0], (length, frozenset(kept)), give, credits, state)
            o[0].x = [t + 1 for t in state.takes]
        case Window() as window:
            _window(window, i, give, credits, state)
            o[0].x = [t + window.steps - 1 + window.latency for t in state.takes]


def _room(gone: list[int], places: int) -> list[int]:
    """A place is free a cycle after its word has gone."""
    return [0] * places + [t + 1 for t in gone]


def _offer_of_fifo(depth: int, i: Words, o: Words, state: State) -> None:
    if depth <= SHIFT_DEPTH:
        o.offer = [t + 1 for t in i.x]
        return
    for n in range(len(state.takes), min(len(i.x), len(o.x) + PREFETCH)):
        free = o.x[n - PREFETCH] + 1 if n >= PREFETCH else 0
        state.takes.append(max(i.x[n] + 1, state.takes[-1] + 1 if state.takes else 0, free))
    o.offer = [t + RAM_LATENCY - 1 for t in state.takes]


def _width(width: Width, i: Words, o: Words) -> None:
    """Two wide words are held; a wide word goes on when its last slim word is there, or has gone."""
    slim, wide = (i, o) if width.widens else (o, i)
    lasts: list[int] = []  # last slim word of each wide one
    owners: list[int] = []  # wide word of each slim one
    while len(owners) < len(slim.x) + 3 * width.groups + 3 * width.ratio:
        for first in range(0, width.groups, width.ratio):
            owners += [len(lasts)] * min(width.ratio, width.groups - first)
            lasts.append(len(owners) - 1)
    if width.widens:
        wide.offer = [slim.x[last] + 1 for last in lasts if last < len(slim.x)]
        slim.room = [wide.x[m - 2] + 1 if m >= 2 else 0 for m in owners if m - 2 < len(wide.x)]
    else:
        slim.offer = [wide.x[m] + 1 for m in owners if m < len(wide.x)]
        wide.room = _room([slim.x[last] for last in lasts if last < len(slim.x)], 2)


def _join(a: Words, b: Words, give: Words, credits: int, state: State) -> None:
    for n in range(len(state.takes), min(len(a.x), len(b.x), len(give.x) + credits)):
        credit = give.x[n - credits] + 1 if n >= credits else 0
        state.takes.append(max(a.x[n] + 1, b.x[n] + 1, credit, state.takes[-1] + 1 if state.takes else 0))
    a.room = b.room = _room(state.takes, 2)


def _pixels(i: Words, counts: tuple[int, int], give: Words, credits: int, state: State) -> None:
    """A pixel is read when its last word has come, and its place is free when its last word was chosen."""
    a, b = counts
    while (n := len(state.takes)) < len(give.x) + credits and (last := n // b * a + a - 1) < len(i.x):
        credit = give.x[n - credits] + 1 if n >= credits else 0
        state.takes.append(max(i.x[last] + 1, credit, state.takes[-1] + 1 if n else 0))
        if n % b == b - 1:
            state.ends += [state.takes[-1]] * a
    i.room = _room(state.ends, 2 * a)


def _sieve(i: Words, frame: tuple[int, frozenset[int]], give: Words, credits: int, state: State) -> None:
    """Every word leaves the buffer, ``ends``; the kept ones with a credit, ``takes``."""
    length, kept = frame
    for n in range(len(state.ends), len(i.x)):
        start = max(i.x[n] + 1, state.ends[-1] + 1 if n else 0)
        if n % length in kept:
            if (number := len(state.takes)) >= len(give.x) + credits:
                break
            start = max(start, give.x[number - credits] + 1 if number >= credits else 0)
            state.takes.append(start)
        state.ends.append(start)
    i.room = _room(state.ends, 2)


def _turns(sides: list[Words], counts: tuple[int, int], give: Words, credits: int, state: State) -> None:
    """The side whose turn it is gives its next word; ``ends`` and ``released`` hold when those of each were taken."""
    taken = (state.ends, state.released)
    while (n := len(state.takes)) < len(give.x) + credits:
        turn = int(n % sum(counts) >= counts[0])
        if len(taken[turn]) >= len(sides[turn].x):
            break
        credit = give.x[n - credits] + 1 if n >= credits else 0
        start = max(sides[turn].x[len(taken[turn])] + 1, credit, state.takes[-1] + 1 if n else 0)
        state.takes.append(start)
        taken[turn].append(start)
    for side, times in zip(sides, taken, strict=True):
        side.room = _room(times, 2)


def _window(window: Window, i: list[Words], give: Words, credits: int, state: State) -> None:
    while (start := _issue(window, i, give, credits, state)) is not None:
        state.takes.append(start)
        if len(state.takes) % window.words == 0:
            state.ends.append(start + window.steps - 1)
            frame, pixel = divmod(len(state.ends) - 1, len(window.needs))
            row, column = divmod(pixel, window.out[1])
            if column + 1 == window.out[1]:
                gone = frame * window.size[0] + window.first_rows[row]
                state.released += [state.ends[-1]] * (gone - len(state.released))
    row_words = window.size[1] * window.pixel_words
    rooms = [0] * window.rows + [t + window.RELEASE for t in state.released]
    i[0].room = [t for t in rooms for _ in range(row_words)]
    if window.square:
        i[1].room = _room(state.ends, 2)


def _issue(window: Window, i: list[Words], give: Words, credits: int, state: State) -> int | None:
    """The first step of the next word, or None where that is not known yet."""
    n = len(state.takes)
    frame, pixel = divmod(n // window.words, len(window.needs))
    needed = frame * window.size[0] * window.size[1] * window.pixel_words + window.needs[pixel]
    if needed > len(i[0].x) or n - credits >= len(give.x) or (window.square and n // window.words >= len(i[1].x)):
        return None
    starts = [state.takes[-1] + window.steps if state.takes else 0, i[0].x[needed - 1] + window.SEEN]
    if n >= credits:
        starts.append(give.x[n - credits] + 1)
    if window.square:
        starts.append(i[1].x[n // window.words] + 1)
    return max(starts)
