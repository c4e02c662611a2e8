"""The engines: each computes a graph's integers in its own way, from the graph and its input's codes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qfx import nn as fixed_layers
from qfx.boards import Board
from qfx.emit import hls
from qfx.emit.rtl import rtl
from qfx.fixed import FRAC_RANGE, WIDEST, Fixed, Overflow, Rounding, decode
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
from qfx.graph.passes import remove_zero_width
from qfx.nn.deform import dilations, sample
from qfx.nn.integer import exact_product
from qfx.nn.quantizer import Quantizer, Spec
from qfx.plan import plan
from qfx.steps.compare import Mismatch, first_mismatch
from qfx.tools import csim
from qfx_sim.design import simulate

Codes = Mapping[str, np.ndarray]
Engine = Callable[[Graph, np.ndarray], Codes]


def interpreter(graph: Graph, codes: np.ndarray) -> Codes:
    """The reference: numpy on integer codes."""
    return graph.evaluate_codes(codes, all_nodes=True)


def run_csim(graph: Graph, codes: np.ndarray) -> Codes:
    """The HLS C++ of the hls4ml project under g++: every node's codes."""
    with TemporaryDirectory() as folder:
        return csim.run(hls(graph, None, Path(folder) / "hls"), codes)


def run_rtl(graph: Graph, codes: np.ndarray, target_cycles: int | None = None, stalls: bool = False) -> Codes:
    """The RTL under Verilator: the outputs' codes."""
    made = plan(graph, Board.load("ultra96v2"), target_cycles)
    with TemporaryDirectory() as folder:
        return simulate(rtl(graph, made, Path(folder) / "rtl"), codes, stalls=stalls).codes


def difference(graph: Graph, codes: np.ndarray, engine: Engine) -> Mismatch | None:
    """The first node at which an engine and the interpreter part; the engine sees no width 0, as no emitter does."""
    graph = remove_zero_width(graph)
    return first_mismatch(graph, interpreter(graph, codes), engine(graph, codes), engine.__name__)


# ---------------------------------------------------------------------------------------------------------------------
# torch: every node by the layer that training uses, on real values in exact evaluation


def run_torch(graph: Graph, codes: np.ndarray) -> Codes:
    """The layers of ``qfx.nn`` in exact evaluation: every node's codes. Not every graph: see ``why_not_torch``."""
    values: dict[str, Tensor] = {}
    found: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if isinstance(node.op, Input):
            values[node.name] = _channels_first(decode(codes, node.type.fixed))
        else:
            values[node.name] = _evaluated(graph, node, [values[name] for name in graph.tensors(node)])
        found[node.name] = _codes(values[node.name], node.type.fixed)
    return found


def why_not_torch(graph: Graph) -> str | None:
    """Why no layer of ``qfx.nn`` can stand for some node, or None: the reasons that a test may skip a graph for."""
    low, high = FRAC_RANGE
    for node in graph.nodes:
        operands = [constant.fixed for constant in graph.operands(node) if isinstance(constant, Constant)][:1]
        for fixed in (node.type.fixed, *operands):
            fracs = fixed.fracs(node.type.channels) if not fixed.per_channel else np.array(fixed.frac)
            if fracs.min() < low or fracs.max() > high:
                return f"a learned binary point lies in {low}..{high}"
            if fixed.width > WIDEST:
                return f"a quantizer has at most {WIDEST} bits"
    return None


def _evaluated(graph: Graph, node: Node, x: list[Tensor]) -> Tensor:
    """One node by its layer; a layer that quantizes its result gets the node's own format, in which it is exact."""
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    source = graph.by_name[graph.tensors(node)[0]].type.fixed
    match node.op:
        case Conv2d() | Dense():
            return fixed_layers.exact(_product_layer(node.op, source, constants))(x[0])
        case DeformConv2d():
            return _deformed(node.op, source, constants, *x)
        case Affine():
            scale, shift = (torch.tensor(decode(c.codes, c.fixed)) for c in constants)
            layer = fixed_layers.Affine(scale, shift)
            layer.scale_quant, layer.shift_quant = (_quantizer(c.fixed, 0) for c in constants)
            layer.output_quant = _quantizer(node.type.fixed)
            return fixed_layers.exact(layer)(x[0])
        case Add():
            add = fixed_layers.Add()
            add.a_quant, add.b_quant = (_quantizer(graph.by_name[name].type.fixed) for name in node.inputs)
            add.output_quant = _quantizer(node.type.fixed)
            return fixed_layers.exact(_OfTwo(add))(torch.stack(x))
        case Multiply():
            times = fixed_layers.Multiply()
            times.a_quant, times.b_quant = (_quantizer(graph.by_name[name].type.fixed) for name in node.inputs)
            times.output_quant = _quantizer(node.type.fixed)
            return fixed_layers.exact(_OfTwo(times))(torch.stack(x))
        case ChannelMax():
            return x[0].amax(1, keepdim=True)
        case ChannelSum():
            return x[0].sum(1, keepdim=True)
        case Concat():
            return fixed_layers.Concat()(*x)
        case Select(channels=channels):
            return fixed_layers.Select(channels)(x[0])
        case DepthToSpace(block=(rows, columns)):
            place = (
                torch.arange(x[0].shape[1]).reshape(rows * columns, -1).T.reshape(-1)
            )  # torch: the pixel is the last
            return fixed_layers.pixel_shuffle(x[0][:, place], (rows, columns))
        case Slice(rows=rows, columns=columns):
            return fixed_layers.Slice(rows=rows, columns=columns)(x[0])
        case Upsample(factor=factor):
            return fixed_layers.Upsample(factor)(x[0])
        case MaxPool() | SumPool():
            return fixed_layers.exact(_pool_layer(node, source))(_padded(node.op, source, x[0]))
        case Requantize(to=to, rounding=rounding, overflow=overflow):
            return fixed_layers.exact(_quantizer(to, 1, rounding, overflow))(x[0])
        case Clamp(low=low, high=high):
            return _clamped(x[0], low, high, source)
        case Lookup():
            return fixed_layers.exact(_table_layer(node, source, constants[0]))(x[0])
        case Flatten():
            return fixed_layers.Flatten()(x[0].permute(0, 2, 3, 1) if x[0].dim() == 4 else x[0])
    raise AssertionError(node.op)


class _OfTwo(nn.Module):
    """A layer of two operands that takes them stacked: exact evaluation hands on float64 tensors only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, pair: Tensor) -> Tensor:
        return self.layer(pair[0], pair[1])


def _quantizer(
    fixed: Fixed, axis: int = 1, rounding: Rounding = Rounding.TRN, overflow: Overflow = Overflow.SAT
) -> Quantizer:
    """A quantizer that stands where training would have brought it."""
    spec = Spec(fixed.width, None, fixed.signed, rounding, overflow, fixed.per_channel)
    fracs = torch.tensor(fixed.frac, dtype=torch.float32)
    quantizer = Quantizer(spec, fracs.numel(), axis)
    quantizer.start_at(fracs, fixed.signed)
    return quantizer


def _product_layer(op: Conv2d | Dense, source: Fixed, constants: list[Constant]) -> nn.Module:
    weight = torch.tensor(decode(constants[0].codes, constants[0].fixed))
    layer: fixed_layers.Conv2d | fixed_layers.Linear
    if isinstance(op, Conv2d):
        height, width, per_group, filters = weight.shape
        layer = fixed_layers.Conv2d(
            per_group * op.groups, filters, (height, width), op.stride, op.padding, op.dilation, op.groups
        )
        weight = weight.permute(3, 2, 0, 1)
    else:
        layer = fixed_layers.Linear(*weight.shape)
        weight = weight.T
    layer.weight = nn.Parameter(weight)
    layer.bias = nn.Parameter(torch.tensor(decode(constants[1].codes, constants[1].fixed))) if constants[1:] else None
    layer.input_quant, layer.weight_quant = _quantizer(source), _quantizer(constants[0].fixed, 0)
    return layer


def _deformed(op: DeformConv2d, source: Fixed, constants: list[Constant], x: Tensor, offset: Tensor) -> Tensor:
    """The sampler of the layer; the layer's own offset convolution is a node of its own in the graph."""
    weight = torch.tensor(decode(constants[0].codes, constants[0].fixed)).permute(2, 0, 1)[:, None]
    bias = torch.tensor(decode(constants[1].codes, constants[1].fixed)) if constants[1:] else None
    planes = dilations(offset, op.max_dilation)

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return sample(x, planes, weight, bias, op.max_dilation)

    return exact_product(product, x, weight, bias, _quantizer(source), _quantizer(constants[0].fixed, 0))


def _pool_layer(node: Node, source: Fixed) -> nn.Module:
    """Without padding: the layers know only even padding, so ``_padded`` does it."""
    assert isinstance(node.op, (MaxPool, SumPool))
    if isinstance(node.op, MaxPool):
        largest = fixed_layers.MaxPool2d(node.op.kernel, node.op.stride)
        largest.input_quant = _quantizer(source)
        return largest
    total = fixed_layers.AvgPool2d(node.op.kernel, node.op.stride, divisor=1)
    total.input_quant, total.output_quant = _quantizer(source), _quantizer(node.type.fixed)
    return total


def _padded(op: MaxPool | SumPool, source: Fixed, x: Tensor) -> Tensor:
    top, bottom, left, right = op.padding
    outside = source.min_code * 2.0**-source.scalar_frac if isinstance(op, MaxPool) else 0.0
    return F.pad(x, (left, right, top, bottom), value=outside)


def _table_layer(node: Node, source: Fixed, table: Constant) -> nn.Module:
    """A layer whose function gives the table's values."""
    values = torch.tensor(decode(table.codes, table.fixed))

    def function(x: Tensor) -> Tensor:
        return values[(x * 2.0**source.scalar_frac - source.min_code).long()]

    layer = fixed_layers.Table(function)
    layer.input_quant, layer.output_quant = _quantizer(source), _quantizer(node.type.fixed)
    return layer


def _clamped(x: Tensor, low: int, high: int, source: Fixed) -> Tensor:
    if low == 0 and high == source.max_code:
        return fixed_layers.ReLU()(x)
    step = torch.tensor(2.0 ** -source.fracs(x.shape[1]).astype(float)).reshape(-1, *[1] * (x.dim() - 2))
    return torch.minimum(torch.maximum(x, low * step), high * step)


def _channels_first(x: np.ndarray) -> Tensor:
    return torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)


def _codes(x: Tensor, fixed: Fixed) -> np.ndarray:
    values = x.detach().numpy()
    values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
    codes = np.ldexp(values, fixed.fracs(values.shape[-1]))
    if (codes != np.floor(codes)).any():
        raise AssertionError(f"torch must put out values on the grid of {fixed}")
    return codes.astype(np.int64)
