"""For each operation of a graph: the RTL modules that compute it, their parameters and their timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qfx.errors import PlanError
from qfx.fixed import Fixed
from qfx.graph import Constant, Graph, Node
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
    Lookup,
    MaxPool,
    Multiply,
    Op,
    Requantize,
    Select,
    Slice,
    SumPool,
    Upsample,
)
from qfx.graph.window import Pair, Quad
from qfx.plan.data import NodePlan
from qfx.plan.rows import enough_rows
from qfx.plan.timing import Join, Pipe, Pixels, Sieve, Timing, Turns, Window

MAC_LATENCY = 12  # last step of a word to its output, one term (qfx_conv, qfx_depthwise, qfx_deform)
POOL_LATENCY = 10  # likewise for qfx_pool
UPSAMPLE_LATENCY = 9  # and for qfx_upsample
AFFINE_LATENCY, CLAMP_LATENCY, LOOKUP_LATENCY, ADD_LATENCY, MULTIPLY_LATENCY = 6, 2, 2, 1, 3
REQUANT_LATENCY = {False: 3, True: 8}  # one shift for all channels; a shift for each


class Literal(str):
    """A parameter's value as SystemVerilog writes it, no string."""


@dataclass(frozen=True)
class Block:
    """One module of an operation; the blocks of an operation follow one another in a pipe."""

    module: str
    parameters: dict[str, int | str]
    timing: Timing
    out_width: int  # bits of a word of its result
    ports: tuple[str, ...] = ("in",)  # input ports, in the order of the operation's tensors
    memories: tuple[str, ...] = ()  # parameters that name .mem files


def make(graph: Graph, node: Node, plan: NodePlan, sized: bool = True) -> list[Block]:
    """Return the blocks of a node, source first. Credits are 1 until the segment's FIFO is known.

    ``sized`` gives each ring the rows that it needs; without, which is faster, the least that it may have.
    """
    kind = type(node.op)
    if kind not in _MAKERS:
        raise PlanError(f"node {node.name!r} must be an operation that RTL has a part for, not {kind.__name__}")
    blocks = _MAKERS[kind](graph, node, plan)
    return [_sized(block) for block in blocks] if sized else blocks


def _sized(block: Block) -> Block:
    if not isinstance(block.timing, Window):
        return block
    window = enough_rows(block.timing)
    return replace(block, timing=window, parameters={**block.parameters, "Rows": window.rows})


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a Conv2d has one filter for each channel: it is then qfx_depthwise."""
    if not isinstance(node.op, Conv2d):
        return False
    channels = graph.by_name[node.inputs[0]].type.channels
    return node.op.groups == channels == node.type.channels and channels > 1


def is_offset(node: Node, position: int) -> bool:
    """Whether an operand is the stream of dilations of a deformable convolution, which has one lane."""
    return isinstance(node.op, DeformConv2d) and position == 1


def least_branch(graph: Graph, reader: tuple[str, int]) -> int:
    """The least depth of the FIFO before an operand: (reach + 1) rows for offsets, or fork and sampler deadlock."""
    name, position = reader
    if not name or not is_offset(graph.by_name[name], position):
        return 0
    node = graph.by_name[name]
    assert isinstance(node.op, DeformConv2d)
    return (max(node.op.max_dilation, 1) + 1) * node.type.shape[1]


def taps(plan: NodePlan) -> int:
    """Taps of a window in one step."""
    return plan.unroll["ky"] * plan.unroll["kx"]


def _conv(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    if is_depthwise(graph, node):
        return _depthwise(graph, node, plan)
    op = node.op
    assert isinstance(op, Conv2d)
    weight = graph.constants[node.inputs[1]]
    size, kernel = _size(graph, node), (weight.codes.shape[0], weight.codes.shape[1])
    ci, co = graph.by_name[node.inputs[0]].type.channels, node.type.channels
    lanes_in, lanes_out = plan.in_lanes, plan.out_lanes
    words = -(-ci // op.groups // lanes_in)
    window = _window(
        size, _out(node), kernel, op.stride, op.padding, op.dilation, taps(plan),
        pixel_words=op.groups * words, words=op.groups * -(-co // op.groups // lanes_out), inner=words,
        latency=MAC_LATENCY + _log2(taps(plan) * lanes_in),
    )  # fmt: skip
    channels = {"Ci": ci, "Co": co, "Groups": op.groups, "CiLanes": lanes_in, "CoLanes": lanes_out}
    parameters = _image(size) | _kernel(kernel, op.stride, op.padding, op.dilation) | channels
    return [_mac("qfx_conv", graph, node, plan, parameters | {"TapLanes": taps(plan)}, window)]


def _depthwise(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, Conv2d)
    weight = graph.constants[node.inputs[1]]
    size, kernel = _size(graph, node), (weight.codes.shape[0], weight.codes.shape[1])
    lanes, channels = plan.out_lanes, node.type.channels
    window = _window(
        size, _out(node), kernel, op.stride, op.padding, op.dilation, taps(plan),
        pixel_words=-(-channels // lanes), words=-(-channels // lanes), inner=1,
        latency=MAC_LATENCY + _log2(taps(plan)),
    )  # fmt: skip
    parameters = _image(size) | _kernel(kernel, op.stride, op.padding, op.dilation)
    parameters |= {"Channels": channels, "Lanes": lanes, "TapLanes": taps(plan)}
    return [_mac("qfx_depthwise", graph, node, plan, parameters, window)]


def _dense(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    """A 1x1 convolution on a 1x1 image."""
    ci, co = graph.by_name[node.inputs[0]].type.channels, node.type.channels
    words = -(-ci // plan.in_lanes)
    window = _window(
        (1, 1), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1,
        pixel_words=words, words=-(-co // plan.out_lanes), inner=words, latency=MAC_LATENCY + _log2(plan.in_lanes),
    )  # fmt: skip
    channels = {"Ci": ci, "Co": co, "Groups": 1, "CiLanes": plan.in_lanes, "CoLanes": plan.out_lanes, "TapLanes": 1}
    parameters = _image((1, 1)) | _kernel((1, 1), (1, 1), (0, 0, 0, 0), (1, 1)) | channels
    return [_mac("qfx_conv", graph, node, plan, parameters, window)]


def _deform(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, DeformConv2d)
    size, lanes, channels, reach = _size(graph, node), plan.out_lanes, node.type.channels, max(op.max_dilation, 1)
    folds = -(-channels // lanes)
    window = Window(
        size, size, (1, 1), (reach, reach), (2 * reach, 2 * reach), 2 * reach + 2, folds, folds, 9, MAC_LATENCY, True
    )
    parameters = _image(size) | {"Channels": channels, "Lanes": lanes, "MaxDilation": reach}
    return [_mac("qfx_deform", graph, node, plan, parameters, window, ports=("in", "offset"))]


def _pool(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, MaxPool | SumPool)
    size, lanes, channels = _size(graph, node), plan.out_lanes, node.type.channels
    window = _window(
        size, _out(node), op.kernel, op.stride, op.padding, (1, 1), taps(plan),
        pixel_words=-(-channels // lanes), words=-(-channels // lanes), inner=1,
        latency=POOL_LATENCY + _log2(taps(plan)),
    )  # fmt: skip
    kernel = _kernel(op.kernel, op.stride, op.padding, (1, 1))
    parameters = {"Reduction": "sum" if isinstance(op, SumPool) else "max", "OutWidth": node.type.fixed.width}
    parameters |= _activation(graph, node) | _image(size) | {k: v for k, v in kernel.items() if "Dilation" not in k}
    parameters |= {"Channels": channels, "Lanes": lanes, "TapLanes": taps(plan), "Rows": window.rows, "Credits": 1}
    return [Block("qfx_pool", parameters, window, lanes * node.type.fixed.width)]


def _select(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, Select)
    width, channels = node.type.fixed.width, graph.by_name[node.inputs[0]].type.channels
    words = Pixels(-(-channels // plan.in_lanes), -(-node.type.channels // plan.out_lanes))
    parameters: dict[str, int | str] = {
        "Width": width,
        "InLanes": plan.in_lanes,
        "OutLanes": plan.out_lanes,
        "InWords": words.a,
        "OutWords": words.b,
        "Credits": 1,
        "Order": select_order(op.channels, plan.in_lanes, words.a, plan.out_lanes),
    }
    return [Block("qfx_select", parameters, words, plan.out_lanes * width)]


def select_order(channels: Sequence[int], in_lanes: int, in_words: int, out_lanes: int) -> Literal:
    """Parameter Order of qfx_select: for each lane of each word of a result pixel {taken, lane, word}."""
    lane_bits, word_bits = max((in_lanes - 1).bit_length(), 1), max((in_words - 1).bit_length(), 1)
    bits, order = 1 + lane_bits + word_bits, 0
    for place, channel in enumerate(channels):
        if channel >= 0:
            word, lane = divmod(channel, in_lanes)
            order |= (1 << (bits - 1) | lane << word_bits | word) << (place * bits)
    return Literal(f"{-(-len(channels) // out_lanes) * out_lanes * bits}'h{order:x}")


def joined_lanes(order: str, in_words: int, out_lanes: int, in_lanes: int) -> int:
    """The pairs of a lane in and a lane out that an Order joins: the memories of qfx_select."""
    size, _, digits = order.partition("'h")
    word_bits, lane_bits = max((in_words - 1).bit_length(), 1), max((in_lanes - 1).bit_length(), 1)
    bits, entries = 1 + lane_bits + word_bits, int(digits, 16)
    places = range(int(size) // bits)
    heads = [entries >> (place * bits + word_bits) & ((2 << lane_bits) - 1) for place in places]
    return len({(place % out_lanes, head) for place, head in enumerate(heads) if head >> lane_bits})


def _reduce(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    channels, lanes, out = graph.by_name[node.inputs[0]].type.channels, plan.in_lanes, node.type.fixed.width
    parameters: dict[str, int | str] = {"Reduction": "max" if isinstance(node.op, ChannelMax) else "sum"}
    parameters |= _activation(graph, node) | {"OutWidth": out, "Channels": channels, "Lanes": lanes, "Credits": 1}
    return [Block("qfx_reduce", parameters, Pixels(-(-channels // lanes), 1, 2 + _log2(lanes)), out)]


def _upsample(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    """Windows of one pixel, each several times; of DepthToSpace each time other words of it."""
    blocks = isinstance(node.op, DepthToSpace)
    repeat = node.op.block if isinstance(node.op, DepthToSpace) else node.op.factor  # type: ignore[attr-defined]
    size, lanes, channels, width = _size(graph, node), plan.out_lanes, node.type.channels, node.type.fixed.width
    folds = -(-channels // lanes)
    pixel_words = folds * (repeat[0] * repeat[1] if blocks else 1)
    window = Window(
        size, _out(node), (1, 1), (0, 0), (0, 0), 2, pixel_words, folds, 1, UPSAMPLE_LATENCY, repeat=repeat
    )  # fmt: skip
    parameters = _image(size) | {
        "InWidth": width,
        "Channels": channels,
        "RepeatH": repeat[0],
        "RepeatW": repeat[1],
        "Blocks": int(blocks),
        "Lanes": lanes,
    }
    return [Block("qfx_upsample", parameters | {"Rows": window.rows, "Credits": 1}, window, lanes * width)]


def _slice(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, Slice)
    size, lanes, width = _size(graph, node), plan.out_lanes, node.type.fixed.width
    folds = -(-node.type.channels // lanes)
    rows, columns = range(*op.rows), range(*op.columns)
    kept = (
        np.add.outer(np.array(rows) * size[1], np.array(columns)).ravel()[:, None] * folds + np.arange(folds)
    ).ravel()
    parameters = _image(size) | {
        "WordBits": lanes * width,
        "PixelWords": folds,
        "FirstRow": rows[0],
        "LastRow": rows[-1],
        "StepH": rows.step,
        "FirstCol": columns[0],
        "LastCol": columns[-1],
        "StepW": columns.step,
        "Credits": 1,
    }
    sieve = Sieve(size[0] * size[1] * folds, tuple(int(word) for word in kept))
    return [Block("qfx_slice", parameters, sieve, lanes * width)]


def _affine(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    scale, shift = (graph.constants[name] for name in node.inputs[1:])
    parameters = _activation(graph, node) | {
        "ScaleWidth": scale.fixed.width,
        "ScaleSigned": int(scale.fixed.signed),
        "OffsetWidth": signed_width(shift),
        "OutWidth": node.type.fixed.width,
        "Lanes": plan.out_lanes,
        "Channels": node.type.channels,
        **_arithmetic(plan, scale),
    }
    memories = ("ScaleFile", "OffsetFile")
    return [
        Block("qfx_affine", parameters, Pipe(AFFINE_LATENCY), plan.out_lanes * node.type.fixed.width, memories=memories)
    ]


def _add(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    a, b = (graph.by_name[name].type.fixed.scalar_frac for name in node.inputs)
    shifts: dict[str, int | str] = {"ShiftA": max(b - a, 0), "ShiftB": max(a - b, 0)}
    return _joined(graph, node, plan, "qfx_add", shifts, ADD_LATENCY)


def _multiply(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    return _joined(graph, node, plan, "qfx_multiply", {"Arithmetic": plan.arithmetic}, MULTIPLY_LATENCY)


def _joined(
    graph: Graph, node: Node, plan: NodePlan, module: str, own: dict[str, int | str], latency: int
) -> list[Block]:
    """The words of two streams side by side, and what computes each pair; ``own`` are its parameters alone."""
    a, b = (graph.by_name[name].type.fixed for name in node.inputs)
    lanes, out = plan.out_lanes, node.type.fixed.width
    join: dict[str, int | str] = {"WidthA": lanes * a.width, "WidthB": lanes * b.width, "Credits": 1}
    return [
        Block("qfx_join", join, Join(), lanes * (a.width + b.width), ("a", "b")),
        Block(module, _two_codes(a, b) | own | {"OutWidth": out, "Lanes": lanes}, Pipe(latency), lanes * out),
    ]


def _two_codes(a: Fixed, b: Fixed) -> dict[str, int | str]:
    return {"AWidth": a.width, "ASigned": int(a.signed), "BWidth": b.width, "BSigned": int(b.signed)}


def _concat(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    a, b = (graph.by_name[name].type for name in node.inputs)
    lanes, out = plan.out_lanes, node.type.fixed.width
    if a.channels % lanes:
        raise PlanError(
            f"node {node.name!r} must have lanes that divide the {a.channels} channels of {node.inputs[0]!r}, not "
            f"{lanes}"
        )
    turns = Turns(a.channels // lanes, -(-b.channels // lanes))
    parameters = _two_codes(a.fixed, b.fixed) | {"OutWidth": out, "Lanes": lanes}
    parameters |= {"WordsA": turns.a, "WordsB": turns.b, "Credits": 1}
    return [Block("qfx_concat", parameters, turns, lanes * out, ("a", "b"))]


def _requantize(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, Requantize)
    shifts = requantize_shifts(graph, node)
    several = len(set(shifts)) > 1
    parameters = _activation(graph, node) | {
        "OutWidth": op.to.width,
        "OutSigned": int(op.to.signed),
        "Lanes": plan.out_lanes,
        "Channels": node.type.channels,
        "Rounding": str(op.rounding),
        "Overflow": str(op.overflow),
        "PerChannel": int(several),
        "MinShift": min(shifts),
        "MaxShift": max(shifts),
    }
    memories = ("ShiftFile",) if several else ()
    timing = Pipe(REQUANT_LATENCY[several])
    return [Block("qfx_requant", parameters, timing, plan.out_lanes * op.to.width, memories=memories)]


def _clamp(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    op = node.op
    assert isinstance(op, Clamp)
    parameters = _activation(graph, node) | {
        "OutWidth": node.type.fixed.width,
        "OutSigned": int(node.type.fixed.signed),
        "Lanes": plan.out_lanes,
        "Low": op.low,
        "High": op.high,
    }
    return [Block("qfx_clamp", parameters, Pipe(CLAMP_LATENCY), plan.out_lanes * node.type.fixed.width)]


def _lookup(graph: Graph, node: Node, plan: NodePlan) -> list[Block]:
    width = node.type.fixed.width
    parameters: dict[str, int | str] = {
        "InWidth": graph.by_name[node.inputs[0]].type.fixed.width,
        "OutWidth": width,
        "Lanes": plan.out_lanes,
        "Channels": node.type.channels,
    }
    return [Block("qfx_lookup", parameters, Pipe(LOOKUP_LATENCY), plan.out_lanes * width, memories=("TableFile",))]


_MAKERS: dict[type[Op], Callable[[Graph, Node, NodePlan], list[Block]]] = {
    Conv2d: _conv,
    DeformConv2d: _deform,
    Dense: _dense,
    Affine: _affine,
    Add: _add,
    Multiply: _multiply,
    Concat: _concat,
    MaxPool: _pool,
    SumPool: _pool,
    ChannelMax: _reduce,
    ChannelSum: _reduce,
    Select: _select,
    Upsample: _upsample,
    DepthToSpace: _upsample,
    Slice: _slice,
    Requantize: _requantize,
    Clamp: _clamp,
    Lookup: _lookup,
}


def requantize_shifts(graph: Graph, node: Node) -> list[int]:
    """The right shift of each channel, negative for a left shift."""
    assert isinstance(node.op, Requantize)
    source = graph.by_name[node.inputs[0]].type
    return [int(frac) - node.op.to.scalar_frac for frac in source.fixed.fracs(source.channels)]


def signed_width(constant: Constant) -> int:
    """Bits of a constant in two's complement."""
    return constant.fixed.width + (not constant.fixed.signed)


def shift_width(constant: Constant) -> int:
    """Bits of the shift in a digit of a K-hot constant: positions lie in 0 .. width - 2."""
    return max(1, max(constant.fixed.width - 2, 1).bit_length())


def _mac(
    module: str,
    graph: Graph,
    node: Node,
    plan: NodePlan,
    parameters: dict,
    window: Window,
    ports: tuple[str, ...] = ("in",),
) -> Block:
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    weight = constants[0]
    parameters = _activation(graph, node) | parameters
    parameters |= {
        "WeightWidth": weight.fixed.width,
        "WeightSigned": int(weight.fixed.signed),
        "AccWidth": node.type.fixed.width,
        **_arithmetic(plan, weight),
        "WeightStyle": plan.memory if plan.memory != "none" else "auto",
        "Rows": window.rows,
        "Credits": 1,
    }
    memories: tuple[str, ...] = ("WeightFile",)
    if len(constants) > 1:
        parameters["BiasWidth"] = signed_width(constants[1])
        memories = ("WeightFile", "BiasFile")
    return Block(module, parameters, window, plan.out_lanes * node.type.fixed.width, ports, memories)


def _arithmetic(plan: NodePlan, constant: Constant) -> dict[str, int | str]:
    if plan.arithmetic != "khot":
        return {"Arithmetic": plan.arithmetic}
    if constant.max_digits is None:
        raise PlanError("arithmetic must be dsp or lut for a constant without max_digits, not khot")
    return {"Arithmetic": "khot", "Digits": constant.max_digits, "ShiftWidth": shift_width(constant)}


def _activation(graph: Graph, node: Node) -> dict[str, int | str]:
    fixed = graph.by_name[node.inputs[0]].type.fixed
    return {"InWidth": fixed.width, "InSigned": int(fixed.signed)}


def _image(size: Pair) -> dict[str, int | str]:
    return {"Height": size[0], "Width": size[1]}


def _kernel(kernel: Pair, stride: Pair, padding: Quad, dilation: Pair) -> dict[str, int | str]:
    names = ["KernelH", "KernelW", "StrideH", "StrideW", "PadTop", "PadBottom", "PadLeft", "PadRight"]
    names += ["DilationH", "DilationW"]
    return dict(zip(names, (*kernel, *stride, *padding, *dilation), strict=True))


def _size(graph: Graph, node: Node) -> Pair:
    shape = graph.by_name[node.inputs[0]].type.shape
    return shape[0], shape[1]


def _out(node: Node) -> Pair:
    return node.type.shape[0], node.type.shape[1]


def _log2(terms: int) -> int:
    return int(np.ceil(np.log2(terms))) if terms > 1 else 0


def _window(
    size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Quad, dilation: Pair, lanes: int,
    *, pixel_words: int, words: int, inner: int, latency: int,
) -> Window:  # fmt: skip
    reach = ((kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1])
    steps = kernel[0] * kernel[1] // lanes * inner
    rows = max(reach[0] + 1 + stride[0], 2)
    pad = (padding[0], padding[2])
    return Window(size, out, stride, pad, reach, rows, pixel_words, words, steps, latency)
