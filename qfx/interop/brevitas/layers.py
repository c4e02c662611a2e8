"""Brevitas layer to layers of qfx.nn, one function each, and what is known of the result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import brevitas.nn as bnn
import torch
import torch.nn.functional as F
from torch import nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import TABLE_WIDTH, Overflow
from qfx.interop.brevitas.formats import (
    ACT_CLASS,
    WEIGHT_CLASS,
    Held,
    accumulated,
    activation,
    bias,
    binary_point,
    power_of_two,
    require_bias,
    require_data,
    rounding_of,
    started,
    weight,
)
from qfx.nn.geometry import NO_PADDING, Pair, inside, pool_window
from qfx.nn.quantizer import Quantizer, Spec
from qfx.nn.shapes import uneven


@dataclass(slots=True)
class Link:
    """One layer in the place of a Brevitas layer: what is known of its result, and its quantizers by name."""

    layer: nn.Module
    held: Held | None
    quantizers: dict[str, Quantizer] = field(default_factory=dict)


Chain = list[Link]
UNKNOWN = Held(torch.tensor(0.0), 0, 0, None, False)
"""Stands for what is known of the result of a layer that is refused: nothing."""


class NotAtFault(LowerError):
    """A layer cannot be translated for no fault of its own: what it reads, or what reads it, is refused itself."""


def together(*finds: Callable[[], Any]) -> tuple[Any, ...]:
    """Return what all functions give, or raise everything that they are refused for at once."""
    found: list[Any] = []
    problems: list[str] = []
    follows: NotAtFault | None = None
    for find in finds:
        try:
            found.append(find())
        except NotAtFault as error:
            follows = error
        except LowerError as error:
            problems.append(str(error))
    if problems:
        raise LowerError("\n- ".join(problems))
    if follows is not None:
        raise follows
    return tuple(found)


@dataclass(slots=True)
class Site:
    """Where a layer is called: its path, what is known of its operands, the first one's shape if an example told it."""

    path: str
    given: list[Held | None]
    shape: tuple[int, ...] | None
    of_proxy: dict[int, Quantizer]  # quantizers of proxies that several layers share

    def operand(self, place: int = 0) -> Held:
        """Return what is known of an operand, or refuse one that is not quantized."""
        held = self.given[place] if place < len(self.given) else None
        if held is None:
            raise LowerError(
                f"layer '{self.path}' must read a quantized tensor; put a QuantIdentity with {ACT_CLASS} before it"
            )
        if held is UNKNOWN:
            raise NotAtFault(f"what layer '{self.path}' reads is refused")
        return held

    def reading(self, chain: Chain) -> "Site":
        """Return the same place behind a chain of layers."""
        return Site(self.path, [chain[-1].held], self.shape, self.of_proxy)

    def activation(self, proxy: Any, path: str) -> Quantizer:
        """Return the quantizer of an activation's proxy, one for each proxy."""
        if id(proxy) not in self.of_proxy:
            self.of_proxy[id(proxy)] = activation(path, proxy)
        return self.of_proxy[id(proxy)]

    def entry(self, layer: Any) -> Held:
        """Return what a layer with ``input_quant`` reads: what that gives, or the operand, on one grid."""
        if layer.input_quant.is_quant_enabled:
            return Held.after(self.activation(layer.input_quant, f"{self.path}.input_quant"))
        return self.carried()

    def carried(self, place: int = 0) -> Held:
        """Return an operand with a quantizer that holds it."""
        held = self.operand(place)
        if held.quantizer is not None:
            return held
        found, held = held.carrier(self.path), held.on_one_grid()
        return Held(held.frac, held.low, held.high, held.width, held.signed, found)


def _quantized(held: Held) -> Quantizer:
    assert held.quantizer is not None
    return held.quantizer


def _activated(site: Site, proxy: Any, path: str) -> Chain:
    """A quantizer, or the sign times a power of two: what the gradient passes is then as wide as that, as Brevitas'."""
    frac = binary_point(path, proxy)
    if frac is None:
        quantizer = site.activation(proxy, path)
        return [Link(quantizer, Held.after(quantizer))]
    held = Held(torch.tensor(float(frac)), -1, 1, 1, True)
    if frac == 0:
        return [Link(qnn.BinaryActivation(), held)]
    return [Link(qnn.Scale(frac), None), Link(qnn.BinaryActivation(), None), Link(qnn.Scale(-frac), held)]


def _entered(site: Site, proxy: Any, path: str) -> Chain:
    """The same on the operand, of which a sign needs the integers."""
    if binary_point(path, proxy) is not None:
        site.operand()
    return _activated(site, proxy, path)


def _identity(site: Site, layer: Any) -> Chain:
    if layer.act_quant.is_quant_enabled:
        return _entered(site, layer.act_quant, site.path)
    return [Link(nn.Identity(), site.operand())]


def forgets(layer: nn.Module) -> bool:
    """Return whether a layer's result has one format, whatever it reads."""
    return isinstance(layer, bnn.QuantIdentity | bnn.QuantReLU | bnn.QuantHardTanh) and layer.act_quant.is_quant_enabled


def _relu(site: Site, layer: Any) -> Chain:
    if not layer.input_quant.is_quant_enabled:
        return _rectified(site, layer)
    before, _ = together(
        lambda: _entered(site, layer.input_quant, f"{site.path}.input_quant"),
        lambda: layer.act_quant.is_quant_enabled and _activated(site, layer.act_quant, site.path),
    )
    return [*before, *_rectified(site.reading(before), layer)]


def _rectified(site: Site, layer: Any) -> Chain:
    if layer.act_quant.is_quant_enabled:
        return [Link(qnn.ReLU(), None), *_activated(site, layer.act_quant, site.path)]
    return _plain_relu(site, layer)


def _plain_relu(site: Site, layer: Any) -> Chain:
    if site.given[0] is None:
        raise LowerError(f"layer '{site.path}' must read a quantized tensor; use brevitas.nn.QuantReLU")
    held = site.operand()
    return [Link(qnn.ReLU(), Held(held.frac, 0, held.high, held.width, held.signed, held.quantizer))]


def _hardtanh(site: Site, layer: Any) -> Chain:
    """Brevitas leaves the bounds to the quantizer, where there is one."""
    if layer.input_quant.is_quant_enabled or not layer.act_quant.is_quant_enabled:
        raise LowerError(
            f"layer '{site.path}' must quantize its result, and not its input; use act_quant="
            "brevitas.quant.fixed_point.Int8ActPerTensorFixedPointMinMaxInit"
        )
    return _identity(site, layer)


def _table(function: type[nn.Module]) -> Callable[[Site, Any], Chain]:
    def translate(site: Site, layer: Any) -> Chain:
        entry, gives = together(lambda: site.entry(layer), lambda: site.activation(layer.act_quant, site.path))
        reads = _quantized(entry)
        if reads.width > TABLE_WIDTH:
            raise LowerError(
                f"layer '{site.path}' must read at most {TABLE_WIDTH} bits, not {reads.width}; use "
                f"input_quant={ACT_CLASS}"
            )
        fixed = reads.format()
        x = torch.arange(fixed.min_code, fixed.max_code + 1).float() * torch.exp2(-reads.frac_now)
        with torch.no_grad():
            other = int((gives(function()(x.double())) != layer.act_quant(x).value).sum())
        if other:
            raise LowerError(
                f"layer '{site.path}' must have a table of Brevitas' values, but {other} of {len(x)} are rounded the "
                "other way in float32; use a bit_width of one bit less"
            )
        new = qnn.Table.from_float(function(), reads.spec, gives.spec)
        return [Link(new, Held.after(gives), {"input_quant": reads, "output_quant": gives})]

    return translate


def _conv(site: Site, layer: Any) -> Chain:
    return _weighted(site, layer, qnn.Conv2d, _require_padding)


def _require_padding(path: str, layer: Any) -> None:
    if layer.padding_mode != "zeros":
        raise LowerError(f"layer '{path}' must have padding_mode 'zeros', not {layer.padding_mode!r}")
    if layer.is_same_padded_strided:
        raise LowerError(f"layer '{path}' must have its padding in numbers, not 'same', where it has a stride")


def _conv_transpose(site: Site, layer: Any) -> Chain:
    return _weighted(site, layer, qnn.ConvTranspose2d)


def _linear(site: Site, layer: Any) -> Chain:
    return _weighted(site, layer, qnn.Linear)


def _weighted(
    site: Site,
    layer: Any,
    kind: type[qnn.Conv2d | qnn.ConvTranspose2d | qnn.Linear],
    *more: Callable[[str, Any], None],
) -> Chain:
    path, leaves = site.path, layer.output_quant.is_quant_enabled
    demands = [partial(require, path, layer) for require in (*more, require_bias)]
    (before, entry), (kernel, master), after, *_ = together(
        lambda: _read(site, layer),
        lambda: weight(path, layer),
        lambda: _activated(site, layer.output_quant, f"{path}.output_quant") if leaves else [],
        *demands,
    )
    new = kind.from_float(layer, kernel.spec, _quantized(entry).spec)
    new.weight = nn.Parameter(master.detach().clone())
    offset = None if layer.bias is None else bias(path, layer, entry, kernel)
    if offset is not None:
        new.bias = nn.Parameter(offset.clone())
    quantizers = {"input_quant": _quantized(entry), "weight_quant": kernel}
    held = None if leaves else accumulated(layer, entry, kernel, master, offset)
    return [*before, Link(new, held, quantizers), *after]


def _read(site: Site, layer: Any) -> tuple[Chain, Held]:
    """The sign that a layer's ``input_quant`` is, if it is one, and what the layer then reads."""
    path = f"{site.path}.input_quant"
    if binary_point(path, layer.input_quant) is None:
        return [], site.entry(layer)
    before = _entered(site, layer.input_quant, path)
    return before, site.reading(before).carried()


def _max_pool(site: Site, layer: Any) -> Chain:
    if layer.ceil_mode or layer.return_indices or layer.dilation not in (1, (1,), (1, 1)):
        raise LowerError(f"layer '{site.path}' must have dilation 1, and neither ceil_mode nor return_indices")
    kernel, stride, padding = pool_window(layer, NO_PADDING)
    if not inside(kernel, padding):
        raise LowerError(f"layer '{site.path}' must have a padding smaller than its kernel {kernel}, not {padding}")
    held = site.carried()
    new = qnn.MaxPool2d(kernel, stride, padding, input_spec=_quantized(held).spec)
    return [Link(new, held, {"input_quant": _quantized(held)})]


def _avg_pool(site: Site, layer: Any) -> Chain:
    window, stride, padding = pool_window(layer, NO_PADDING)
    if layer.ceil_mode or (any(padding) and not layer.count_include_pad):
        raise LowerError(f"layer '{site.path}' must not have ceil_mode, and padding only with count_include_pad")
    divisor = getattr(layer, "divisor_override", None) or window[0] * window[1]
    entry = site.carried()
    total = _summed(site.path, entry, window, divisor)
    new = qnn.AvgPool2d(window, stride, padding, divisor, input_spec=_quantized(entry).spec)
    return _averaged(site, layer, new, entry, total)


def _adaptive_avg_pool(site: Site, layer: Any) -> Chain:
    if site.shape is None:
        raise LowerError(
            f"the size of what layer '{site.path}' reads must be known: give an example, from_brevitas(model, example)"
        )
    size = layer.output_size
    size = (None, *size) if isinstance(size, tuple) and len(size) == 1 else size
    entry = site.carried()
    new = qnn.AdaptiveAvgPool2d(size, input_spec=_quantized(entry).spec)
    if reason := uneven(new.output_size, site.shape[1:]):
        raise LowerError(f"layer '{site.path}': {reason}")
    window = new.kernel_for(*((1, *site.shape[2:])[-2:]))
    return _averaged(site, layer, new, entry, _summed(site.path, entry, window, window[0] * window[1]))


def _summed(path: str, entry: Held, window: Pair, divisor: int) -> Held:
    """What is known of a window's sum, divided by a power of two: Brevitas puts the division into the scale."""
    if divisor & (divisor - 1):
        raise LowerError(
            f"layer '{path}' must divide by a power of two, for its scale to be one, not by {divisor}; use a window of "
            "such a size, or a divisor_override"
        )
    count = window[0] * window[1]
    frac = entry.frac + (divisor.bit_length() - 1)
    said = F.avg_pool2d(entry.quant_tensor(1, 1, *window), window, window, 0, False, True, divisor)
    width = None if entry.width is None else int(said.bit_width)
    return Held(frac, entry.low * count, entry.high * count, width, entry.signed)


def _averaged(site: Site, layer: Any, new: Any, entry: Held, total: Held) -> Chain:
    proxy = getattr(layer, "trunc_quant", None)
    truncates = proxy is not None and proxy.is_quant_enabled
    result = _truncated(site.path, proxy, total) if truncates else total.carrier(site.path)
    held = (
        Held.after(result) if truncates else Held(total.frac, total.low, total.high, total.width, total.signed, result)
    )
    return [Link(new, held, {"input_quant": _quantized(entry), "output_quant": result})]


def _accumulator(site: Site, layer: Any) -> Chain:
    if not layer.trunc_quant.is_quant_enabled:
        return [Link(nn.Identity(), site.operand())]
    result = _truncated(site.path, layer.trunc_quant, site.operand())
    return [Link(result, Held.after(result))]


def _truncated(path: str, proxy: Any, held: Held) -> Quantizer:
    """The quantizer that drops low bits as Brevitas does: ``clamp(round(code / 2**(bits before - bits after)))``."""
    held = held.on_one_grid()
    require_data(path, proxy)
    if held.width is None:
        raise LowerError(
            f"layer '{path}' must read a QuantTensor of one scale, whose bits it drops; put a QuantIdentity before it, "
            f"or use a weight_quant per tensor, {WEIGHT_CLASS}"
        )
    said = proxy(held.quant_tensor(1, 1, 1, 1))
    frac = power_of_two(path, said, "trunc_quant=brevitas.quant.RoundTo8bit, whose scale is a power of two")
    overflow = Overflow.SAT_SYM if proxy.is_narrow_range and held.signed else Overflow.SAT
    return started(Spec(int(said.bit_width), None, held.signed, rounding_of(path, proxy), overflow), frac)


def torch_sum(site: Site) -> Chain:
    """Two tensors, each on its own grid, and the exact sum."""
    return [_add(site, *_operands(site))]


def _operands(site: Site) -> tuple[Held, ...]:
    return together(lambda: site.carried(0), lambda: site.carried(1))


def _eltwise_add(site: Site, layer: Any) -> Chain:
    leaves = layer.output_quant.is_quant_enabled
    (a, b), result = together(
        lambda: (site.entry(layer),) * 2 if layer.input_quant.is_quant_enabled else _operands(site),
        lambda: site.activation(layer.output_quant, f"{site.path}.output_quant") if leaves else None,
    )
    link = _add(site, a, b)
    if not leaves:
        return [link]
    return [Link(link.layer, Held.after(result), {**link.quantizers, "output_quant": result})]


def _add(site: Site, a: Held, b: Held) -> Link:
    frac = torch.maximum(a.frac, b.frac)
    low, high = (
        sum(code << int((frac - held.frac).item()) for code, held in zip(codes, (a, b), strict=True))
        for codes in ((a.low, b.low), (a.high, b.high))
    )
    width = None
    if a.width is not None and b.width is not None and bool(a.frac == b.frac):
        width = int((a.quant_tensor(1, 1) + b.quant_tensor(1, 1)).bit_width)
    held = Held(frac, low, high, width, a.signed or b.signed)
    result = held.carrier(site.path)
    found = Held(frac, low, high, width, held.signed, result)
    return Link(qnn.Add(), found, {"a_quant": _quantized(a), "b_quant": _quantized(b), "output_quant": result})


def cat(site: Site) -> Chain:
    """The channels of all operands, on one grid that holds each."""
    helds = [held.on_one_grid() for held in together(*(partial(site.operand, i) for i in range(len(site.given))))]
    first = helds[0]
    if all(held.quantizer is first.quantizer for held in helds) and first.quantizer is not None:
        return [Link(qnn.Concat(), first)]
    frac = torch.stack([held.frac for held in helds]).max()
    low = min(held.low << int((frac - held.frac).item()) for held in helds)
    high = max(held.high << int((frac - held.frac).item()) for held in helds)
    alike = all((held.frac, held.width, held.signed) == (first.frac, first.width, first.signed) for held in helds)
    return [Link(qnn.Concat(), Held(frac, low, high, first.width if alike else None, low < 0))]


def _flatten(site: Site, layer: Any) -> Chain:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise LowerError(f"layer '{site.path}' must flatten all axes but the first; use torch.flatten(x, 1)")
    return [Link(qnn.Flatten(), site.given[0])]


def _upsample(site: Site, layer: Any) -> Chain:
    new = qnn.Upsample.from_float(layer)
    if isinstance(new, str):
        raise LowerError(f"layer '{site.path}': {new}")
    return [Link(new, site.operand())]


def _unchanged(site: Site, layer: Any) -> Chain:
    return [Link(layer, site.given[0])]


LAYERS: dict[type[nn.Module], Callable[[Site, Any], Chain]] = {
    bnn.QuantIdentity: _identity,
    bnn.QuantReLU: _relu,
    bnn.QuantHardTanh: _hardtanh,
    bnn.QuantSigmoid: _table(nn.Sigmoid),
    bnn.QuantTanh: _table(nn.Tanh),
    bnn.QuantHardSwish: _table(nn.Hardswish),
    bnn.QuantConv1d: _conv,
    bnn.QuantConv2d: _conv,
    bnn.QuantConvTranspose1d: _conv_transpose,
    bnn.QuantConvTranspose2d: _conv_transpose,
    bnn.QuantLinear: _linear,
    bnn.QuantEltwiseAdd: _eltwise_add,
    bnn.TruncAvgPool2d: _avg_pool,
    bnn.TruncAdaptiveAvgPool2d: _adaptive_avg_pool,
    bnn.TruncQuantAccumulator: _accumulator,
    bnn.QuantUpsample: _upsample,
    bnn.QuantUpsamplingNearest2d: _upsample,
    nn.ReLU: _plain_relu,
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.Upsample: _upsample,
    nn.UpsamplingNearest2d: _upsample,
    nn.Flatten: _flatten,
    nn.Identity: _unchanged,
    nn.Dropout: _unchanged,
}
REMEDIES = {
    **dict.fromkeys(("Sigmoid", "sigmoid"), "brevitas.nn.QuantSigmoid"),
    **dict.fromkeys(("Tanh", "tanh"), "brevitas.nn.QuantTanh"),
    **dict.fromkeys(("Hardtanh", "ReLU6", "hardtanh", "relu6", "clamp"), "brevitas.nn.QuantHardTanh"),
    **dict.fromkeys(("Hardswish", "hardswish"), "brevitas.nn.QuantHardSwish"),
    "Conv1d": f"brevitas.nn.QuantConv1d with weight_quant={WEIGHT_CLASS}",
    "Conv2d": f"brevitas.nn.QuantConv2d with weight_quant={WEIGHT_CLASS}",
    "Linear": f"brevitas.nn.QuantLinear with weight_quant={WEIGHT_CLASS}",
    "ConvTranspose1d": f"brevitas.nn.QuantConvTranspose1d with weight_quant={WEIGHT_CLASS}",
    "ConvTranspose2d": f"brevitas.nn.QuantConvTranspose2d with weight_quant={WEIGHT_CLASS}",
    "ClampQuantAccumulator": "brevitas.nn.TruncQuantAccumulator, or a QuantIdentity",
    "QuantScaleBias": "nn.BatchNorm2d, and from_brevitas(model, batch_norm='keep')",
    "BatchNorm2dToQuantScaleBias": "nn.BatchNorm2d, and from_brevitas(model, batch_norm='keep')",
    **dict.fromkeys(("QuantLSTM", "QuantRNN", "LSTM", "GRU", "RNN"), "QuantConv1d over time: no layer is recurrent"),
    "QuantCat": "torch.cat(tensors, 1)",
    "Dropout2d": "nn.Dropout",
    **dict.fromkeys(("truediv", "div", "sub"), "a QuantIdentity first, and scale the data before the network"),
    "mul": "a QuantConv2d with a weight for each channel",
}


def known() -> str:
    """Return the layers that there is a translation of, Brevitas' and torch's, in words."""
    names = [f"nn.{kind.__name__}" if kind.__module__.startswith("torch") else kind.__name__ for kind in LAYERS]
    return ", ".join(names)
