"""Planted faults: a graph with one of them must differ, and the comparison must name the node that has it."""

from dataclasses import replace

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import Constant, Graph
from qfx.graph.ops import Conv2d, Requantize
from tests.conformance.cases import Draft


def victim() -> tuple[Graph, np.ndarray]:
    """A convolution, a rounding with ties, another convolution; all are outputs, so that every engine shows them."""
    draft = Draft("victim", "s4.1", (4, 4, 2))
    weight = draft.constant("first.weight", (3, 3, 2, 2), "s3.1")
    first = draft.add("first", Conv2d(padding=(1, 1, 1, 1)), draft.x, weight)
    narrow = draft.add("narrow", Requantize(Fixed(6, 0), Rounding.RND, Overflow.SAT), first)
    second = draft.add("second", Conv2d(), narrow, draft.constant("second.weight", (1, 1, 2, 2), "s3.1"))
    graph = draft.builder.build(first, narrow, second)
    return graph, draft.rng.integers(-8, 8, size=(4, 4, 4, 2))


def with_weight_bit(graph: Graph) -> Graph:
    """The lowest bit of one weight."""
    return _with_weight(graph, "first.weight", lambda codes: codes ^ (np.arange(codes.size) == 5).reshape(codes.shape))


def with_swapped_channels(graph: Graph) -> Graph:
    """The second convolution's two filters in the other order."""
    return _with_weight(graph, "second.weight", lambda codes: codes[..., ::-1])


def with_wrong_rounding(graph: Graph) -> Graph:
    """Ties to even instead of up."""
    node = graph.by_name["narrow"]
    assert isinstance(node.op, Requantize)
    wrong = replace(node, op=replace(node.op, rounding=Rounding.RND_CONV))
    return replace(graph, nodes=tuple(wrong if each is node else each for each in graph.nodes))


FAULTS = {"first": with_weight_bit, "narrow": with_wrong_rounding, "second": with_swapped_channels}  # by faulty node


def _with_weight(graph: Graph, name: str, change: object) -> Graph:
    weight = graph.constants[name]
    codes = change(weight.codes)  # type: ignore[operator]
    return replace(graph, constants={**graph.constants, name: Constant(codes, weight.fixed)})
