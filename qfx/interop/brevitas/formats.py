"""What is power-of-two in Brevitas' quantizers, as formats of qfx; what is not is refused with the class to use."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from brevitas.core.quant import BinaryQuant, ClampedBinaryQuant, TernaryQuant
from brevitas.core.scaling import ConstScaling, ParameterFromRuntimeStatsScaling
from brevitas.core.stats.stats_wrapper import _RuntimeStats
from brevitas.proxy import ActQuantProxyFromInjector
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from qfx.errors import LowerError
from qfx.fixed import FRAC_RANGE, WIDEST, Overflow, Rounding, fixed_for_range
from qfx.interop.brevitas.quantizers import TensorQuant
from qfx.nn.functional import code_range
from qfx.nn.quantizer import Digits, Quantizer, Spec
from qfx.nn.transposed import turned

WEIGHT_CLASS = "brevitas.quant.fixed_point.Int8WeightPerTensorFixedPoint"
CHANNEL_CLASS = "brevitas.quant.fixed_point.Int8WeightPerChannelFixedPoint"
ACT_CLASS = "brevitas.quant.fixed_point.Int8ActPerTensorFixedPoint (Uint8ActPerTensorFixedPoint for QuantReLU)"
BINARY_CLASS = "brevitas.quant.SignedBinaryActPerTensorConst"
BIAS_CLASS = "brevitas.quant.Int32Bias"
_BINARY = (BinaryQuant, ClampedBinaryQuant)
_ROUNDINGS = {"ROUND": Rounding.RND_CONV, "FLOOR": Rounding.TRN, "ROUND_TO_ZERO": Rounding.TRN_ZERO}
PROBES = 1 << 18  # values on which an activation quantizer is compared


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a tensor: its values are multiples of ``2**-frac``, between the codes ``low`` and ``high``.

    ``width`` and ``signed`` are what Brevitas says of it, which its truncation goes by: no width where it says nothing,
    as of a sum of different scales. ``quantizer`` is the one that the tensor has just left, if any.
    """

    frac: Tensor  # one, or one for each channel
    low: int
    high: int
    width: int | None
    signed: bool
    quantizer: Quantizer | None = None

    @classmethod
    def after(cls, quantizer: Quantizer) -> "Held":
        """Return what is known of a quantizer's result."""
        low, high = code_range(quantizer.width, quantizer.signed, quantizer.spec.overflow)
        return cls(quantizer.frac_now, low, high, quantizer.width, quantizer.signed, quantizer)

    def same_as(self, other: "Held | None") -> bool:
        """Return whether both have the same grid and range."""
        if other is None or self.frac.numel() != other.frac.numel():
            return False
        return bool((self.frac == other.frac).all()) and replace(self, frac=other.frac, quantizer=None) == replace(
            other, quantizer=None
        )

    def on_one_grid(self) -> "Held":
        """Return the same with one binary point for all channels, the finest; Brevitas has no integers on that."""
        finest = self.frac.max()
        coarser = int((finest - self.frac.min()).item())
        width = None if coarser else self.width
        return replace(self, frac=finest, low=self.low << coarser, high=self.high << coarser, width=width)

    def carrier(self, path: str) -> Quantizer:
        """Return the quantizer that the tensor has just left, or one that leaves its values as they are."""
        if self.quantizer is not None:
            return self.quantizer
        held = self.on_one_grid()
        fixed = fixed_for_range(held.low, max(held.high, 1), 0)
        if fixed.width > WIDEST or not FRAC_RANGE[0] <= held.frac <= FRAC_RANGE[1]:
            raise LowerError(
                f"what '{path}' reads or gives must fit {WIDEST} bits and a frac in {FRAC_RANGE[0]}..{FRAC_RANGE[1]}, "
                f"not {fixed.width} bits at frac {int(held.frac)}; put a QuantIdentity with {ACT_CLASS} there"
            )
        return started(Spec(fixed.width, None, fixed.signed), held.frac)

    def quant_tensor(self, *shape: int) -> IntQuantTensor:
        """Return zeros of a shape that Brevitas takes for a tensor of this kind."""
        scale = torch.exp2(-self.frac)
        if scale.dim():
            scale = scale.reshape(1, -1, *[1] * (len(shape) - 2))
        return IntQuantTensor(torch.zeros(shape), scale, 0.0, float(self.width or WIDEST), self.signed, False)


def started(spec: Spec, frac: Tensor) -> Quantizer:
    """Return a quantizer of activations that starts at ``frac``."""
    quantizer = Quantizer(spec, axis=1)
    quantizer.start_at(frac.reshape(()), spec.signed is True)
    return quantizer


def power_of_two(path: str, tensor: Any, remedy: str) -> Tensor:
    """Return the binary points of a Brevitas tensor's scale, or refuse one that is no power of two."""
    scale = tensor.scale.detach()
    frac = -torch.log2(scale.double())
    if (frac != frac.round()).any():
        raise LowerError(
            f"layer '{path}' must have a power-of-two scale, not {scale.flatten()[0].item():.6g}; use {remedy}"
        )
    if tensor.zero_point.detach().abs().max() > 0:
        value = tensor.zero_point.flatten()[0].item()
        raise LowerError(f"layer '{path}' must have zero point 0, not {value:g}; use {remedy}")
    furthest = frac.flatten()[frac.abs().argmax()].item()
    if not FRAC_RANGE[0] <= furthest <= FRAC_RANGE[1]:
        raise LowerError(
            f"layer '{path}' must have a scale of 2**{-FRAC_RANGE[1]} to 2**{-FRAC_RANGE[0]}, not "
            f"2**{-furthest:g}: scale its weights or its data"
        )
    return frac.float()


def activation(path: str, proxy: Any) -> Quantizer:
    """Return the quantizer that an activation's proxy stands for; it gives the same values."""
    if not proxy.is_quant_enabled:
        raise LowerError(f"layer '{path}' must quantize its result; use act_quant={ACT_CLASS}")
    if type(proxy) is not ActQuantProxyFromInjector:
        raise LowerError(f"layer '{path}' must have one fixed scale, not a {type(proxy).__name__}; use {ACT_CLASS}")
    tensor_quant = proxy.fused_activation_quant_proxy.tensor_quant
    if isinstance(tensor_quant, TensorQuant):
        _require_calibrated(path, tensor_quant.quantizer)
        return tensor_quant.quantizer
    found = proxy(torch.zeros(1, 1))
    if found.scale.numel() > 1:
        raise LowerError(f"layer '{path}' must have one scale, not one for each channel; use {ACT_CLASS}")
    require_data(path, proxy)
    constant = _constant(tensor_quant, found)
    frac = power_of_two(path, found, f"min_val=-{constant}, max_val={constant}" if constant else ACT_CLASS)
    if isinstance(tensor_quant, _BINARY):
        raise LowerError(
            f"layer '{path}' must not be binary itself; put a QuantIdentity with {BINARY_CLASS} there, and use "
            f"{ACT_CLASS}"
        )
    if isinstance(tensor_quant, TernaryQuant) and tensor_quant.threshold != 0.5:
        raise LowerError(f"layer '{path}' must have threshold 0.5, not {tensor_quant.threshold:g}; use {ACT_CLASS}")
    quantizer = started(Spec(int(found.bit_width), None, found.signed, *_modes(path, proxy, tensor_quant)), frac)
    _require_alike(path, tensor_quant, quantizer)
    return quantizer


def binary_point(path: str, proxy: Any) -> int | None:
    """Return ``f`` of an activation's proxy that gives ``-2**-f`` below 0 and ``2**-f`` from 0 on, else None."""
    if not proxy.is_quant_enabled or type(proxy) is not ActQuantProxyFromInjector:
        return None
    if not isinstance(proxy.fused_activation_quant_proxy.tensor_quant, _BINARY):
        return None
    require_data(path, proxy)
    frac = power_of_two(path, proxy(torch.zeros(1, 1)), f"{BINARY_CLASS} with min_val=-1.0, max_val=1.0")
    if frac.numel() > 1:
        raise LowerError(f"layer '{path}' must have one scale, not one for each channel; use {BINARY_CLASS}")
    return int(frac)


def weight(path: str, layer: Any) -> tuple[Quantizer, Tensor]:
    """Return the weight's quantizer, and the real weight that it makes Brevitas' integers of.

    It is the layer's own float weight, or the quantized one where Brevitas' quantizer is more than a rounding.
    """
    proxy = layer.weight_quant
    if not proxy.is_quant_enabled:
        raise LowerError(f"layer '{path}' must quantize its weight; use weight_quant={WEIGHT_CLASS}")
    _require_finite(path, "weight", layer.weight)
    tensor = layer.quant_weight()
    if isinstance(proxy.tensor_quant, TensorQuant):
        return _own_weight(path, layer, proxy.tensor_quant.quantizer), layer.weight
    if not isinstance(tensor, IntQuantTensor):
        raise LowerError(
            f"layer '{path}' must have a weight of integers, not {type(tensor).__name__}; use {WEIGHT_CLASS}"
        )
    frac = power_of_two(path, tensor, _weight_remedy(proxy.tensor_quant, tensor))
    _require_scales(path, layer, frac)
    per_channel = frac.numel() > 1
    if isinstance(proxy.tensor_quant, _BINARY):
        spec = Spec(2, None, True, per_channel=per_channel, digits=Digits(1, zero=False))
    else:
        rounding, overflow = _modes(path, proxy, proxy.tensor_quant, Rounding.RND_CONV)
        spec = Spec(int(tensor.bit_width), None, tensor.signed, rounding, overflow, per_channel)
    quantizer = Quantizer(spec, frac.numel())
    quantizer.start_at(frac.flatten() if per_channel else frac.reshape(()), spec.signed is True)
    value: Tensor = tensor.value.detach()
    wanted = filters_first(layer, value)
    master: Tensor = layer.weight if torch.equal(quantizer(filters_first(layer, layer.weight)), wanted) else value
    if not torch.equal(quantizer(filters_first(layer, master)), wanted):
        raise LowerError(f"layer '{path}' must have a weight of {spec.width}-bit integers; use {WEIGHT_CLASS}")
    return quantizer, master


def _weight_remedy(tensor_quant: Any, tensor: Any) -> str:
    """What gives a weight a power-of-two scale, in as few bits as it has."""
    if constant := _constant(tensor_quant, tensor):
        return f"weight_scaling_init={constant}"
    if isinstance(tensor_quant, (*_BINARY, TernaryQuant)):
        return "weight_restrict_scaling_type='power_of_two'"
    return CHANNEL_CLASS if tensor.scale.numel() > 1 else WEIGHT_CLASS


def _constant(tensor_quant: Any, tensor: Any) -> str | None:
    """The power of two nearest to a constant scale of one or two bits, which is its ``scaling_init`` then, or None."""
    scale = tensor.scale.detach().flatten()[0].item()
    if not isinstance(getattr(tensor_quant, "scaling_impl", None), ConstScaling) or tensor.bit_width > 2 or scale <= 0:
        return None
    return f"{2.0 ** round(math.log2(scale)):g}"


def filters_first(layer: Any, weight: Tensor) -> Tensor:
    """Return a layer's weight with the channels of its result on the first axis, as our quantizers take it."""
    return turned(weight, layer.groups) if layer.output_channel_dim else weight


def _own_weight(path: str, layer: Any, quantizer: Quantizer) -> Quantizer:
    """Return the quantizer of qfx that a Brevitas layer has, or one like it on the first axis."""
    _require_scales(path, layer, quantizer.frac)
    found = copy.deepcopy(quantizer) if quantizer.axis else quantizer
    found.axis = 0
    return found


def _require_scales(path: str, layer: Any, frac: Tensor) -> None:
    filters = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if frac.numel() not in (1, filters):
        raise LowerError(
            f"layer '{path}' must have one scale, or one for each of its {filters} filters, not {frac.numel()}; use "
            f"{WEIGHT_CLASS}"
        )


def bias(path: str, layer: Any, entry: Held, kernel: Quantizer) -> Tensor:
    """Return the bias as Brevitas rounds it: on the accumulator's grid, or refused."""
    shape = (1, layer.weight.shape[1], *layer.weight.shape[2:])
    enabled = layer.bias_quant.is_quant_enabled
    found = layer.bias_quant(layer.bias, entry.quant_tensor(*shape), layer.quant_weight()) if enabled else layer.bias
    value: Tensor = getattr(found, "value", found).detach()
    codes = value * torch.exp2(entry.frac + kernel.frac_now).flatten()
    if (codes != codes.round()).any():
        raise LowerError(f"the bias of layer '{path}' must be on the accumulator's grid; use {BIAS_CLASS}")
    return value


def require_bias(path: str, layer: Any) -> None:
    """Refuse a bias that is no number, or is not quantized and not 0."""
    if layer.bias is None:
        return
    _require_finite(path, "bias", layer.bias)
    if not layer.bias_quant.is_quant_enabled and layer.bias.any():
        raise LowerError(f"layer '{path}' must quantize its bias; use bias_quant={BIAS_CLASS}")


def _require_finite(path: str, name: str, values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise LowerError(f"the {name} of layer '{path}' must be finite, but holds NaN or infinity")


def accumulated(layer: Any, entry: Held, kernel: Quantizer, values: Tensor, offset: Tensor | None) -> Held:
    """Return what is known of a convolution's or dense layer's result: bounds of its codes, and what Brevitas says."""
    frac = entry.frac + kernel.frac_now
    codes = torch.ldexp(kernel(filters_first(layer, values)).double().flatten(1), kernel.frac_now.reshape(-1, 1))
    above, below = codes.clamp(min=0).sum(1), (-codes).clamp(min=0).sum(1)
    shift = 0 if offset is None else torch.ldexp(offset.double(), frac)
    high = (above * entry.high - below * entry.low + shift).max()
    low = (above * entry.low - below * entry.high + shift).min()
    dilation = getattr(layer, "dilation", ())
    sizes = [apart * (taps - 1) + 1 for taps, apart in zip(layer.weight.shape[2:], dilation, strict=True)]
    if layer.output_channel_dim:  # its padding takes pixels off
        sizes = [size + 2 * off for size, off in zip(sizes, layer.padding, strict=True)]
    channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    x = entry.quant_tensor(1, channels, *sizes)
    quant_bias = None if offset is None else layer.bias_quant(layer.bias, x, layer.quant_weight())
    said = layer.inner_forward_impl(x, layer.quant_weight(), quant_bias)
    width = None if entry.width is None or said.zero_point.any() else int(said.bit_width)
    return Held(frac, min(int(low), 0), max(int(high), 0), width, bool(said.signed))


def rounding_of(path: str, proxy: Any, otherwise: Rounding | None = None) -> Rounding:
    """Return how a proxy rounds; ``otherwise`` where that has no name, or refuse it."""
    rounding = _ROUNDINGS.get(str(proxy.rounding_mode).upper(), otherwise)
    if rounding is None:
        raise LowerError(f"layer '{path}' must round by one of {sorted(_ROUNDINGS)}, not {proxy.rounding_mode}")
    return rounding


def _modes(path: str, proxy: Any, tensor_quant: Any, otherwise: Rounding | None = None) -> tuple[Rounding, Overflow]:
    if isinstance(tensor_quant, TernaryQuant):  # of the threshold 1/2
        return Rounding.RND_CONV, Overflow.SAT_SYM
    rounding = rounding_of(path, proxy, otherwise)
    if proxy.is_narrow_range and proxy.is_signed is False:
        raise LowerError(f"layer '{path}' must use its whole unsigned range; leave narrow_range out")
    return rounding, Overflow.SAT_SYM if proxy.is_narrow_range else Overflow.SAT


def _require_alike(path: str, tensor_quant: Any, quantizer: Quantizer) -> None:
    """Refuse an activation quantizer that is more than a rounding and a range: the two must give the same values."""
    low, high = code_range(quantizer.width, quantizer.signed, Overflow.SAT)
    ends = torch.arange(-6, 7) / 4
    steps = torch.linspace(4 * low, 4 * high, min(4 * (high - low) + 1, PROBES), dtype=torch.float64).round() / 4
    x = torch.cat([steps, low + ends, high + ends]).float() * torch.exp2(-quantizer.frac_now)
    if not torch.equal(tensor_quant(x)[0], quantizer(x)):
        raise LowerError(
            f"layer '{path}' must only round and saturate, which its {type(tensor_quant).__name__} does not; use "
            f"{ACT_CLASS}"
        )


def _require_calibrated(path: str, quantizer: Quantizer) -> None:
    if not quantizer.calibrated:
        raise LowerError(
            f"the quantizer of layer '{path}' must be calibrated: call qfx.calibrate(model, batches), or give it a "
            "batch in training mode"
        )


def require_data(path: str, proxy: Any) -> None:
    """Refuse a quantizer of Brevitas whose scale is to be taken from data, but still is what it began as."""
    for part in proxy.modules():
        began = isinstance(part, ParameterFromRuntimeStatsScaling) and part.counter == 0
        if began or (isinstance(part, _RuntimeStats) and part.counter == 0 and bool((part.running_stats == 1).all())):
            raise LowerError(
                f"layer '{path}' must have seen data, which its scale is taken from, but has not: give the network a "
                "batch in training mode, model.train()(x), or load a trained state_dict"
            )
