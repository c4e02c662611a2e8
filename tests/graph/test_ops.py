"""Each operation's integers, against loops over Python integers, against torch and at the limits of its arithmetic."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qfx.errors import GraphError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Conv2d, Dense, Input, MaxPool, SumPool
from tests.conformance.cases import case_named, case_names
from tests.conformance.random_graphs import random_codes, random_graphs
from tests.graph import loops


def first_difference(graph: Graph, codes: np.ndarray) -> str | None:
    """The first node at which the interpreter and the loops differ, if any."""
    found = graph.evaluate_codes(codes, all_nodes=True)
    for image in range(len(codes)):
        expected = loops.evaluate(graph, codes[image])
        for name, wanted in expected.items():
            if not np.array_equal(found[name][image], wanted):
                return name
    return None


@pytest.mark.parametrize("name", case_names())
def test_an_operation_computes_what_its_formula_says(name: str) -> None:
    case = case_named(name)
    assert first_difference(case.graph, case.codes[:4]) is None


def test_whole_random_graphs_compute_what_the_formulas_say() -> None:
    for index, graph in enumerate(random_graphs(seed=11, count=25, blocks=4, largest=4)):
        assert first_difference(graph, random_codes(graph, 3, index)) is None, graph.name


def test_the_loops_see_a_swapped_channel() -> None:
    case = case_named("conv2d_same")
    weight = case.graph.constants["w"]
    swapped = {**case.graph.constants, "w": type(weight)(weight.codes[..., [1, 0, 2, 3]], weight.fixed)}
    graph = Graph("swapped", case.graph.nodes, swapped, case.graph.outputs)
    found = graph.evaluate_codes(case.codes[:1])["y"][0]
    assert not np.array_equal(found, loops.evaluate(case.graph, case.codes[0])["y"])


def nchw(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(codes).to(torch.float64).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", case_names("Conv2d"))
def test_convolution_is_torch_s_in_float64(name: str) -> None:
    case = case_named(name)
    op, constants = case.graph.nodes[-1].op, case.graph.constants
    assert isinstance(op, Conv2d)
    top, bottom, left, right = op.padding
    weight = torch.tensor(constants["w"].codes, dtype=torch.float64).permute(3, 2, 0, 1)
    bias = torch.tensor(constants["b"].codes, dtype=torch.float64) if "b" in constants else None
    x = F.pad(nchw(case.codes), (left, right, top, bottom))
    expected = F.conv2d(x, weight, bias, op.stride, 0, op.dilation, op.groups)
    found = nchw(case.graph.evaluate_codes(case.codes)["y"])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [*case_names("MaxPool"), *case_names("SumPool")])
def test_pooling_is_torch_s_in_float64(name: str) -> None:
    case = case_named(name)
    op = case.graph.nodes[-1].op
    assert isinstance(op, (MaxPool, SumPool))
    top, bottom, left, right = op.padding
    largest = isinstance(op, MaxPool)
    fill = float(case.graph.input.type.fixed.min_code) if largest else 0.0
    x = F.pad(nchw(case.codes), (left, right, top, bottom), value=fill)
    if largest:
        expected = F.max_pool2d(x, op.kernel, op.stride)
    else:
        expected = F.avg_pool2d(x, op.kernel, op.stride, divisor_override=1)
    assert torch.equal(nchw(case.graph.evaluate_codes(case.codes)["y"]), expected)


@pytest.mark.parametrize("name", case_names("DeformConv2d"))
def test_deformable_convolution_picks_torch_s_dilated_one_pixel_by_pixel(name: str) -> None:
    case = case_named(name)
    found = case.graph.evaluate_codes(case.codes, all_nodes=True)
    x, offset = nchw(found["x"]), nchw(found["offset"])
    codes = torch.tensor(case.graph.constants["w"].codes, dtype=torch.float64)
    weight = codes.permute(2, 0, 1)[:, None]
    expected = x * codes.sum(dim=(0, 1))[:, None, None]  # dilation 0: every tap stands on the centre
    for d in range(1, int(offset.max()) + 1):
        dilated = F.conv2d(x, weight, padding=d, dilation=d, groups=x.shape[1])
        expected = torch.where(offset == d, dilated, expected)
    if "b" in case.graph.constants:
        expected = expected + torch.tensor(case.graph.constants["b"].codes, dtype=torch.float64)[:, None, None]
    assert torch.equal(nchw(found["y"]), expected)


def wide_dense(inputs: int, x: Fixed, weight: Fixed) -> tuple[Graph, np.ndarray]:
    """A sum of equal largest products, less one: the last bit of the accumulator counts."""
    build = GraphBuilder("wide")
    name = build.add("x", Input((inputs,), x))
    codes = np.full((inputs, 1), weight.max_code)
    codes[-1] = 1
    w = build.constant("w", codes, weight)
    return build.build(build.add("y", Dense(), name, w)), np.full((1, inputs), x.max_code)


@pytest.mark.parametrize(
    ("x", "weight", "exact"),
    [("s8.0", "s8.0", np.float32), ("s14.0", "s14.0", np.float64), ("s29.0", "s29.0", np.int64)],
)
def test_the_static_bound_chooses_an_arithmetic_that_keeps_the_last_bit(x: str, weight: str, exact: type) -> None:
    graph, codes = wide_dense(6, Fixed.parse(x), Fixed.parse(weight))
    w = graph.constants["w"].codes
    expected = int(sum(int(a) * int(b) for a, b in zip(codes[0], w[:, 0], strict=True)))
    assert graph.evaluate_codes(codes)["y"].item() == expected
    assert int((codes.astype(exact) @ w.astype(exact)).item()) == expected
    narrower = {np.float64: np.float32, np.int64: np.float64}.get(exact)
    if narrower:  # the control: the next faster arithmetic loses it
        assert int((codes.astype(narrower) @ w.astype(narrower)).item()) != expected


def test_an_accumulator_at_the_edge_of_float32_is_exact() -> None:
    for inputs in (511, 512, 1023, 1024, 1025):
        graph, codes = wide_dense(inputs, Fixed(8, 0), Fixed(8, 0))
        assert graph.evaluate_codes(-codes)["y"].item() == -127 * (127 * (inputs - 1) + 1)


def test_bounds_of_very_wide_weights_do_not_wrap_to_small_ones() -> None:
    build = GraphBuilder("wide")
    x = build.add("x", Input((16,), Fixed(1, 0, signed=False)))
    w = build.constant("w", np.full((16, 1), 1 << 60), Fixed(62, 0))  # their sum is 0 modulo 2**64
    with pytest.raises(GraphError, match="need 66 bits, but at most 62 are allowed"):
        build.add("y", Dense(), x, w)
