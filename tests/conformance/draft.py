"""What a case is: a small graph under one operation, and the input codes that strain it; the list of all."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from qfx.fixed import Fixed, nearest_khot, simplest_frac
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Input
from tests.conformance.random_graphs import random_codes

IMAGES = 6  # of each case that has not codes of its own


@dataclass(frozen=True, eq=False)
class Case:
    """A graph whose last node is the operation under test, and codes for its input."""

    name: str
    op: str
    graph: Graph
    codes: np.ndarray


class Draft:
    """A graph under construction, with seeded constants."""

    def __init__(self, name: str, fixed: str, shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.builder = GraphBuilder(name)
        self.x = self.builder.add("x", Input(shape, Fixed.parse(fixed)))

    def add(self, name: str, op: object, *inputs: str) -> str:
        return self.builder.add(name, op, *inputs)  # type: ignore[arg-type]

    def constant(self, name: str, shape: tuple[int, ...], fixed: str = "s4.2") -> str:
        """Random codes over the whole format, both ends among them where there is room."""
        kind = Fixed.parse(fixed)
        codes = self.rng.integers(kind.min_code, kind.max_code, size=shape, endpoint=True)
        if codes.size > 1:
            codes.flat[[0, -1]] = kind.min_code, kind.max_code
        return self.builder.constant(name, codes, kind)

    def khot(self, name: str, shape: tuple[int, ...], signed_digits: bool, width: int = 8) -> str:
        """Codes with at most two non-zero digits, the largest one and zero among them."""
        values = self.rng.normal(scale=2.0 ** (width - 2), size=shape)
        values.flat[0] = 2.0**width
        values.flat[-1] = 0.0
        codes = nearest_khot(values, width, 2, signed_digits)
        return self.builder.constant(name, codes, Fixed(width, 5), max_digits=2, signed_digits=signed_digits)

    def grid(self, name: str, x: str, factor: str, width: int = 6) -> str:
        """A bias or shift on the grid of the products of a tensor and a constant."""
        constant = self.builder.constants[factor]
        channels = constant.type.channels
        fracs = self.builder.type(x).fixed.fracs(channels) + constant.fixed.fracs(channels)
        fixed = Fixed(width, simplest_frac(fracs))
        return self.builder.constant(name, self.rng.integers(fixed.min_code, fixed.max_code + 1, channels), fixed)


Write = Callable[[Draft], str]
_WRITERS: dict[str, tuple[str, str, tuple[int, ...], Write, Callable[[], np.ndarray] | None]] = {}


def case(
    op: str, name: str, write: Write, fixed: str = "s4.1", shape: tuple[int, ...] = (5, 4, 3), codes: object = None
) -> None:
    """Enter a case into the list."""
    name = f"{op.lower()}_{name}"
    if name in _WRITERS:
        raise ValueError(f"case names must be unique, but {name!r} is there twice")
    _WRITERS[name] = (op, fixed, shape, write, codes)  # type: ignore[assignment]


@cache
def case_named(name: str) -> Case:
    """Build one case."""
    op, fixed, shape, write, codes = _WRITERS[name]
    draft = Draft(name, fixed, shape)
    graph = draft.builder.build(write(draft))
    return Case(name, op, graph, codes() if codes else random_codes(graph, IMAGES, zlib.crc32(name.encode())))


def case_names(op: str | None = None) -> list[str]:
    """The names of all cases, or of those of one operation."""
    return [name for name, (of, *_) in _WRITERS.items() if op in (None, of)]


SAME = {"padding": (1, 1, 1, 1)}


def conv(
    draft: Draft,
    kernel: tuple[int, int] = (3, 3),
    filters: int = 4,
    weight: str = "s4.2",
    bias: bool = True,
    digits: str = "",
    **op: object,
) -> str:
    """Add a convolution of the input to a draft."""
    channels = draft.builder.type(draft.x).channels
    shape = (*kernel, channels // int(op.get("groups", 1)), filters)  # type: ignore[call-overload]
    w = draft.khot("w", shape, digits == "signed") if digits else draft.constant("w", shape, weight)
    biases = (draft.grid("b", draft.x, w),) if bias else ()
    return draft.add("y", Conv2d(**op), draft.x, w, *biases)  # type: ignore[arg-type]
