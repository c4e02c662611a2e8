"""Correction after calibration: what quantization shifts in the mean results of layers is taken back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qfx.errors import TrainError
from qfx.nn.affine import BatchNorm2d
from qfx.nn.calibrate import floating, maturing
from qfx.nn.compute import Conv2d, Linear, quantized
from qfx.nn.deform import DeformConv2d
from qfx.nn.quantizer import Quantizer
from qfx.nn.ranks import gather
from qfx.nn.transposed import ConvTranspose2d

Biased = Conv2d | ConvTranspose2d | Linear | DeformConv2d
Layer = Biased | BatchNorm2d


@dataclass(frozen=True)
class _Moments:
    """Mean and variance of each channel."""

    mean: Tensor
    var: Tensor


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]) -> nn.Module:
    """Give layers back the mean results of float arithmetic, in the order in which the model runs them.

    The running statistics of a BatchNorm follow what quantization has made of its input, so that evaluation agrees
    with training mode; its constants get their initial formats anew. An immature one is left to training. The bias of
    another layer takes up the difference of the channel's mean result. It comes after `calibrate` and before training,
    or stands instead of training. Where several ranks train together, all get what one would that has all their
    batches.

    Args:
        batches: inputs, or tuples whose first element is the input; a few hundred images do. They are kept in memory,
            and run once for each layer.

    Returns:
        the model itself.

    Raises:
        TrainError: there is no batch, or the model was not calibrated.

    Sources: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2,
    with observed means; for BatchNorm: Nagel et al., Overcoming Oscillations in Quantization-Aware Training, 2022.
    """
    inputs = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not any(gather(len(inputs))):
        raise TrainError("correction must have at least one batch, but there was none")
    with _evaluating(model):
        layers = _correctable(model)
        with floating(model):
            wanted = _moments(model, layers, inputs)
        for name, real in wanted.items():
            layer = layers[name]
            found = _moments(model, {name: layer}, inputs)[name]
            if isinstance(layer, BatchNorm2d):
                _follow(layer, real, found)
            else:
                _shift(layer, real.mean - found.mean)
    return model


def _correctable(model: nn.Module) -> dict[str, Layer]:
    """The layers that have what can be corrected, by their path; those that share it, once."""
    found: dict[str, Layer] = {}
    taken: set[int] = set()
    for name, layer in model.named_modules():
        has = None
        if isinstance(layer, BatchNorm2d) and not layer.folded and not layer.immature:
            has = layer.running_mean
        elif isinstance(layer, Biased):
            has = _bias(layer)
        if has is not None and id(has) not in taken:
            taken.add(id(has))
            found[name] = layer
    return found


def _bias(layer: Biased) -> nn.Parameter | None:
    """The parameter that moves the result of a layer: its bias, or that of a BatchNorm folded into it."""
    folded = isinstance(layer, Conv2d | ConvTranspose2d) and layer.norm
    return layer.norm[0].bias if folded else layer.bias


def _follow(norm: BatchNorm2d, real: _Moments, found: _Moments) -> None:
    """Let a BatchNorm's running statistics follow the moments of its input."""
    norm.running_mean.add_(found.mean - real.mean)
    norm.running_var.mul_(torch.where(real.var > 0, found.var / real.var, 1.0))
    _initialise(norm.scale_quant, norm.real_constants()[0])
    _initialise(norm.shift_quant, norm.real_constants()[1])  # which follows the quantized scale


def _initialise(quantizer: Quantizer, constants: Tensor) -> None:
    quantizer.watch()
    quantizer(constants)
    quantizer.initialise()


def _shift(layer: Biased, missing: Tensor) -> None:
    """Add to a layer's bias what its mean result lacks, and what rounding has added to the bias until now."""
    weight, real = layer.effective()
    bias = _bias(layer)
    assert bias is not None and real is not None  # as _correctable found it
    _, rounded = quantized(layer, weight.double(), real.double(), torch.float64)
    assert rounded is not None
    bias.add_(missing + rounded - real)


class _Enough(Exception):
    """The only layer asked for has run."""


def _moments(model: nn.Module, layers: Mapping[str, Layer], inputs: list[Tensor]) -> dict[str, _Moments]:
    """What BatchNorms are given, and what other layers give, by channel (axis 1), over all ranks, in running order."""
    sums: dict[str, Tensor] = {}  # count, sum and sum of squares

    def note(name: str, values: Tensor) -> None:
        rows = values.double().movedim(1, 0).flatten(1)
        new = torch.stack([torch.full_like(rows[:, 0], rows.shape[1]), rows.sum(1), (rows * rows).sum(1)])
        sums[name] = sums[name] + new if name in sums else new
        if len(layers) == 1:
            raise _Enough

    hooks = [_hook(layer, name, note) for name, layer in layers.items()]
    try:
        with maturing(model):
            for x in inputs:
                with suppress(_Enough):
                    model(x)
    finally:
        for hook in hooks:
            hook.remove()
    everywhere = [rank for rank in gather(sums) if rank]
    found = {}
    for name in everywhere[0] if everywhere else ():
        count, total, squares = torch.stack([rank[name] for rank in everywhere]).sum(0)
        mean = total / count
        found[name] = _Moments(mean, (squares / count - mean * mean).clamp_min(0))
    return found


def _hook(layer: Layer, name: str, note: Callable[[str, Tensor], None]) -> RemovableHandle:
    """Have a BatchNorm's input, or another layer's result, noted."""
    if isinstance(layer, BatchNorm2d):
        return layer.register_forward_pre_hook(lambda module, given: note(name, given[0]))
    return layer.register_forward_hook(lambda module, given, result: note(name, result))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm use running statistics meanwhile."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
