"""Passes keep every output's integers, do what they promise, and leave alone what they must."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import Constant, Graph, GraphBuilder, Node, TensorType, run_passes, verify
from qfx.graph.ops import Add, Clamp, Conv2d, Dense, Flatten, Input, Lookup, MaxPool, Op, Requantize
from qfx.graph.passes import DEFAULT, Pass, fuse_requantize, narrow_widths, remove_dead, remove_zero_width
from tests.conformance.cases import case_named, case_names
from tests.conformance.random_graphs import random_codes, random_graphs

PASSES = [*DEFAULT, run_passes]


def same_outputs(before: Graph, after: Graph, codes: np.ndarray) -> bool:
    verify(after)
    assert before.outputs == after.outputs
    wanted, found = before.evaluate_codes(codes), after.evaluate_codes(codes)
    return all(np.array_equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("apply", PASSES)
def test_a_pass_keeps_every_output_of_random_graphs(apply: Pass) -> None:
    for index, graph in enumerate(random_graphs(seed=31, count=60)):
        assert same_outputs(graph, apply(graph), random_codes(graph, 8, index)), graph.name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(DEFAULT))
def test_passes_keep_every_output_in_any_order_and_when_repeated(seed: int, order: list[Pass]) -> None:
    for graph in random_graphs(seed, count=2, blocks=3):
        changed = run_passes(run_passes(graph, order))
        assert same_outputs(graph, changed, random_codes(graph, 8, seed))


@pytest.mark.parametrize("name", case_names())
def test_all_passes_keep_every_output_of_a_case(name: str) -> None:
    case = case_named(name)
    assert same_outputs(case.graph, run_passes(case.graph), case.codes)


def test_the_comparison_sees_a_pass_that_changes_one_rounding_mode() -> None:
    case = case_named("requantize_rnd_sat_s4_1")
    build = GraphBuilder("changed")
    x = build.add("x", case.graph.input.op)
    wrong = build.build(build.add("y", Requantize(Fixed(4, 1), Rounding.RND_CONV, Overflow.SAT), x))
    assert not same_outputs(case.graph, wrong, case.codes)


def chain(*ops: tuple[str, Op], fixed: str = "s5.2", outputs: tuple[str, ...] = ()) -> Graph:
    build = GraphBuilder("chain")
    x = build.add("x", Input((4,), Fixed.parse(fixed)))
    for name, op in ops:
        x = build.add(name, op, x)
    return build.build(*(outputs or (x,)))


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


RELU = Clamp(0, 15)
UNSIGNED = Fixed(3, 0, signed=False)


@pytest.mark.parametrize("overflow", Overflow)
def test_relu_fuses_into_an_unsigned_saturation_and_no_other_overflow(overflow: Overflow) -> None:
    graph = fuse_requantize(chain(("relu", RELU), ("y", Requantize(UNSIGNED, Rounding.RND, overflow))))
    assert names(graph) == (["x", "y"] if overflow is Overflow.SAT else ["x", "relu", "y"])


@pytest.mark.parametrize(
    ("why", "ops"),
    [
        ("the result is signed", [("relu", RELU), ("y", Requantize(Fixed(3, 0)))]),
        ("the upper bound cuts", [("relu", Clamp(0, 9)), ("y", Requantize(UNSIGNED))]),
        ("the lower bound is not zero", [("relu", Clamp(1, 15)), ("y", Requantize(UNSIGNED))]),
        ("a pool reads it", [("relu", RELU), ("f", Flatten()), ("y", Requantize(UNSIGNED))]),
    ],
)
def test_relu_stays_where_saturation_would_not_repeat_it(why: str, ops: list[tuple[str, Op]]) -> None:
    assert "relu" in names(fuse_requantize(chain(*ops))), why


def forked(second: Op) -> Graph:
    build = GraphBuilder("fork")
    x = build.add("x", Input((4,), Fixed(5, 2)))
    relu = build.add("relu", RELU, x)
    a = build.add("a", Requantize(UNSIGNED), relu)
    return build.build(a, build.add("b", second, relu))


def test_a_shared_relu_fuses_only_if_every_reader_saturates() -> None:
    assert "relu" not in names(fuse_requantize(forked(Requantize(Fixed(2, 1, signed=False)))))
    assert "relu" in names(fuse_requantize(forked(Requantize(UNSIGNED, Rounding.RND, Overflow.WRAP))))
    assert "relu" in names(fuse_requantize(forked(Requantize(Fixed(4, 0)))))


def test_an_output_is_never_fused_away() -> None:
    graph = chain(("relu", RELU), ("y", Requantize(UNSIGNED)), outputs=("relu", "y"))
    assert "relu" in names(fuse_requantize(graph))


@pytest.mark.parametrize("overflow", Overflow)
def test_a_conversion_to_its_own_format_goes_unless_sat_sym_moves_the_lowest_code(overflow: Overflow) -> None:
    graph = chain(("same", Requantize(Fixed(5, 2), Rounding.RND, overflow)), ("y", Flatten()))
    assert ("same" in names(fuse_requantize(graph))) == (overflow is Overflow.SAT_SYM)


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        (Requantize(Fixed(7, 4)), False),  # exact: two more fraction bits, two more bits
        (Requantize(Fixed(6, 4)), True),  # saturates
        (Requantize(Fixed(7, 1)), True),  # rounds
        (Requantize(Fixed(7, 4), overflow=Overflow.SAT_SYM), True),  # moves -64
        (Requantize(Fixed(8, 4), overflow=Overflow.SAT_SYM), False),
        (Requantize(Fixed(7, 4, signed=False), overflow=Overflow.WRAP), True),
    ],
)
def test_only_an_exact_conversion_before_another_one_goes(first: Requantize, kept: bool) -> None:
    graph = chain(("first", first), ("y", Requantize(Fixed(3, 0))))
    assert ("first" in names(fuse_requantize(graph))) == kept


def test_an_exact_conversion_stays_before_arithmetic_that_needs_its_format() -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((2, 2, 1), Fixed(5, 2)))
    first = build.add("first", Requantize(Fixed(7, 4)), x)
    graph = build.build(build.add("y", MaxPool((2, 2), (1, 1)), first))
    assert "first" in names(fuse_requantize(graph))


def zero_width() -> Graph:
    build = GraphBuilder("zero")
    x = build.add("x", Input((2, 2, 3), Fixed(4, 1)))
    w = build.constant("w", np.zeros((1, 1, 3, 3), dtype=np.int64), Fixed(0, 1), max_digits=1)
    y = build.add("c", Conv2d(), x, w)
    none = build.add("none", Requantize(Fixed(0, 3)), y)
    build.add("none.zero", Requantize(Fixed(2, 0)), x)  # takes the name that the pass would choose
    return build.build(build.add("y", Add(), none, x), "none.zero")


def test_no_width_is_zero_after_remove_zero_width_and_every_value_stays() -> None:
    graph = zero_width()
    removed = remove_zero_width(graph)
    widths = [n.type.fixed.width for n in removed.nodes] + [c.fixed.width for c in removed.constants.values()]
    assert min(widths) == 1
    assert same_outputs(graph, removed, random_codes(graph, 9, 0))


def test_a_result_that_was_written_with_width_0_gets_one_bit() -> None:
    build = GraphBuilder("g")
    x = build.add("x", Input((2,), Fixed(4, 1)))
    y = build.add("y", Clamp(0, 0), x)
    nodes = (build.nodes[0], Node(y, Clamp(0, 0), (x,), TensorType((2,), Fixed(0, 1))))
    graph = Graph("g", nodes, {}, (y,))
    verify(graph)
    assert remove_zero_width(graph).by_name["y"].type.fixed == Fixed(1, 1, signed=False)


def test_a_graph_without_width_0_is_returned_as_it_is() -> None:
    graph = chain(("y", RELU))
    assert remove_zero_width(graph) is graph


def test_dead_nodes_and_their_constants_go_and_the_input_stays() -> None:
    build = GraphBuilder("dead")
    x = build.add("x", Input((3,), Fixed(4, 0)))
    w = build.constant("w", np.ones((3, 2), dtype=np.int64), Fixed(2, 0))
    build.constant("unread", np.ones(2, dtype=np.int64), Fixed(2, 0))
    build.add("dead", Dense(), x, w)
    graph = remove_dead(build.build(build.add("y", Flatten(), x)))
    assert names(graph) == ["x", "y"] and not graph.constants


def test_narrowing_gives_an_accumulator_the_width_that_its_weights_need() -> None:
    build = GraphBuilder("narrow")
    x = build.add("c", Clamp(0, 3), build.add("x", Input((4,), Fixed(8, 0))))
    w = build.constant("w", np.array([[1], [0], [-1], [1]]), Fixed(8, 0))
    wide = build.build(build.add("y", Dense(), x, w))
    assert str(narrow_widths(wide).by_name["y"].type.fixed) == "s5.0"  # -9 .. 9


def test_narrowing_leaves_the_formats_that_training_chose() -> None:
    graph = narrow_widths(chain(("c", Clamp(0, 1)), ("y", Requantize(Fixed(9, 2)))))
    assert graph.by_name["y"].type.fixed == Fixed(9, 2) and graph.by_name["x"].type.fixed == Fixed(5, 2)


def test_narrowing_leaves_what_a_lookup_reads_the_format_that_the_table_is_made_for() -> None:
    case = case_named("lookup_of_reached_codes")
    graph = run_passes(run_passes(case.graph))
    assert [str(node.type.fixed) for node in graph.nodes] == ["s4.1", "s5.1", "s3.1", "s9.4"]
    assert same_outputs(case.graph, graph, case.codes)


def test_a_lookup_may_read_a_narrowed_sum_through_operations_that_keep_its_codes() -> None:
    build = GraphBuilder("g")
    x = build.add("c", Clamp(0, 3), build.add("x", Input((2, 2, 1), Fixed(4, 0))))
    y = build.add("f", Flatten(), build.add("m", MaxPool((1, 1), (1, 1)), build.add("s", Add(), x, x)))
    table = build.constant("t", np.arange(1 << build.type(y).fixed.width), Fixed(5, 0, signed=False))
    graph = build.build(build.add("y", Lookup(), y, table))
    assert same_outputs(graph, run_passes(run_passes(graph)), random_codes(graph, 20, 0))


def test_a_table_of_one_entry_gets_another_that_is_never_read() -> None:
    graph = remove_zero_width(case_named("lookup_of_width_0").graph)
    (table,) = graph.constants.values()
    assert len(table.codes) == 2 and table.codes[0] == table.codes[1] != 0


@pytest.mark.parametrize("bounds", [(40, 50), (-60, -50), (0, 63)])
@pytest.mark.parametrize("between", [False, True])
def test_a_clamp_beyond_what_its_input_reaches_still_gives_its_bound(bounds: tuple[int, int], between: bool) -> None:
    build = GraphBuilder("clamp")
    x = build.add("x", Input((1,), Fixed(2, 0)))
    w = build.constant("w", np.array([[3]]), Fixed(3, 0))
    y = build.add("y", Dense(), x, w)
    wide = Node("y", Dense(), ("x", "w"), TensorType((1,), Fixed(7, 0)))
    nodes = [build.nodes[0], wide]
    if between:
        nodes.append(Node("f", Flatten(), ("y",), wide.type))
        y = "f"
    op = Clamp(*bounds)
    nodes.append(Node("z", op, (y,), op.infer([wide.type])))
    graph = Graph("clamp", tuple(nodes), build.constants, ("z",))
    assert same_outputs(graph, narrow_widths(graph), np.array([[-2], [-1], [0], [1]]))


def test_the_verifier_runs_after_each_pass() -> None:
    def breaks(graph: Graph) -> Graph:
        return graph.replace_nodes(graph.nodes, {**graph.constants, "w": Constant(np.array([9]), Fixed(2, 0))})

    build = GraphBuilder("g")
    x = build.add("x", Input((1,), Fixed(2, 0)))
    w = build.constant("w", np.array([[1]]), Fixed(2, 0))
    graph = build.build(build.add("y", Dense(), x, w))
    with pytest.raises(Exception, match="rule G6"):
        run_passes(graph, [breaks])


def test_every_pass_is_among_the_default_ones() -> None:
    from pathlib import Path

    import qfx.graph.passes as package

    found = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "rebuild"}
    order: list[Callable[..., Graph]] = list(DEFAULT)
    assert found == {apply.__name__ for apply in order}
