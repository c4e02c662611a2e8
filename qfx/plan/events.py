"""Event times as a max-plus recurrence: each event follows some others by a delay, and is as early as they allow.

A `Series` is what happens once a word: its transfer on a stream, or a part's first step for it. The times of a run are
found by iteration: every series is computed, as an array, from the times that the others are held to have, until none
changes. In a design that never stops every event goes back to earlier ones, so only one set of times agrees with
itself: what the iteration ends in is exact, wherever it starts. Where events wait for themselves there is none; a
slow iteration is therefore interrupted, once, to count how many events happen at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]

_PATIENCE = 64  # sweeps after which the events are counted
_NEVER = -(1 << 62)


@dataclass(slots=True, eq=False)
class Series:
    """Events in order, ``words`` a frame, at least ``gap`` cycles apart, none before its cycle in ``offers``."""

    words: int
    frames: int
    gap: int = 1
    offers: Array | int = 0
    after: list[After] = field(default_factory=list)
    times: Array = field(init=False)

    def __post_init__(self) -> None:
        self.times = np.zeros(self.words * self.frames, np.int64)

    def follow(self, wire: Wire, lag: int, delay: int) -> None:
        """Let event n follow event ``n - lag`` of a wire, where there is one, by ``delay`` cycles."""
        self.after.append(After(wire.series, lag, wire.delay + delay))

    def follow_each(self, wire: Wire, events: Array, delay: int) -> None:
        """Let event n of a frame follow event ``events[n]`` of a wire, negative for one of the frames before.

        The indices of a run must not fall.
        """
        starts = np.arange(self.frames)[:, None] * wire.series.words
        self.after.append(After(wire.series, (events + starts).ravel(), wire.delay + delay))

    def update(self, loops: Sequence[tuple[int, int]]) -> bool:
        """Compute the times anew from those of the others; tell whether they changed."""
        times = np.zeros_like(self.times) + self.offers
        for each in self.after:
            each.hold_up(times)
        for lag, cycles in (*loops, (1, self.gap)):
            times = _loop(times, lag, cycles)
        if np.array_equal(times, self.times):
            return False
        self.times = times
        return True

    def loops(self) -> Iterator[tuple[int, int]]:
        """Yield (lag, cycles) where event n follows event ``n - lag`` by way of one other series, and how late.

        With these in one step a part that waits for its own credits takes no sweep for each round of them.
        """
        for back in self.after:
            for there in back.series.after:
                if there.series is self and isinstance(back.which, int) and isinstance(there.which, int):
                    lag, cycles = back.which + there.which, back.delay + there.delay
                    if cycles > lag * self.gap:
                        yield lag, cycles


@dataclass(frozen=True, slots=True)
class After:
    """Each event of a series follows one of ``series`` by ``delay``: ``which`` is how many before, or all indices."""

    series: Series
    which: int | Array
    delay: int

    def hold_up(self, times: Array) -> None:
        """Raise ``times`` of the followers to those that this allows."""
        source = self.series.times
        if isinstance(self.which, int):
            late = times[self.which :]
            np.maximum(late, source[: len(late)] + self.delay, out=late)
        else:
            first = int(np.searchsorted(self.which, 0))
            np.maximum(times[first:], source[self.which[first:]] + self.delay, out=times[first:])

    def reach(self, count: int) -> int:
        """How many followers can happen where ``count`` of ``series`` do."""
        return count + self.which if isinstance(self.which, int) else int(np.searchsorted(self.which, count))


@dataclass(frozen=True, slots=True)
class Wire:
    """The words of a stream: the events of a series, in a pipe some cycles later."""

    series: Series
    delay: int = 0

    def later(self, cycles: int) -> Wire:
        """Return the wire behind a pipe."""
        return Wire(self.series, self.delay + cycles)

    @property
    def times(self) -> Array:
        """When each word moves."""
        return self.series.times + self.delay

    @property
    def ends(self) -> Array:
        """When the last word of each frame moves."""
        return self.times[self.series.words - 1 :: self.series.words]


def solve(series: Sequence[Series]) -> list[int]:
    """Compute the times of ``series``, given in the order of the data, and return how many events of each happen.

    Those are all, and the times are valid, unless events wait for each other for ever.
    """
    loops = [list(each.loops()) for each in series]
    sweeps = _sweeps(series, lambda number: series[number].update(loops[number]))
    for number, _ in enumerate(sweeps, 1):
        if number == _PATIENCE:
            counts = _counts(series)
            if any(count < len(each.times) for each, count in zip(series, counts, strict=True)):
                return counts
    return [len(each.times) for each in series]


def _counts(series: Sequence[Series]) -> list[int]:
    """How many events of each series happen."""
    counts = dict.fromkeys(series, 0)

    def update(number: int) -> bool:
        each, before = series[number], counts[series[number]]
        counts[each] = min([len(each.times), *(after.reach(counts[after.series]) for after in each.after)])
        return counts[each] > before

    for _ in _sweeps(series, update):
        pass
    return list(counts.values())


def _sweeps(series: Sequence[Series], update: Callable[[int], bool]) -> Iterator[None]:
    """Update what followed a change, along the data and against it in turn, until nothing changes; yield each sweep."""
    numbers = {each: number for number, each in enumerate(series)}
    followers: list[set[int]] = [set() for _ in series]
    for number, each in enumerate(series):
        for after in each.after:
            followers[numbers[after.series]].add(number)
    order, waiting = list(range(len(series))), set(range(len(series)))
    while waiting:
        for number in order:
            if number in waiting:
                waiting.remove(number)
                if update(number):
                    waiting |= followers[number]
        order.reverse()
        yield


def _loop(times: Array, lag: int, cycles: int) -> Array:
    """Return ``times``, raised as little as lets each event follow the ``lag``-th before it by ``cycles``."""
    table = np.concatenate([times, np.full(-len(times) % lag, _NEVER)]).reshape(-1, lag)
    ramp = np.arange(len(table))[:, None] * cycles
    return (np.maximum.accumulate(table - ramp, axis=0) + ramp).ravel()[: len(times)]
