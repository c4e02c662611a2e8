"""Brevitas networks with power-of-two scales become fixed-point networks of qfx.nn with the same integers."""

import copy
from collections.abc import Callable
from typing import Any

import brevitas.nn as bnn
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, fx, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import Overflow, Rounding
from qfx.nn.calibrate import name_quantizers
from qfx.nn.quantizer import Quantizer, Spec

_WEIGHT_CLASS = "brevitas.quant.fixed_point.Int8WeightPerTensorFixedPoint"
_ACT_CLASS = "brevitas.quant.fixed_point.Int8ActPerTensorFixedPoint (Uint8ActPerTensorFixedPoint for QuantReLU)"
_KNOWN = "QuantIdentity, QuantReLU, QuantConv2d, QuantLinear, nn.MaxPool2d, nn.Flatten"


def from_brevitas(model: nn.Module) -> nn.Module:
    """Return a copy of a trained Brevitas network whose layers are those of qfx.nn, calibrated and in evaluation mode.

    Its results equal Brevitas' own, and it can be lowered, evaluated exactly and trained on: weights keep their float
    masters, binary points become learnable. Each convolution and dense layer needs a quantized input.

    Raises:
        LowerError: everything that is not fixed point or not known, at once, with layer paths and the class to use.
    """
    copied = copy.deepcopy(model).eval()
    module = fx.GraphModule(copied, _Tracer().trace(copied), type(model).__name__)
    formats: dict[fx.Node, Quantizer] = {}
    problems = []
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        try:
            _translate(module, node, formats)
        except LowerError as error:
            problems.append(f"- {error}")
    if problems:
        raise LowerError("the Brevitas network must be fixed point throughout, but:\n" + "\n".join(problems))
    name_quantizers(module)
    return module.eval()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("brevitas.nn") or super().is_leaf_module(m, module_qualified_name)


def _translate(module: fx.GraphModule, node: fx.Node, formats: dict[fx.Node, Quantizer]) -> None:
    """Put our layer in the place of the one that ``node`` calls, and note the format of its result."""
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    given = formats.get(source) if source is not None else None
    if node.op != "call_module":
        raise LowerError(f"call '{node.name}' must be a layer; use one of {_KNOWN}")
    path = str(node.target)
    layer = module.get_submodule(path)
    translate = _LAYERS.get(type(layer))
    if translate is None:
        raise LowerError(f"layer '{path}' ({type(layer).__name__}) must be one of {_KNOWN}")
    new, result = translate(path, layer, given)
    module.set_submodule(path, new)
    if result is not None:
        formats[node] = result


def _identity(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    quantizer = _activation(path, layer.act_quant)
    return quantizer, quantizer


def _relu(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    quantizer = _activation(path, layer.act_quant)
    return nn.Sequential(qnn.ReLU(), quantizer), quantizer


def _conv(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    if layer.padding_mode != "zeros":
        raise LowerError(f"layer '{path}' must have padding_mode 'zeros', not {layer.padding_mode!r}")
    entry, weight = _input_of(path, layer, given), _weight(path, layer)
    return _with_output(path, layer, qnn.Conv2d.from_float(layer, weight.spec, entry.spec), entry, weight)


def _linear(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    entry, weight = _input_of(path, layer, given), _weight(path, layer)
    return _with_output(path, layer, qnn.Linear.from_float(layer, weight.spec, entry.spec), entry, weight)


def _unchanged(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    return layer, given


def _max_pool(path: str, layer: Any, given: Quantizer | None) -> tuple[nn.Module, Quantizer | None]:
    if given is None:
        raise LowerError(f"layer '{path}' must read a quantized tensor; put a QuantIdentity before it")
    new = qnn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding, input_spec=given.spec)
    new.input_quant = copy.deepcopy(given)
    return new, given


def _with_output(
    path: str, layer: Any, new: qnn.Conv2d | qnn.Linear, entry: Quantizer, weight: Quantizer
) -> tuple[nn.Module, Quantizer | None]:
    new.input_quant, new.weight_quant = copy.deepcopy(entry), weight
    if layer.bias is not None:
        new.bias = nn.Parameter(_bias(path, layer, entry, weight))
    if not layer.output_quant.is_quant_enabled:
        return new, None
    quantizer = _activation(f"{path}.output_quant", layer.output_quant)
    return nn.Sequential(new, quantizer), quantizer


def _input_of(path: str, layer: Any, given: Quantizer | None) -> Quantizer:
    if layer.input_quant.is_quant_enabled:
        return _activation(f"{path}.input_quant", layer.input_quant)
    if given is None:
        raise LowerError(
            f"layer '{path}' must read a quantized tensor; put a QuantIdentity with {_ACT_CLASS} before it"
        )
    return given


def _activation(path: str, proxy: Any) -> Quantizer:
    if not proxy.is_quant_enabled:
        raise LowerError(f"layer '{path}' must quantize its result; use act_quant={_ACT_CLASS}")
    frac = _frac(path, proxy.scale(), proxy.zero_point(), _ACT_CLASS)
    return _quantizer(path, proxy, frac, int(proxy.bit_width()), per_channel=False)


def _weight(path: str, layer: Any) -> Quantizer:
    proxy = layer.weight_quant
    if not proxy.is_quant_enabled:
        raise LowerError(f"layer '{path}' must quantize its weight; use weight_quant={_WEIGHT_CLASS}")
    weight = layer.quant_weight()
    frac = _frac(path, weight.scale, weight.zero_point, _WEIGHT_CLASS)
    return _quantizer(path, proxy, frac, int(weight.bit_width), per_channel=frac.numel() > 1)


def _quantizer(path: str, proxy: Any, frac: Tensor, width: int, per_channel: bool) -> Quantizer:
    if str(proxy.rounding_mode) not in _ROUNDINGS:
        raise LowerError(f"layer '{path}' must round by one of {sorted(_ROUNDINGS)}, not {proxy.rounding_mode}")
    overflow = Overflow.SAT_SYM if proxy.is_narrow_range and proxy.is_signed else Overflow.SAT
    if proxy.is_narrow_range and not proxy.is_signed:
        raise LowerError(f"layer '{path}' must use its whole unsigned range; leave narrow_range out")
    spec = Spec(width, None, bool(proxy.is_signed), _ROUNDINGS[str(proxy.rounding_mode)], overflow, per_channel)
    quantizer = Quantizer(spec, frac.numel(), axis=0)
    quantizer.start_at(frac.flatten() if per_channel else frac.reshape(()), spec.signed is True)
    return quantizer


def _bias(path: str, layer: Any, entry: Quantizer, weight: Quantizer) -> Tensor:
    """The bias as Brevitas rounds it: on the accumulator's grid, or refused."""
    if not layer.bias_quant.is_quant_enabled:
        raise LowerError(f"layer '{path}' must quantize its bias; use bias_quant=brevitas.quant.Int32Bias")
    like_input = IntQuantTensor(
        torch.zeros(1, layer.weight.shape[1], 1, 1),
        torch.exp2(-entry.frac_now),
        torch.tensor(0.0),
        torch.tensor(float(entry.width)),
        entry.signed,
        False,
    )
    value: Tensor = layer.bias_quant(layer.bias, like_input, layer.quant_weight()).value.detach()
    codes = value * torch.exp2(entry.frac_now + weight.frac_now).flatten()
    if (codes != codes.round()).any():
        raise LowerError(f"the bias of layer '{path}' must be on the accumulator's grid; use brevitas.quant.Int32Bias")
    return value


def _frac(path: str, scale: Tensor, zero_point: Tensor, remedy: str) -> Tensor:
    frac = -torch.log2(scale.detach().double())
    if (frac != frac.round()).any():
        raise LowerError(
            f"layer '{path}' must have a power-of-two scale, not {scale.flatten()[0].item():.6g}; use {remedy}"
        )
    if zero_point.detach().abs().max() > 0:
        raise LowerError(f"layer '{path}' must have zero point 0, not {zero_point.flatten()[0].item():g}; use {remedy}")
    return frac.float()


_ROUNDINGS = {"ROUND": Rounding.RND_CONV, "FLOOR": Rounding.TRN, "ROUND_TO_ZERO": Rounding.TRN_ZERO}
_LAYERS: dict[type[nn.Module], Callable[[str, Any, Quantizer | None], tuple[nn.Module, Quantizer | None]]] = {
    bnn.QuantIdentity: _identity,
    bnn.QuantReLU: _relu,
    bnn.QuantConv2d: _conv,
    bnn.QuantLinear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.Flatten: _unchanged,
    nn.Identity: _unchanged,
    nn.Dropout: _unchanged,
}
