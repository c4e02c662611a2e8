"""Every rule G of SPEC.md: a graph that breaks it is refused by the rule's number and the node's name."""

import re
from dataclasses import replace

import numpy as np
import pytest

from qfx.errors import GraphError
from qfx.fixed import Fixed
from qfx.graph import Constant, Graph, GraphBuilder, Node, TensorType, verify
from qfx.graph.ops import (
    Add,
    Affine,
    ChannelMax,
    ChannelSum,
    Clamp,
    Concat,
    Conv2d,
    DeformConv2d,
    Dense,
    DepthToSpace,
    Flatten,
    Input,
    Lookup,
    MaxPool,
    Multiply,
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)


def network() -> Graph:
    """Input, depthwise deformable convolution with its offset, per-channel convolution, head."""
    build = GraphBuilder("net")
    x = build.add("x", Input((4, 5, 2), Fixed(4, 1)))
    w = build.constant("ow", np.ones((1, 1, 2, 1), dtype=np.int64), Fixed(2, 0))
    offset = build.add("o", Requantize(Fixed(3, 0, signed=False)), build.add("oc", Conv2d(), x, w))
    offset = build.add("oo", Clamp(0, 3), offset)
    w = build.constant("dw", np.full((3, 3, 2), 3), Fixed(3, 1))
    d = build.add("d", DeformConv2d(3), x, offset, w)
    r = build.add("r", Requantize(Fixed(4, 1)), d)
    w = build.constant("cw", np.full((3, 3, 2, 3), 2), Fixed(4, (0, 1, 2)), max_digits=1)
    b = build.constant("cb", np.array([1, -2, 3]), Fixed(4, (1, 2, 3)))
    c = build.add("c", Conv2d(padding=(1, 1, 1, 1)), r, w, b)
    return build.build(build.add("y", Requantize(Fixed(5, 1)), c))


def with_node(graph: Graph, name: str, /, **changes: object) -> Graph:
    nodes = tuple(replace(node, **changes) if node.name == name else node for node in graph.nodes)  # type: ignore[arg-type]
    return replace(graph, nodes=nodes)


def with_constant(graph: Graph, name: str, constant: Constant) -> Graph:
    return replace(graph, constants={**graph.constants, name: constant})


def with_type(graph: Graph, name: str, fixed: str, shape: tuple[int, ...] | None = None) -> Graph:
    kind = TensorType(shape or graph.by_name[name].type.shape, Fixed.parse(fixed))
    return with_node(graph, name, type=kind)


NET = network()
CW, CB = NET.constants["cw"], NET.constants["cb"]
NAMES = "a name must be letters, digits, '_', '.' or '-', not begin with '.' or '-', and not be '__metadata__', but is"
BROKEN = {
    "G1 name": (
        with_constant(NET, "-b", CB),
        f"rule G1: {NAMES} '-b'",
    ),
    "G1 reserved": (
        with_constant(NET, "__metadata__", CB),
        f"rule G1: {NAMES} '__metadata__'",
    ),
    "G1 twice": (
        with_constant(NET, "c", CB),
        "rule G1: each name must be used once, but these are used twice: ['c']",
    ),
    "G2 none": (replace(NET, nodes=NET.nodes[1:]), "rule G2: a graph must have exactly one Input, not 0"),
    "G2 two": (
        replace(NET, nodes=(*NET.nodes, Node("x2", NET.nodes[0].op, (), NET.nodes[0].type))),
        "rule G2: a graph must have exactly one Input, not 2",
    ),
    "G3 order": (
        replace(NET, nodes=(NET.nodes[0], *reversed(NET.nodes[1:]))),
        "rule G3: node 'y' must read nodes that come before it, not 'c'",
    ),
    "G3 itself": (with_node(NET, "r", inputs=("r",)), "rule G3: node 'r' must read nodes that come before it, not 'r'"),
    "G3 unknown": (
        with_node(NET, "r", inputs=("q",)),
        "rule G3: node 'r' must read nodes that come before it, not 'q'",
    ),
    "G4 none": (replace(NET, outputs=()), "rule G4: a graph must have at least one output"),
    "G4 constant": (replace(NET, outputs=("cw",)), "rule G4: an output must name a node, not 'cw'"),
    "G5 count": (with_node(NET, "c", inputs=("r",)), "rule G5: node 'c' (Conv2d) must have 2 or 3 operands, not 1"),
    "G5 constant": (
        with_node(NET, "c", inputs=("r", "d")),
        "rule G5: node 'c' (Conv2d) must have a constant as operand 1, not 'd'",
    ),
    "G5 tensor": (
        with_node(NET, "y", inputs=("cb",)),
        "rule G5: node 'y' (Requantize) must have a tensor as operand 0, not 'cb'",
    ),
    "G6 range": (
        with_constant(NET, "cb", replace(CB, codes=np.array([1, -9, 3]))),
        "rule G6: the codes of constant 'cb' must lie in -8..7 (s4.[1,2,3])",
    ),
    "G6 fracs": (
        with_constant(NET, "cb", replace(CB, fixed=Fixed(4, (1, 2)))),
        "rule G6: constant 'cb' must have a binary point for each of its 3 channels, not 2",
    ),
    "G7 digits": (
        with_constant(NET, "cw", replace(CW, codes=np.full((3, 3, 2, 3), 3))),
        "rule G7: constant 'cw' must have at most 1 non-zero digits in each code",
    ),
    "G7 lowest code": (
        with_constant(NET, "cw", replace(CW, codes=np.full((3, 3, 2, 3), -8))),
        "rule G7: constant 'cw' must have at most 1 non-zero digits in each code",
    ),
    "G8 shape": (
        with_type(NET, "c", "s12.[1,2,3]", (4, 4, 3)),
        "rule G8: node 'c' must have shape (4, 5, 3), not (4, 4, 3)",
    ),
    "G8 frac": (with_type(NET, "c", "s12.[1,2,4]"), "rule G8: node 'c' must have frac (1, 2, 3), not (1, 2, 4)"),
    "G8 number of fracs": (with_type(NET, "c", "s12.[1,2]"), "rule G8: node 'c' must have frac (1, 2, 3), not (1, 2)"),
    "G8 too narrow": (
        with_type(NET, "c", "s8.[1,2,3]"),
        "rule G8: node 'c' must hold its static range -291..291, which s8.[1,2,3] does not",
    ),
    "G8 unsigned": (
        with_type(NET, "c", "u12.[1,2,3]"),
        "rule G8: node 'c' must hold its static range -291..291, which u12.[1,2,3] does not",
    ),
    "G8 input format": (
        with_type(NET, "x", "s5.1"),
        "rule G8: node 'x' must have its operation's format s4.1, not s5.1",
    ),
    "G8 bias grid": (
        with_constant(NET, "cb", replace(CB, fixed=Fixed(4, (1, 2, 4)))),
        "rule G8: node 'c' (Conv2d): the bias must sit on the grid of the products, frac (1, 2, 3), not (1, 2, 4)",
    ),
    "G9 offset": (
        with_node(NET, "d", op=DeformConv2d(2)),
        "rule G9: the offset of node 'd' must be proved to lie in 0..2, but may reach 3",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_refused_by_number_and_name(rule: str) -> None:
    graph, message = BROKEN[rule]
    with pytest.raises(GraphError, match=f"^{re.escape(message)}$"):
        verify(graph)


def test_every_rule_of_the_specification_is_broken_once() -> None:
    from pathlib import Path

    import qfx.graph

    text = Path(qfx.graph.__file__).with_name("SPEC.md").read_text()
    rules = set(re.findall(r"\*\*(G\d+)\*\*", text))
    assert rules == {name.split()[0] for name in BROKEN}


def test_a_wider_format_than_the_inferred_one_is_legal() -> None:
    verify(with_type(NET, "c", "s20.[1,2,3]"))


IMAGE, VECTOR = (4, 5, 2), (6,)
ONES = {"w": (3, 3, 2, 2), "dw": (3, 3, 2), "m": (6, 2), "v": (2,), "empty": (3, 3, 2, 0), "t16": (16,)}
REFUSED = {
    "input of no bits": (Input(IMAGE, Fixed(0, 0)), (), "an input must be at least one bit wide, not s0.0"),
    "input per channel": (Input(IMAGE, Fixed(4, (1, 2))), (), "an input must have one binary point, not s4.[1,2]"),
    "input of no pixels": (
        Input((4, 0, 2), Fixed(4, 0)),
        (),
        "an input must have axes of at least one element, not shape (4, 0, 2)",
    ),
    "conv of a vector": (Conv2d(), ("v6", "w"), "the input must be (height, width, channels), not shape (6,)"),
    "conv per channel": (
        Conv2d(),
        ("pc", "w"),
        "the input of Conv2d must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "conv groups": (
        Conv2d(groups=2),
        ("x", "w"),
        "Conv2d weight must be (kh, kw, 2/groups, a multiple of groups), not (3, 3, 2, 2) with 2 groups",
    ),
    "conv kernel": (
        Conv2d(dilation=(2, 2)),
        ("x", "w"),
        "a window of (3, 3) dilated by (2, 2) must fit the padded image, not exceed (4, 5) + (0, 0, 0, 0)",
    ),
    "conv stride": (Conv2d(stride=(0, 1)), ("x", "w"), "stride must be at least 1 in each direction, not (0, 1)"),
    "conv padding": (
        Conv2d(padding=(0, -1, 0, 0)),
        ("x", "w"),
        "padding must be at least 0 in each direction, not (0, -1, 0, 0)",
    ),
    "conv weight axes": (Conv2d(), ("x", "dw"), "the weight must have 4 axes, not shape (3, 3, 2)"),
    "conv without filters": (
        Conv2d(),
        ("x", "empty"),
        "the weight must have at least one element along each axis, not shape (3, 3, 2, 0)",
    ),
    "conv bias": (Conv2d(), ("x", "w", "m"), "the bias must have 1 axes, not shape (6, 2)"),
    "deform offset shape": (
        DeformConv2d(3),
        ("x", "x", "dw"),
        "the offset must be 4x5x1 with frac 0, not 4x5x2 s4.1",
    ),
    "deform weight": (DeformConv2d(3), ("x", "o", "w"), "the weight must have 3 axes, not shape (3, 3, 2, 2)"),
    "deform signed offset": (
        DeformConv2d(3),
        ("x", "so", "dw"),
        "the offset must be unsigned and clamped to 0..3, not s3.0",
    ),
    "deform reach": (DeformConv2d(-1), ("x", "o", "dw"), "max_dilation must not be negative, but is -1"),
    "dense of an image": (
        Dense(),
        ("x", "m"),
        "Dense weight must be (inputs, outputs) for an input of shape (inputs,), not (6, 2) for (4, 5, 2)",
    ),
    "affine channels": (Affine(), ("v6", "v", "v"), "Affine scale must have 6 channels, not shape (2,)"),
    "affine grid": (
        Affine(),
        ("x", "v", "v"),
        "the shift must sit on the grid of the products, frac 1, not 0",
    ),
    "add shapes": (Add(), ("x", "o"), "the operands of Add must have one shape, not (4, 5, 2) and (4, 5, 1)"),
    "add per channel": (
        Add(),
        ("pc", "x"),
        "the first operand of Add must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "channel sum per channel": (
        ChannelSum(),
        ("pc",),
        "the input of ChannelSum must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "channel max per channel": (
        ChannelMax(),
        ("pc",),
        "the input of ChannelMax must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "multiply shapes": (
        Multiply(),
        ("x", "o"),
        "the operands of Multiply must have one shape, not (4, 5, 2) and (4, 5, 1)",
    ),
    "concat sizes": (
        Concat(),
        ("x", "v6"),
        "the operands of Concat must differ in channels only, not be (4, 5, 2) and (6,)",
    ),
    "pool padding": (
        MaxPool((2, 2), (2, 2), (2, 0, 0, 0)),
        ("x",),
        "MaxPool padding must be smaller than the kernel (2, 2), not (2, 0, 0, 0)",
    ),
    "pool kernel": (SumPool((0, 2), (1, 1)), ("x",), "kernel must be at least 1 in each direction, not (0, 2)"),
    "select beyond": (Select((0, 2)), ("x",), "channels must lie in 0..1, or be -1 for zeros, not be (0, 2)"),
    "select below": (Select((0, -2)), ("x",), "channels must lie in 0..1, or be -1 for zeros, not be (0, -2)"),
    "select nothing": (Select((-1,)), ("x",), "channels must hold at least one that is not -1, not be (-1,)"),
    "depth block": (DepthToSpace((2, 0)), ("x",), "block must be at least 1 in each direction, not (2, 0)"),
    "depth channels": (
        DepthToSpace((2, 3)),
        ("x",),
        "the channels of DepthToSpace must divide into 6 pixels, not be 2",
    ),
    "slice rows": (
        Slice((1, 1, 1), (0, 2, 1)),
        ("x",),
        "rows must be (start, stop, step) with 0 <= start < stop <= 4 and step at least 1, not (1, 1, 1)",
    ),
    "slice columns": (
        Slice((0, 1, 1), (0, 6, 1)),
        ("x",),
        "columns must be (start, stop, step) with 0 <= start < stop <= 5 and step at least 1, not (0, 6, 1)",
    ),
    "upsample factor": (Upsample((2, 0)), ("x",), "factor must be at least 1 in each direction, not (2, 0)"),
    "requantize per channel": (
        Requantize(Fixed(4, (1, 2))),
        ("x",),
        "Requantize must go to one binary point, not s4.[1,2]",
    ),
    "clamp order": (Clamp(3, 2), ("x",), "Clamp bounds must be codes of s4.1 in order, not 3..2"),
    "clamp bounds": (Clamp(0, 8), ("x",), "Clamp bounds must be codes of s4.1 in order, not 0..8"),
    "lookup table": (
        Lookup(),
        ("x", "v"),
        "the table must have an entry for each of the 16 codes of s4.1, not 2",
    ),
    "lookup table axes": (Lookup(), ("x", "m"), "the table must have 1 axes, not shape (6, 2)"),
    "lookup width": (Lookup(), ("s13", "t16"), "the input of Lookup must be at most 12 bits wide, not s13.0"),
    "lookup table per channel": (Lookup(), ("u1", "scale"), "the table must have one binary point, not s2.[0,1]"),
    "lookup per channel": (
        Lookup(),
        ("pc", "t16"),
        "the input of Lookup must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "flatten per channel": (
        Flatten(),
        ("pc",),
        "the input of Flatten must have one binary point, not s5.[1,2]: put a Requantize before it",
    ),
    "too wide": (
        Add(),
        ("x", "far"),
        "codes -73786976294838206472..64563604257983430663 need 68 bits, but at most 62 are allowed: "
        "narrow the operands",
    ),
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_operands_that_are_not_legal_are_refused_by_node_and_operation(refusal: str) -> None:
    op, inputs, message = REFUSED[refusal]
    build = GraphBuilder("net")
    x = build.add("x", Input(IMAGE, Fixed(4, 1)))
    for name, shape in ONES.items():
        build.constant(name, np.ones(shape, dtype=np.int64), Fixed(2, 0))
    build.constant("scale", np.ones(2, dtype=np.int64), Fixed(2, (0, 1)))
    build.constant("shift", np.ones(2, dtype=np.int64), Fixed(2, (1, 2)))
    build.constant("one", np.ones((4, 5, 2, 1), dtype=np.int64), Fixed(2, 0))
    build.constant("pick", np.ones((1, 1, 2, 1), dtype=np.int64), Fixed(2, 0))
    build.add("far", Requantize(Fixed(4, 64)), x)
    build.add("s13", Requantize(Fixed(13, 0)), x)
    build.add("u1", Requantize(Fixed(1, 0, signed=False)), x)
    build.add("pc", Affine(), x, "scale", "shift")
    build._types["v6"] = TensorType((6,), Fixed(4, 1))
    build.add("so", Requantize(Fixed(3, 0)), build.add("picked", Conv2d(), x, "pick"))
    build.add("o", Clamp(0, 3), "so")
    with pytest.raises(
        GraphError, match=f"^{re.escape(f'node {chr(39)}n{chr(39)} ({type(op).__name__}): {message}')}$"
    ):
        build.add("n", op, *inputs)


def test_the_builder_refuses_unknown_inputs_and_names_used_twice() -> None:
    build = GraphBuilder("net")
    build.add("x", Input((3,), Fixed(4, 0)))
    with pytest.raises(GraphError, match="node 'y': the input 'z' must be added before the node that reads it"):
        build.add("y", Clamp(0, 1), "z")
    with pytest.raises(GraphError, match="each name must be used once in a graph, but 'x' is used twice"):
        build.constant("x", np.ones(1, dtype=np.int64), Fixed(2, 0))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.ones(2), "a constant's codes must be integers, not float64"),
        (
            np.array([1 << 63], dtype=np.uint64),
            "a constant's codes must fit 64 bits with sign, not 9223372036854775808",
        ),
    ],
)
def test_a_constant_of_other_numbers_is_refused(codes: np.ndarray, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Constant(codes, Fixed(4, 0))
