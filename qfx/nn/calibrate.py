"""Initial formats from observed ranges, and walks over the quantizers of a model."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from qfx.arguments import require_choice, require_kind, require_number
from qfx.errors import TrainError
from qfx.nn.affine import BatchNorm2d
from qfx.nn.inputs import require_converted, require_input, taken
from qfx.nn.quantizer import Quantizer
from qfx.nn.ranks import alone, gather

Method = Literal["error", "max", "percentile"]


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
        quantizer.watch()
    try:
        yield
    finally:
        for quantizer in found:
            quantizer.observer = None


def calibrate(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]],
    method: Method = "error",
    percentile: float = 99.9,
) -> nn.Module:
    """Choose every quantizer's initial format from float values.

    The model runs in its present mode, so that in training mode BatchNorm uses batch statistics, and an immature one in
    any mode (see BatchNorm2d); the running ones are left as they were. Formats that the recipe fixes stay; a sign that
    it leaves open becomes unsigned where no negative value was seen. Constants (BatchNorm) get room to move: see
    Observer. Where several ranks train together, each brings its own batches, and all get the formats that one would
    choose that saw them all (in training mode each must bring as many).

    Args:
        batches: inputs, or tuples whose first element is the input.
        method: the finest binary point that clips nothing (``max``), or nothing of ``percentile`` percent of the
            values; or the one with the least squared error (``error``), at most four bits finer than ``max``.
        percentile: above 0, at most 100; only that method reads it.

    Returns:
        the model itself.

    Raises:
        TrainError: there is no batch, a value is not finite, a quantizer saw nothing, or a format that the recipe fixes
            cannot hold any of the values that it saw.
    """
    require_choice(TrainError, "method", method, get_args(Method))
    require_number(TrainError, "percentile", percentile, 0, 100, above=True)
    require_converted(model)
    if isinstance(batches, Tensor):
        raise TrainError("batches must be a list of inputs, not one tensor: write [x], or x.split(64)")
    require_kind(TrainError, "batches", batches, Iterable, "an iterable of inputs, such as [x]")
    part = percentile / 100 if method == "percentile" else 1.0
    name_quantizers(model)
    pending = list(quantizers(model).values())
    with floating(model), torch.no_grad():
        count = 0
        with maturing(model):
            for batch in batches:
                x = batch[0] if isinstance(batch, tuple | list) and batch else batch
                require_input("each batch, or its first element,", x)
                with taken(x):
                    model(x)
                count += 1
        if not any(gather(count)):
            raise TrainError("calibration must have at least one batch, but there was none")
        for quantizer in pending:
            if quantizer.observer is not None:
                quantizer.observer.share()
            quantizer.initialise(least_error=method == "error", part=part)
    return model


@contextmanager
def maturing(model: nn.Module) -> Iterator[None]:
    """Let immature BatchNorms use batch statistics, as training will; all statistics and modes stay as they were.

    In evaluation each rank uses those of its own batches: one process that has all of them sees the same.
    """
    found = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    together = any(norm.training for norm in found)
    norms = [norm for norm in found if norm.training or norm.immature]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)} for norm in norms]
    modes = [norm.training for norm in norms]
    for norm in norms:
        norm.training = True
    try:
        with nullcontext() if together else alone():
            yield
    finally:
        for norm, mode, buffers in zip(norms, modes, kept, strict=True):
            norm.training = mode
            for name, buffer in buffers.items():
                getattr(norm, name).copy_(buffer)
