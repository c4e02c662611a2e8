"""The width proof: no code ever leaves its static range, and where a range can be reached it is no wider."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.fixed import Fixed, Overflow, Rounding, requantize
from qfx.graph import Graph, GraphBuilder, run_passes
from qfx.graph.bounds import static_ranges
from qfx.graph.ops import (
    Add,
    Affine,
    Clamp,
    Concat,
    Conv2d,
    Dense,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Requantize,
    SumPool,
)
from tests.conformance.cases import case_named, case_names
from tests.conformance.random_graphs import random_codes, random_graphs


def first_escape(graph: Graph, codes: np.ndarray) -> str | None:
    """The first node with a code outside its static range or its format, if any."""
    ranges = static_ranges(graph)
    for name, found in graph.evaluate_codes(codes, all_nodes=True).items():
        fixed, bound = graph.by_name[name].type.fixed, ranges[name]
        flat = found.reshape(-1, found.shape[-1])
        inside = (flat >= bound.low).all() and (flat <= bound.high).all()
        if not inside or flat.min() < fixed.min_code or flat.max() > fixed.max_code:
            return name
    return None


def test_no_code_of_a_random_graph_leaves_its_range_before_or_after_the_passes() -> None:
    for index, graph in enumerate(random_graphs(seed=21, count=60)):
        codes = random_codes(graph, 12, index)
        assert first_escape(graph, codes) is None, graph.name
        assert first_escape(run_passes(graph), codes) is None, graph.name


@pytest.mark.parametrize("name", case_names())
def test_no_code_of_a_case_leaves_its_range(name: str) -> None:
    case = case_named(name)
    assert first_escape(run_passes(case.graph), case.codes) is None


def test_the_check_sees_a_range_that_is_one_code_too_small() -> None:
    case = case_named("flatten_image")
    node = case.graph.nodes[-1]
    narrow = replace(node, type=replace(node.type, fixed=Fixed(3, 1)))
    graph = Graph("narrow", (case.graph.nodes[0], narrow), {}, case.graph.outputs)
    assert first_escape(graph, case.codes) == "y"


def reached(*layers: tuple[str, object, tuple[np.ndarray, ...]], fixed: str, shape: tuple[int, ...]) -> Graph:
    """A chain of operations with constants on the grids that they need."""
    build = GraphBuilder("chain")
    x = build.add("x", Input(shape, Fixed.parse(fixed)))
    for name, op, constants in layers:
        inputs = [build.constant(f"{name}{i}", codes, Fixed(8, 0)) for i, codes in enumerate(constants)]
        x = build.add(name, op, x, *inputs)  # type: ignore[arg-type]
    return build.build(x)


def ends(graph: Graph) -> tuple[int, int]:
    bound = static_ranges(graph)[graph.outputs[0]]
    return int(bound.low.min()), int(bound.high.max())


WEIGHT = np.array([[3], [-2], [0], [5]])


@pytest.mark.parametrize(
    ("graph", "low", "high"),
    [
        (reached(("y", Dense(), (WEIGHT,)), fixed="s4.0", shape=(4,)), -80, 80),
        (reached(("y", Dense(), (WEIGHT, np.array([7]))), fixed="u4.0", shape=(4,)), -157, 157),
        (reached(("y", Affine(), (np.array([3]), np.array([-4]))), fixed="s4.0", shape=(1,)), -28, 28),
        (reached(("y", SumPool((2, 2), (2, 2)), ()), fixed="s4.0", shape=(2, 2, 1)), -32, 28),
        (reached(("y", SumPool((2, 2), (2, 2)), ()), fixed="u4.0", shape=(2, 2, 1)), 0, 60),
        (reached(("y", MaxPool((2, 2), (2, 2)), ()), fixed="s4.0", shape=(2, 2, 1)), -8, 7),
        (reached(("y", Clamp(-3, 5), ()), fixed="s4.0", shape=(2,)), -3, 5),
        (reached(("y", Requantize(Fixed(9, 2)), ()), fixed="s4.0", shape=(2,)), -32, 28),
        (reached(("y", Requantize(Fixed(9, -2)), ()), fixed="s4.0", shape=(2,)), -2, 2),
        (reached(("y", Requantize(Fixed(3, 0)), ()), fixed="s4.0", shape=(2,)), -4, 3),
        (
            reached(("c", Clamp(1, 2), ()), ("y", SumPool((2, 2), (1, 1)), ()), fixed="s4.0", shape=(2, 2, 1)),
            4,
            8,
        ),
        (
            reached(
                ("c", Clamp(1, 2), ()),
                ("y", SumPool((2, 2), (1, 1), (1, 0, 0, 0)), ()),
                fixed="s4.0",
                shape=(2, 2, 1),
            ),
            0,
            8,
        ),
    ],
)
def test_a_range_is_as_tight_as_its_formula(graph: Graph, low: int, high: int) -> None:
    assert ends(graph) == (low, high)


def test_a_range_is_kept_for_each_channel() -> None:
    weight = np.array([1, -5, 0]).reshape(1, 1, 1, 3)
    graph = reached(("y", Conv2d(), (weight,)), fixed="u3.0", shape=(2, 2, 1))
    bound = static_ranges(graph)["y"]
    assert bound.high.tolist() == [7, 35, 0] and bound.low.tolist() == [-7, -35, 0]


@pytest.mark.parametrize(
    ("low", "high", "reached"), [(-8, 7, (-9, 5)), (-3, 1, (-7, 5)), (2, 7, (-2, 3)), (4, 4, (1, 1))]
)
def test_a_lookup_reaches_the_entries_of_the_codes_that_its_input_reaches(low, high, reached) -> None:
    build = GraphBuilder("lookup")
    x = build.add("c", Clamp(low, high), build.add("x", Input((2,), Fixed(4, 0))))
    x = build.add("r", Requantize(Fixed(4, 0)), x)
    entries = [-9, 4, -8, 0, 0, 5, -7, 2, 2, 0, -1, 3, 1, -2, 0, 0]
    table = build.constant("t", np.array(entries), Fixed(6, 2))
    graph = build.build(build.add("y", Lookup(), x, table))
    every = graph.evaluate_codes(np.arange(-8, 8).reshape(8, 2))["y"]
    assert ends(graph) == reached == (every.min(), every.max())


def test_the_sum_of_aligned_operands_is_interval_arithmetic() -> None:
    build = GraphBuilder("add")
    x = build.add("x", Input((2,), Fixed(4, 0)))
    y = build.add("r", Requantize(Fixed(3, 2, signed=False), overflow=Overflow.SAT), x)
    graph = build.build(build.add("y", Add(), x, y))
    assert ends(graph) == (-32, 28 + 7)


def test_a_product_reaches_the_products_of_the_ends() -> None:
    build = GraphBuilder("multiply")
    x = build.add("x", Input((2,), Fixed(4, 0)))
    y = build.add("r", Requantize(Fixed(3, 2, signed=False)), x)
    graph = build.build(build.add("y", Multiply(), x, y))
    assert ends(graph) == (-8 * 7, 7 * 7) and build.type("y").fixed == Fixed(7, 2)
    assert ends(build.build(build.add("z", Multiply(), x, x))) == (-8 * 7, 64)


def test_concatenated_channels_keep_their_ranges() -> None:
    build = GraphBuilder("concat")
    x = build.add("x", Input((2,), Fixed(4, 0)))
    y = build.add("y", Concat(), build.add("r", Requantize(Fixed(3, 2, signed=False)), x), x)
    bound = static_ranges(build.build(y))["y"]
    assert bound.low.tolist() == [0, 0, -8, -8] and bound.high.tolist() == [7, 7, 7, 7]
    assert build.type(y).fixed == Fixed(4, (2, 2, 0, 0))


codes = st.integers(-(2**61), 2**61 - 1)


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(codes, codes),
    st.integers(-64, 64),
    st.integers(0, 62),
    st.integers(-64, 64),
    st.booleans(),
    st.sampled_from(Rounding),
    st.sampled_from(Overflow),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_the_range_of_requantize_holds_every_code_between_its_ends(
    pair: tuple[int, int],
    frac: int,
    width: int,
    to_frac: int,
    signed: bool,
    rounding: Rounding,
    overflow: Overflow,
    between: list[float],
) -> None:
    low, high = sorted(pair)
    op = Requantize(Fixed(width, to_frac, signed), rounding, overflow)
    build = GraphBuilder("g")
    x = build.add("c", Clamp(low, high), build.add("x", Input((1,), Fixed(62, frac))))
    bound = static_ranges(build.build(build.add("y", op, x)))["y"]
    inner = [min(max(low + int(part * (high - low)), low), high) for part in between]
    tried = np.array([low, high, min(low + 1, high), max(high - 1, low), *inner, *([0] if low <= 0 <= high else [])])
    found = requantize(tried, Fixed(62, frac), op.to, rounding, overflow)
    assert bound.low[0] <= found.min() and found.max() <= bound.high[0]


def test_wrapping_at_the_widest_formats_is_seen() -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((1,), Fixed(62, 0)))
    graph = build.build(build.add("y", Requantize(Fixed(62, 3), Rounding.TRN, Overflow.WRAP), x))
    assert ends(graph) == (-(2**61), 2**61 - 1)


def test_a_negative_value_wraps_in_an_unsigned_format_although_saturation_makes_it_zero() -> None:
    graph = reached(("y", Requantize(Fixed(4, 0, False), Rounding.TRN, Overflow.WRAP), ()), fixed="s2.0", shape=(1,))
    assert ends(graph) == (0, 15)
