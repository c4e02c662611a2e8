"""Stall patterns: plain endless iterables of 0 (go) and 1 (stall), one for each cycle."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


def none() -> Iterator[int]:
    """Never stall."""
    return itertools.repeat(0)


def at_random(probability: float, seed: int) -> Iterator[int]:
    """Stall each cycle with ``probability``, independently."""
    rng = random.Random(seed)
    return (int(rng.random() < probability) for _ in itertools.count())


def bursts(seed: int, longest: int = 12) -> Iterator[int]:
    """Alternate runs of going and of stalling, each of 1 to ``longest`` cycles."""
    rng = random.Random(seed)
    runs = ([i % 2] * rng.randint(1, longest) for i in itertools.count())
    return itertools.chain.from_iterable(runs)


def periodic(go: int, stall: int) -> Iterator[int]:
    """Go for ``go`` cycles, then stall for ``stall`` cycles, and so on."""
    return itertools.cycle([0] * go + [1] * stall)


def patterns(seed: int) -> dict[str, Iterator[int]]:
    """Return one pattern of each kind: what a bench runs through."""
    return {
        "none": none(),
        "random": at_random(0.5, seed),
        "rare": at_random(0.1, seed + 1),
        "bursts": bursts(seed + 2),
        "periodic": periodic(1, 3),
    }
