"""Comparing engines: equal passes, and every kind of difference is named where it comes first."""

import numpy as np
import pytest

from qfx.errors import MismatchError
from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Input, Requantize
from qfx.steps.compare import UnequalCodes, first_mismatch, require_equal


@pytest.fixture(scope="module")
def graph() -> Graph:
    builder = GraphBuilder("small")
    x = builder.add("x", Input((3, 3, 2), Fixed(4, 1, signed=False)))
    weight = builder.constant("w", np.array([[[[1, -2], [3, 1]]]]), Fixed(4, (1, 3)))
    conv = builder.add("conv", Conv2d(), x, weight)
    out = builder.add("out", Requantize(Fixed(6, 2), Rounding.RND, Overflow.SAT), conv)
    return builder.build(out)


@pytest.fixture
def codes(
    graph: Graph,
) -> dict[str, np.ndarray]:
    return graph.evaluate_codes(np.random.default_rng(1).integers(0, 16, (4, 3, 3, 2)), all_nodes=True)


def changed(codes: dict[str, np.ndarray], name: str, place: tuple[int, ...], by: int) -> dict[str, np.ndarray]:
    found = {key: value.copy() for key, value in codes.items()}
    found[name][place] += by
    return found


def test_equal_codes_pass_and_are_counted(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    compared = require_equal(graph, codes, codes, "csim", {"stalls": "none"})
    assert compared == {"stalls": "none", "frames": 4, "nodes": 3, "codes": 3 * 72, "output_codes": 72, "equal": True}


def test_one_wrong_bit_names_node_place_codes_values_and_format(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    found = changed(codes, "conv", (2, 1, 0, 1), 1)
    right = int(codes["conv"][2, 1, 0, 1])
    with pytest.raises(UnequalCodes) as caught:
        require_equal(graph, codes, found, "csim")
    kind = graph.by_name["conv"].type.fixed
    assert str(caught.value) == (
        f"csim: node 'conv' (Conv2d) must give code {right} ({right / 16:g}) at frame 2, pixel (1, 0), channel 1, "
        f"not {right + 1} ({(right + 1) / 16:g}), in {kind}; 1 of its 72 codes differ, and 1 nodes before it are equal"
    )
    assert caught.value.figures["mismatch"]["node"] == "conv" and caught.value.figures["equal"] is False


def test_the_first_node_in_the_order_of_the_graph_is_named(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    found = changed(changed(codes, "out", (0, 0, 0, 0), 1), "conv", (3, 2, 2, 1), 1)
    mismatch = first_mismatch(graph, codes, found, "RTL")
    assert mismatch is not None and mismatch.node == "conv"


def test_a_swapped_channel_is_a_difference(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    found = {**codes, "out": codes["out"][..., ::-1]}
    assert first_mismatch(graph, codes, found, "RTL") is not None


def test_a_missing_frame_is_a_difference(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    found = {name: value[:-1] for name, value in codes.items()}
    with pytest.raises(
        MismatchError, match=r"RTL: node 'x' must give codes of shape \(4, 3, 3, 2\), not \(3, 3, 3, 2\)"
    ):
        require_equal(graph, codes, found, "RTL")


def test_nothing_to_compare_is_not_equality(graph: Graph, codes: dict[str, np.ndarray]) -> None:
    with pytest.raises(MismatchError, match="RTL: the codes of output 'out' must be there to compare"):
        require_equal(graph, codes, {"x": codes["x"]}, "RTL")
    empty = {name: value[:0] for name, value in codes.items()}
    with pytest.raises(MismatchError, match="RTL: the codes of output 'out' must be there to compare"):
        require_equal(graph, empty, empty, "RTL")
