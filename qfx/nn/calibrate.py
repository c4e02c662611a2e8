"""Initial formats from observed ranges, and walks over the quantizers of a model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn.affine import BatchNorm2d
from qfx.nn.observe import Observer
from qfx.nn.quantizer import Quantizer


def quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Return every quantizer of ``model`` by its module path, each once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def name_quantizers(model: nn.Module) -> None:
    """Tell every quantizer its module path, for messages."""
    for name, quantizer in quantizers(model).items():
        quantizer.path = name


@contextmanager
def floating(model: nn.Module) -> Iterator[None]:
    """Let a model compute in float: its quantizers only look on."""
    found = quantizers(model).values()
    for quantizer in found:
        quantizer.observer = Observer(quantizer.axis if quantizer.spec.per_channel else None, quantizer.constant)
    try:
        yield
    finally:
        for quantizer in found:
            quantizer.observer = None


def calibrate(model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]) -> nn.Module:
    """Choose every quantizer's initial format from float values: the least squared error at its width.

    The model runs in its present mode, so that in training mode BatchNorm uses batch statistics; the running ones are
    left as they were. Formats that the recipe fixes stay; a sign that it leaves open becomes unsigned where no negative
    value was seen. Constants (BatchNorm) get room to move: see Observer.

    Args:
        batches: inputs, or tuples whose first element is the input.

    Returns:
        the model itself.

    Raises:
        TrainError: there is no batch, a value is not finite, or a quantizer saw nothing.
    """
    name_quantizers(model)
    pending = [
        quantizer for quantizer in quantizers(model).values() if quantizer.learned or quantizer.spec.signed is None
    ]
    with floating(model), torch.no_grad(), _kept_statistics(model):
        count = 0
        for batch in batches:
            model(batch if isinstance(batch, Tensor) else batch[0])
            count += 1
        if not count:
            raise TrainError("calibration must have at least one batch, but there was none")
        for quantizer in pending:
            quantizer.initialise()
    return model


@contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                getattr(norm, name).copy_(buffer)
