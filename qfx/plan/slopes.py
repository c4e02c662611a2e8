"""How a design's resources change with each width in it: the estimate's own formulas, on numbers that carry slopes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, log
from typing import Any

from qfx.graph import Graph, Node
from qfx.graph.ops import Add, Affine, Concat, Conv2d, DeformConv2d, Dense, Input, Lookup, Requantize
from qfx.plan.cost import estimate
from qfx.plan.data import Resources
from qfx.plan.dataflow import Network, Part, owner

Slopes = Mapping[str, float]  # by the name of a node or a constant: change of a number with its width, a bit; or its K


def digits_of(constant: str) -> str:
    """Return the name under which slopes say what a non-zero digit more of a K-hot constant changes."""
    return f"digits of {constant}"


@dataclass(frozen=True, slots=True)
class Slope:
    """A number and how it changes with widths: ``value`` at the widths as they are, ``by`` its derivatives.

    Where a number is rounded up, so is the value, and the derivatives are those of what was rounded.
    """

    value: float
    by: Slopes = field(default_factory=dict)

    def __add__(self, other: Any) -> Slope:
        other = _slope(other)
        return Slope(self.value + other.value, _sum(self.by, 1.0, other.by, 1.0))

    def __mul__(self, other: Any) -> Slope:
        other = _slope(other)
        return Slope(self.value * other.value, _sum(self.by, other.value, other.by, self.value))

    def __truediv__(self, other: float) -> Slope:
        return self * (1 / other)

    def __sub__(self, other: Any) -> Slope:
        return self + _slope(other) * -1

    def __rsub__(self, other: Any) -> Slope:
        return self * -1 + other

    def __rpow__(self, base: int) -> Slope:
        power = base**self.value
        return Slope(power, {name: log(base) * power * slope for name, slope in self.by.items()})

    def __ceil__(self) -> Slope:
        return Slope(ceil(self.value), self.by)

    def __int__(self) -> int:
        return int(self.value)

    def __lt__(self, other: Any) -> bool:
        return bool(self.value < _slope(other).value)

    def __le__(self, other: Any) -> bool:
        return bool(self.value <= _slope(other).value)

    def __gt__(self, other: Any) -> bool:
        return bool(self.value > _slope(other).value)

    __radd__, __rmul__ = __add__, __mul__


def _slope(number: Any) -> Slope:
    return number if isinstance(number, Slope) else Slope(number)


def _sum(a: Slopes, of_a: float, b: Slopes, of_b: float) -> dict[str, float]:
    found = {name: slope * of_a for name, slope in a.items()}
    for name, slope in b.items():
        found[name] = found.get(name, 0.0) + slope * of_b
    return found


def sloped(graph: Graph, net: Network) -> Resources:
    """Return what `estimate` makes of all parts of a design, each count a Slope.

    Widths follow the graph's arithmetic, at unchanged ranges: a product has the bits of both its operands, so a bit
    less in either is one less in everything behind, down to the Requantize that states a width of its own.
    """
    widths = _Widths(graph)
    return sum((estimate(replace(part, parameters=widths.parameters(part))) for part in net.parts), Resources())


def followed(graph: Graph, parts: Sequence[Part], reads: Mapping[str, str]) -> list[dict[str, Slopes]]:
    """Return, for each part, how its parameters follow the widths that are stated, at unchanged ranges.

    Args:
        reads: by convolution or dense node, what states the width that it reads, where no node of the graph does.
    """
    widths = _Widths(graph, reads)
    return [widths.slopes(part) for part in parts]


class _Widths:
    """The widths of a graph as slopes with respect to those that are stated: of Requantize, Input, and constants."""

    def __init__(self, graph: Graph, reads: Mapping[str, str] | None = None) -> None:
        self.graph, self.reads = graph, reads or {}
        self.by: dict[str, Slopes] = {name: {name: 1.0} for name in graph.constants}
        for node in graph.nodes:
            self.by[node.name] = self._node(node)

    def _node(self, node: Node) -> Slopes:
        match node.op:
            case Requantize() | Input():
                return {node.name: 1.0}
            case Conv2d() | Dense() | Affine():
                return _sum(self._first(node), 1.0, self.by[node.inputs[1]], 1.0)
            case DeformConv2d():
                return _sum(self._first(node), 1.0, self.by[node.inputs[2]], 1.0)
            case Add() | Concat():
                return self.by[max(node.inputs, key=self._reach)]
            case Lookup():
                return self.by[node.inputs[1]]
            case _:
                return self.by[node.inputs[0]]

    def _first(self, node: Node) -> Slopes:
        """The width of a node's first operand."""
        return {self.reads[node.name]: 1.0} if node.name in self.reads else self.by[node.inputs[0]]

    def _reach(self, name: str) -> int:
        """The width of an operand on the common grid, but for what both have in common."""
        fixed = self.graph.by_name[name].type.fixed
        return fixed.width - (min(fixed.frac) if isinstance(fixed.frac, tuple) else fixed.frac)

    def parameters(self, part: Part) -> dict[str, Any]:
        """The parameters of a part, those that are widths as slopes."""
        own: Mapping[str, Any] = part.parameters
        slopes = {name: Slope(own[name], by) for name, by in self.slopes(part).items()}
        return {**own, **slopes}

    def slopes(self, part: Part) -> dict[str, Slopes]:
        """How the parameters that are widths change with those that are stated."""
        return {name: rule(self, part) for name, rule in _RULES.items() if name in part.parameters}

    def stream(self, part: Part) -> Slopes:
        """The width of a code in the stream that a part moves."""
        return self.by[next(iter(part.inputs.values())).node]

    def word(self, part: Part) -> Slopes:
        """The width of a word of it."""
        stream = next(iter(part.inputs.values()))
        return {name: stream.lanes * slope for name, slope in self.by[stream.node].items()}

    def operand(self, part: Part, position: int, lanes: int = 1) -> Slopes:
        """The width of an operand of a part's node."""
        node = self.graph.by_name[part.node]
        by = self._first(node) if position == 0 else self.by[owner(self.graph, node.inputs[position])]
        return {source: lanes * slope for source, slope in by.items()}

    def side(self, part: Part, port: str, position: int) -> Slopes:
        """The width of a word of one of two joined streams."""
        return self.operand(part, position, part.inputs[port].lanes)

    def constant(self, part: Part, number: int) -> Slopes:
        """The width of a constant of a part's node; a bias lies on the grid of the products."""
        node = self.graph.by_name[part.node]
        names = [name for name in node.inputs if name in self.graph.constants]
        return self.by[names[0]] if number == 0 else self.by[part.node]

    def digits(self, part: Part) -> Slopes:
        """The K of the constant that a part multiplies by."""
        node = self.graph.by_name[part.node]
        return {digits_of(next(name for name in node.inputs if name in self.graph.constants)): 1.0}

    def shift(self, part: Part) -> Slopes:
        """The bits that a Requantize drops."""
        return _sum(self.operand(part, 0), 1.0, self.by[part.node], -1.0)


_RULES: dict[str, Callable[[_Widths, Part], Slopes]] = {
    "InWidth": lambda widths, part: widths.operand(part, 0),
    "OutWidth": lambda widths, part: widths.by[part.node],
    "AccWidth": lambda widths, part: widths.by[part.node],
    "WeightWidth": lambda widths, part: widths.constant(part, 0),
    "ScaleWidth": lambda widths, part: widths.constant(part, 0),
    "BiasWidth": lambda widths, part: widths.constant(part, 1),
    "OffsetWidth": lambda widths, part: widths.constant(part, 1),
    "Digits": lambda widths, part: widths.digits(part),
    "MinShift": lambda widths, part: widths.shift(part),
    "MaxShift": lambda widths, part: widths.shift(part),
    "AWidth": lambda widths, part: widths.operand(part, 0),
    "BWidth": lambda widths, part: widths.operand(part, 1),
    "WidthA": lambda widths, part: widths.side(part, "a", 0),
    "WidthB": lambda widths, part: widths.side(part, "b", 1),
    "LaneWidth": lambda widths, part: widths.stream(part),
}


def _image_width(widths: _Widths, part: Part) -> Slopes:
    """`Width` is the bits of a word in what moves streams; in what computes, the columns of an image."""
    return {} if part.computes else widths.word(part)


_RULES["Width"] = _image_width
