"""The quantizers of qfx in Brevitas' own layers: learned binary points and K-hot words."""

import traceback
from typing import Any

import torch
from brevitas.inject import ExtendedInjector
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.fixed import Overflow
from qfx.nn.observe import Observer
from qfx.nn.quantizer import Digits, Quantizer, Spec

Quantized = tuple[Tensor, Tensor, Tensor, Tensor]  # value, scale, zero point, width


class TensorQuant(nn.Module):
    """A Quantizer in the form that Brevitas asks for: ``x`` to value, scale ``2**-frac``, zero point 0 and width.

    A weight takes its format from the weight itself, of the least squared error; an activation from ``qfx.calibrate``,
    or from the first batch that it meets in training.
    """

    def __init__(self, quantizer: Quantizer, weight: bool) -> None:
        super().__init__()
        self.quantizer, self.weight = quantizer, weight
        quantizer.remedy = "build its layer with the bit width that the checkpoint was trained with"

    def forward(self, x: Tensor) -> Quantized:
        quantizer = self.quantizer
        if not quantizer.calibrated and quantizer.observer is None:
            self._calibrate(x.detach())
        value = quantizer(x)
        frac = self._provisional() if quantizer.observer is not None else quantizer.frac_now
        shape = [-1] + [1] * (x.dim() - 1) if quantizer.spec.per_channel else []
        scale = torch.exp2(-frac).reshape(shape)
        return value, scale, scale.new_zeros(()), scale.new_full((), quantizer.width)

    def _calibrate(self, x: Tensor) -> None:
        quantizer = self.quantizer
        quantizer.path = _path_in_call(quantizer) or type(self).__name__
        if not self.weight and not self.training:
            raise TrainError(
                f"quantizer '{quantizer.path}' must be calibrated before it runs: call "
                "qfx.calibrate(model, batches), or give it a batch in training mode"
            )
        quantizer.observer = Observer(quantizer.axis if quantizer.spec.per_channel else None, path=quantizer.path)
        quantizer.observer.add(x)
        if not self.weight:
            quantizer.observer.share()  # every rank trains on a batch of its own, in one format
        quantizer.initialise()

    def _provisional(self) -> Tensor:
        """The binary points that hold what calibration has seen so far: a bias is rounded to their grid meanwhile."""
        observer = self.quantizer.observer
        assert observer is not None
        return observer.frac_for(2.0 ** (self.quantizer.width - 1)).to(self.quantizer.frac)


class WeightQuant(TensorQuant):
    """TensorQuant of a weight; Brevitas' injector gives the arguments by their names."""

    def __init__(
        self,
        module: Any,
        bit_width: int,
        narrow_range: bool,
        per_channel: bool,
        learned: bool,
        digits: int,
        signed_digits: bool,
    ) -> None:
        layer = module[0] if isinstance(module, tuple) else module
        axis = layer.output_channel_dim
        overflow = Overflow.SAT_SYM if narrow_range else Overflow.SAT
        hot = Digits(digits, signed_digits) if digits else None
        spec = Spec(bit_width, None, True, overflow=overflow, per_channel=per_channel, digits=hot)
        super().__init__(_quantizer(spec, layer.weight.shape[axis], axis, learned), weight=True)


class ActQuant(TensorQuant):
    """TensorQuant of an activation; Brevitas' injector gives the arguments by their names."""

    def __init__(self, bit_width: int, signed: bool, narrow_range: bool, learned: bool) -> None:
        overflow = Overflow.SAT_SYM if narrow_range and signed else Overflow.SAT
        super().__init__(_quantizer(Spec(bit_width, None, signed, overflow=overflow), 1, 1, learned), weight=False)


def _path_in_call(module: nn.Module) -> str:
    """The path of a module in the outermost model that runs now, or nothing: no layer knows its own."""
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_stack(None)]
    for model in reversed(running):
        for name, part in model.named_modules() if isinstance(model, nn.Module) else ():
            if part is module:
                return name
    return ""


def _quantizer(spec: Spec, channels: int, axis: int, learned: bool) -> Quantizer:
    quantizer = Quantizer(spec, channels, axis)
    quantizer.frac.requires_grad_(learned)
    return quantizer


class LearnedFixedPointWeight(ExtendedInjector):  # type: ignore[misc]
    """``weight_quant`` with a learned binary point for each output channel, 8 bits, symmetric.

    Arguments of the Brevitas layer: ``weight_bit_width``, ``weight_narrow_range``, ``weight_per_channel``,
    ``weight_learned`` (False: the binary points stay as calibrated).
    """

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = WeightQuant
    bit_width = 8
    signed = True
    narrow_range = True
    per_channel = True
    learned = True
    digits = 0
    signed_digits = False


class KHotWeight(LearnedFixedPointWeight):
    """``weight_quant`` with at most ``weight_digits`` (2) ones in a word; ``weight_signed_digits``: digits -1, 0, 1."""

    digits = 2


class LearnedFixedPointAct(ExtendedInjector):  # type: ignore[misc]
    """``act_quant``, ``input_quant`` or ``output_quant`` with a learned binary point: 8 bits, signed.

    Arguments of the Brevitas layer, with the prefix of the place: ``bit_width``, ``narrow_range``, ``learned``.
    """

    proxy_class = ActQuantProxyFromInjector
    tensor_quant = ActQuant
    bit_width = 8
    signed = True
    narrow_range = False
    learned = True


class LearnedFixedPointUnsignedAct(LearnedFixedPointAct):
    """LearnedFixedPointAct without a sign, for QuantReLU."""

    signed = False
