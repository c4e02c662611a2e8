"""Pairs of operands as qfx_join makes them, {b, a}: random codes, the ends of their ranges among them."""

from collections.abc import Mapping

import numpy as np

from qfx_sim.lanes import Lanes


def random_pairs(p: Mapping[str, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return codes of a and b, and the words that carry them, by a part's parameters AWidth, ASigned, ..., Lanes."""
    a, b = (_codes(rng, p[f"{x}Width"], bool(p[f"{x}Signed"]), p["Lanes"]) for x in "AB")
    low, high = (Lanes(p[f"{x}Width"], p["Lanes"], p["Lanes"]).words(codes) for x, codes in (("A", a), ("B", b)))
    return a, b, [upper << (p["Lanes"] * p["AWidth"]) | lower for lower, upper in zip(low, high, strict=True)]


def _codes(rng: np.random.Generator, width: int, signed: bool, lanes: int) -> np.ndarray:
    low = -(1 << width - 1) if signed else 0
    high = low + (1 << width) - 1
    codes = rng.integers(low, high + 1, (300, lanes))
    return np.where(rng.random(codes.shape) < 0.3, rng.choice([low, high], codes.shape), codes)
