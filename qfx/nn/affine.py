"""Per-channel multiply and add in fixed point: BatchNorm, and the normalisation of an input."""

from typing import Self

import torch
from torch import Tensor, nn

from qfx.nn import fused_norm
from qfx.nn.barrier import keep
from qfx.nn.constants import Codes, quantized_codes
from qfx.nn.functional import over_channels
from qfx.nn.integer import exact_affine
from qfx.nn.quantizer import CONSTANT, ELEMENTWISE, Quantizer, Spec
from qfx.nn.ranks import moments, ranks

_INITIAL = 0.1  # part of the initial statistics in those of an immature BatchNorm


class Normalize(nn.Module):
    """``y = (x - mean) / std`` per channel, in float: what an input needs before the first layer.

    ``qfx.convert`` makes it an Affine, so that the graph takes the raw codes of the input.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("scale", 1 / torch.tensor(std))
        self.register_buffer("shift", -torch.tensor(mean) / torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        return x * over_channels(self.scale, x) + over_channels(self.shift, x)


class Affine(nn.Module):
    """``y = output_quant(x * scale_quant(scale) + shift_quant(shift))`` per channel."""

    def __init__(
        self, scale: Tensor, shift: Tensor, *, constant_spec: Spec = CONSTANT, output_spec: Spec = ELEMENTWISE
    ) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.scale_quant = Quantizer(constant_spec, len(scale), constant=True)
        self.shift_quant = Quantizer(constant_spec, len(scale), constant=True)
        self.output_quant = Quantizer(output_spec, axis=1)
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        return apply_affine(self, x, self.scale_quant(self.scale), self.shift_quant(self.shift))

    def constants(self) -> dict[str, Codes]:
        """Return ``scale`` and ``shift``, each (channels,), on grids of their own."""
        return {
            "scale": quantized_codes(self.scale_quant, self.scale, (0,)),
            "shift": quantized_codes(self.shift_quant, self.shift, (0,)),
        }


class BatchNorm2d(nn.Module):
    """``y = output_quant(x * s + b)``, ``s = scale_quant(gamma / sigma)``, ``b = shift_quant(beta - mean * s)``.

    Batch statistics, over all ranks, in training until ``frozen``, running ones otherwise, and for a single value a
    channel, where torch's layer refuses. The shift takes up the
    scale's rounding error. Constants from running statistics are computed in float64, by one function for training,
    evaluation, exact evaluation and lowering. Takes (N, C, H, W) and (N, C).

    It is immature while its running statistics are more than a tenth the initial ones, mean 0 and variance 1: they say
    nothing of the values that training will make, for which calibration and correction then use batch statistics.

    Args:
        folded: it only holds statistics for a convolution that it is folded into, and quantizes nothing.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        constant_spec: Spec = CONSTANT,
        output_spec: Spec = ELEMENTWISE,
        folded: bool = False,
    ) -> None:
        super().__init__()
        like = nn.BatchNorm2d(num_features, eps, momentum, affine)
        self._take(like)
        self.folded, self.frozen, self.exact = folded, False, False
        if not folded:
            self.scale_quant = Quantizer(constant_spec, num_features, constant=True)
            self.shift_quant = Quantizer(constant_spec, num_features, constant=True)
            self.output_quant = Quantizer(output_spec, axis=1)

    @classmethod
    def from_float(
        cls, layer: nn.BatchNorm2d | nn.BatchNorm1d, constant: Spec, output: Spec, folded: bool = False
    ) -> Self:
        """Return the fixed-point layer that shares ``layer``'s parameters and statistics."""
        new = cls(layer.num_features, constant_spec=constant, output_spec=output, folded=folded)
        new._take(layer)
        return new

    def _take(self, layer: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
        self.num_features, self.eps, self.momentum = layer.num_features, layer.eps, layer.momentum
        self.weight, self.bias = layer.weight, layer.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(layer, name))

    @property
    def observes_batches(self) -> bool:
        """Whether the next forward uses, and records, the statistics of its batch."""
        return self.training and not self.frozen

    @property
    def immature(self) -> bool:
        """Whether hardly a batch has reached the running statistics."""
        if not self.running_mean.any() and bool((self.running_var == 1).all()):
            return True
        seen, rate = int(self.num_batches_tracked), self.momentum
        return seen > 0 and bool(rate) and (1 - rate) ** seen > _INITIAL  # none counted: set, as in old checkpoints

    def forward(self, x: Tensor) -> Tensor:
        x = _real(x)
        several = x.numel() > x.shape[1] or ranks() > 1  # one value a channel has no variance
        x, mean, var = self._observed(x) if self.observes_batches and several else (x, *self._running())
        return apply_affine(self, x, *self._constants(mean, var))

    def fold(self, weight: Tensor, bias: Tensor | None, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a convolution with this layer folded in; ``observed`` is its float result."""
        mean, var = self._running() if observed is None else self._observed(_real(observed))[1:]
        scale = self._scale(var)
        folded = weight.to(scale.dtype) * scale.reshape(-1, *[1] * (weight.dim() - 1))
        mean = mean if bias is None else mean - bias.to(mean.dtype)
        return folded, self._shift(mean, scale)

    def constants(self) -> dict[str, Codes]:
        """Return ``scale`` and ``shift``, each (channels,), on grids of their own."""
        scale, shift = self.real_constants()
        return {
            "scale": quantized_codes(self.scale_quant, scale, (0,)),
            "shift": quantized_codes(self.shift_quant, shift, (0,)),
        }

    @torch.no_grad()
    def real_constants(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift as the running statistics make them, before they are quantized."""
        mean, var = self._running()
        scale = self._scale(var)
        return scale, self._shift(mean, self.scale_quant(scale))

    def _constants(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale_quant(self._scale(var))
        return scale, self.shift_quant(self._shift(mean, scale))

    def _scale(self, var: Tensor) -> Tensor:
        sigma = torch.sqrt(var + self.eps)
        return 1 / sigma if self.weight is None else self.weight.to(var.dtype) / sigma

    def _shift(self, mean: Tensor, scale: Tensor) -> Tensor:
        scaled = mean * scale
        return -scaled if self.bias is None else self.bias.to(mean.dtype) - scaled

    def _running(self) -> tuple[Tensor, Tensor]:
        return self.running_mean.double(), self.running_var.double()

    def _observed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batch ``x`` to go on with, its mean and its variance, which the running ones learn."""
        if fused_norm.serves(x):
            x, mean, var = fused_norm.moments(x)
        else:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            var, mean = map(keep, torch.var_mean(x, axes, correction=0))
        mean, var, count = moments(mean, var, x.numel() // x.shape[1])
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            rate = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), rate)
            unbiased = var.detach() * (count / max(count - 1, 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)
        return x, mean, var


def apply_affine(layer: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``output_quant(x * scale + shift)`` of ``layer``, a constant for each channel."""
    if layer.exact:
        return exact_affine(x, scale, shift, layer.output_quant)
    scale, shift = keep(scale.to(x.dtype)), keep(shift.to(x.dtype))
    if layer.output_quant.plain and len(scale) == x.shape[1] == len(shift) and fused_norm.serves(x):
        return fused_norm.affine_cast(x, scale, shift, layer.output_quant)
    y = x * over_channels(scale, x) + over_channels(shift, x)
    return layer.output_quant(y)


def _real(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
