"""How much each quantizer alone disturbs the outputs of a network, at each width or K it could have."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from qfx.arguments import shown
from qfx.errors import TrainError
from qfx.nn.calibrate import quantizers
from qfx.nn.observe import Observer
from qfx.nn.quantizer import Quantizer

Metric = Callable[[Tensor, Tensor], float]  # what float arithmetic gives, and what came instead, to a distance


def relative_error(real: Tensor, found: Tensor) -> float:
    """The squared error as a part of the squared values: 1 / SQNR."""
    return float(((found - real) ** 2).sum() / (real**2).sum().clamp_min(1e-30))


@torch.no_grad()
def sensitivities(
    model: nn.Module,
    names: Sequence[str] | Mapping[str, Sequence[str]],
    sizes: Sequence[int] | Mapping[str, Sequence[int]],
    batches: Iterable[Tensor],
    metrics: Mapping[str, Metric] | Metric = relative_error,
) -> dict[str, dict[int, float]]:
    """Return, for each quantizer and size, how far the outputs are from float when only this quantizer quantizes.

    Args:
        model: a converted network in evaluation mode; it is left as it was.
        names: paths of quantizers whose binary point is learned; or groups of such paths by their names, of quantizers
            that have one width.
        sizes: widths in bits, or of a K-hot constant whose K is learned the digits of all its channels; for all
            quantizers, or by name.
        batches: inputs; they are kept in memory and run once for each quantizer and size.
        metrics: the distance of an output; a mapping gives every output its own ("0", "1", ... of a tuple, the keys of
            a dict, "" of a single tensor), and their mean counts.

    Raises:
        TrainError: there is no batch, an output has no metric, or a metric does not return a finite number.

    Source: MixDQ (Zhao et al., 2024), section 4: sensitivities layer by layer, metrics separate for what differs.
    """
    inputs = list(batches)
    if not inputs:
        raise TrainError("sensitivities must be measured on at least one batch, but there was none")
    known = quantizers(model)
    groups = names if isinstance(names, Mapping) else {name: (name,) for name in names}
    with _transparent(known) as windows:
        real = [_outputs(model(x)) for x in inputs]
        _require_metrics(metrics, real[0])
        for window in windows.values():
            window.looking = False
        return {
            name: {
                size: _distance(model, [(known[each], windows[each]) for each in group], size, inputs, real, metrics)
                for size in (sizes[name] if isinstance(sizes, Mapping) else sizes)
            }
            for name, group in groups.items()
        }


class _Window(Observer):
    """An observer that stops looking: the quantizer lets every value through and keeps nothing."""

    looking = True

    def add(self, x: Tensor) -> None:
        if self.looking:
            super().add(x)


@contextmanager
def _transparent(known: Mapping[str, Quantizer]) -> Iterator[dict[str, _Window]]:
    """Let all quantizers pass values on; what the first runs show them stays in their windows."""
    windows = {}
    for name, quantizer in known.items():
        axis = quantizer.axis if quantizer.spec.per_channel else None
        windows[name] = quantizer.observer = _Window(axis, quantizer.constant, quantizer.path or name)
    try:
        yield windows
    finally:
        for quantizer in known.values():
            quantizer.observer = None


def _distance(
    model: nn.Module,
    group: Sequence[tuple[Quantizer, _Window]],
    size: int,
    inputs: Sequence[Tensor],
    real: Sequence[Mapping[str, Tensor]],
    metrics: Mapping[str, Metric] | Metric,
) -> float:
    """The mean distance of the outputs with these quantizers at work."""
    found = []
    with ExitStack() as stack:
        for quantizer, window in group:
            stack.enter_context(_at_work(quantizer, window, size))
        for x, outputs in zip(inputs, real, strict=True):
            for name, output in _outputs(model(x)).items():
                metric = metrics[name] if isinstance(metrics, Mapping) else metrics
                found.append(_number(metric(outputs[name], output), name))
    return sum(found) / len(found)


@contextmanager
def _at_work(quantizer: Quantizer, window: _Window, size: int) -> Iterator[None]:
    """Let a quantizer quantize by what its window has seen, at a width or K, and leave it as it was."""
    kept = quantizer.spec, quantizer.frac.clone(), quantizer.signed, quantizer.calibrated, quantizer.initial.clone()
    bits, quantizer.bits = quantizer.bits, None  # a learned width is tried as a stated one
    k = None if quantizer.k is None else quantizer.k.clone()
    if k is not None and quantizer.k is not None and quantizer.learns_digits:
        quantizer.k.fill_(size)
    else:
        quantizer.spec = replace(quantizer.spec, width=size, learn_width=False)
    quantizer.observer = window
    try:
        quantizer.initialise()
        yield
    finally:
        quantizer.spec, frac, quantizer.signed, quantizer.calibrated, initial = kept
        quantizer.frac.copy_(frac)
        quantizer.initial.copy_(initial)
        if k is not None and quantizer.k is not None:
            quantizer.k.copy_(k)
        quantizer.bits, quantizer.observer = bits, window


def _require_metrics(metrics: Mapping[str, Metric] | Metric, outputs: Mapping[str, Tensor]) -> None:
    """Refuse a mapping that does not have one metric for each output."""
    if isinstance(metrics, Mapping) and metrics.keys() != outputs.keys():
        raise TrainError(
            f"metrics must have the keys of all outputs, {', '.join(map(repr, outputs))}, not "
            f"{', '.join(map(repr, metrics))}: a single output is '', those of a tuple are '0', '1', ..."
        )


def _number(value: float | Tensor, name: str) -> float:
    """What a metric returned for an output."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not isinstance(number, int | float) or not math.isfinite(number):
        raise TrainError(f"the metric of output {name!r} must return one finite number, not {shown(number)}")
    return number


def _outputs(result: object) -> dict[str, Tensor]:
    """A network's outputs by name."""
    if isinstance(result, Tensor):
        return {"": result}
    if isinstance(result, Mapping):
        return {str(name): output for name, output in result.items()}
    assert isinstance(result, Sequence)  # convert takes no other
    return {str(number): output for number, output in enumerate(result)}
