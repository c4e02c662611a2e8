"""The interpreter from outside: real values and codes, layouts, wrong shapes, which nodes it returns."""

import re

import numpy as np
import pytest

from qfx.errors import FormatError, GraphError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Add, Conv2d, Flatten, Input, MaxPool, Requantize


def image_graph() -> Graph:
    build = GraphBuilder("image")
    x = build.add("x", Input((2, 3, 4), Fixed(6, 2)))
    w = build.constant("w", np.arange(-8, 8).reshape(1, 1, 4, 4), Fixed(5, (1, 2, 3, 4)))
    return build.build(build.add("y", Conv2d(), x, w))


def test_real_values_are_encoded_with_rnd_and_sat_and_results_decoded() -> None:
    build = GraphBuilder("g")
    graph = build.build(build.add("x", Input((4,), Fixed(4, 1))))
    assert graph.evaluate(np.array([[0.24, 0.25, -0.25, 100.0]])).tolist() == [[0.0, 0.5, 0.0, 3.5]]


def test_per_channel_results_are_decoded_channel_by_channel(rng: np.random.Generator) -> None:
    graph = image_graph()
    x = rng.integers(-32, 32, size=(3, 2, 3, 4)) / 4
    weight = np.arange(-8, 8).reshape(4, 4) / 2.0 ** np.arange(1, 5)
    np.testing.assert_array_equal(graph.evaluate(x), x @ weight)


def test_both_layouts_give_the_same_values(rng: np.random.Generator) -> None:
    graph, x = image_graph(), rng.normal(size=(3, 2, 3, 4))
    turned = graph.evaluate(x.transpose(0, 3, 1, 2), layout="NCHW")
    np.testing.assert_array_equal(turned, graph.evaluate(x).transpose(0, 3, 1, 2))


def test_a_vector_has_no_layout() -> None:
    build = GraphBuilder("g")
    graph = build.build(build.add("x", Input((4,), Fixed(4, 1))))
    x = np.ones((2, 4))
    np.testing.assert_array_equal(graph.evaluate(x, layout="NCHW"), graph.evaluate(x))


def test_several_outputs_come_by_name_and_one_alone() -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((2, 2, 1), Fixed(4, 1)))
    graph = build.build(build.add("a", MaxPool((2, 2), (1, 1)), x), build.add("b", Flatten(), x))
    assert set(graph.evaluate(np.ones((1, 2, 2, 1)))) == {"a", "b"}
    assert set(graph.evaluate_codes(np.ones((1, 2, 2, 1), dtype=int))) == {"a", "b"}
    assert isinstance(image_graph().evaluate(np.ones((1, 2, 3, 4))), np.ndarray)


def test_every_node_s_codes_can_be_had_and_are_those_of_the_outputs(rng: np.random.Generator) -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((3,), Fixed(4, 1)))
    graph = build.build(build.add("s", Requantize(Fixed(3, 0)), build.add("y", Add(), x, x)))
    codes = rng.integers(-8, 8, size=(5, 3))
    every = graph.evaluate_codes(codes, all_nodes=True)
    assert list(every) == ["x", "y", "s"]
    np.testing.assert_array_equal(every["s"], graph.evaluate_codes(codes)["s"])
    np.testing.assert_array_equal(every["y"], 2 * codes)


def test_a_batch_of_none_is_refused_since_nothing_would_pass_for_equal() -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((2, 2, 1), Fixed(4, 1)))
    pooled = build.add("p", MaxPool((2, 2), (1, 1), (1, 0, 0, 0)), x)
    graph = build.build(build.add("f", Flatten(), pooled))
    assert graph.evaluate_codes(np.zeros((1, 2, 2, 1), dtype=int))["f"].shape == (1, 2)
    with pytest.raises(
        GraphError, match=r"input codes must have shape \(N, 2, 2, 1\), N at least 1, not \(0, 2, 2, 1\)"
    ):
        graph.evaluate_codes(np.zeros((0, 2, 2, 1), dtype=int))


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((3, 4, 2, 3), "NHWC", "the input 'x' must have shape (N, 2, 3, 4) in NHWC, N at least 1, not (3, 4, 2, 3)"),
        ((3, 2, 3, 4), "NCHW", "the input 'x' must have shape (N, 4, 2, 3) in NCHW, N at least 1, not (3, 2, 3, 4)"),
        ((2, 3, 4), "NHWC", "the input 'x' must have shape (N, 2, 3, 4) in NHWC, N at least 1, not (2, 3, 4)"),
        ((2, 3, 4), "NCHW", "the input 'x' must have shape (N, 4, 2, 3) in NCHW, N at least 1, not (2, 3, 4)"),
        ((2, 3, 4), "CHW", "layout must be 'NHWC' or 'NCHW', not 'CHW'"),
    ],
)
def test_a_wrong_shape_is_refused_in_the_caller_s_layout(shape: tuple[int, ...], layout: str, message: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(message)}$"):
        image_graph().evaluate(np.zeros(shape), layout=layout)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 2, 3, 4)), "input codes must be integers, not float64: Graph.encode makes them from real values"),
        (np.full((1, 2, 3, 4), 32), "input codes must lie in -32..31 (s6.2), not 32..32"),
        (
            np.full((1, 2, 3, 4), 2**63, dtype=np.uint64),
            "input codes must lie in -32..31 (s6.2), not 922337",
        ),
        (np.zeros((1, 2, 3), dtype=int), "input codes must have shape (N, 2, 3, 4), N at least 1, not (1, 2, 3)"),
    ],
)
def test_codes_that_are_none_of_the_input_s_are_refused(codes: np.ndarray, message: str) -> None:
    with pytest.raises(GraphError, match=re.escape(message)):
        image_graph().evaluate_codes(codes)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FormatError, match="values to encode must be finite"):
        image_graph().evaluate(np.full((1, 2, 3, 4), np.nan))
