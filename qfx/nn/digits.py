"""The non-zero digits of a model's K-hot constants: counted, as a cost of training, and held within a budget."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from qfx.arguments import require_kind
from qfx.errors import TrainError
from qfx.fixed.khot import digit_counts, nested_magnitudes
from qfx.nn.affine import Affine, BatchNorm2d
from qfx.nn.calibrate import name_quantizers, quantizers
from qfx.nn.channel_digits import neighbours
from qfx.nn.control import Move
from qfx.nn.functional import channel_shape, sum_to
from qfx.nn.inputs import require_converted
from qfx.nn.prelu import PReLU
from qfx.nn.quantizer import Quantizer


def nonzero_digits(model: nn.Module) -> Tensor:
    """Return the non-zero digits of all K-hot constants of a model, differentiable with respect to learned K.

    Counted are those of the canonical form of each weight, BatchNorm scale and shift, and slope, as the graph's rule G7
    does: a product by a constant of n digits is n - 1 additions. The gradient of a K is what one more digit a word
    would add to the count. Add it to the loss, times the loss that a digit is worth, and a K that is not needed falls.
    """
    require_converted(model)
    found = [_counted(quantizer, values) for quantizer, values in khot_constants(model).values()]
    return torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)


def digits_by_constant(model: nn.Module) -> dict[str, int]:
    """Return the non-zero digits of each K-hot constant by the path of its quantizer."""
    require_converted(model)
    return {path: int(_counted(quantizer, values)) for path, (quantizer, values) in khot_constants(model).items()}


def digit_moves(model: nn.Module) -> dict[str, Move]:
    """Return the learned K of each quantizer, by channel: where training started, and now."""
    return {
        name: Move(quantizer.spec.digits.each(len(quantizer.k)), tuple(int(k) for k in quantizer.k_now.tolist()))
        for name, quantizer in quantizers(model).items()
        if quantizer.learns_digits and quantizer.k is not None and quantizer.spec.digits is not None
    }


@torch.no_grad()
def limit_digits(model: nn.Module, budget: int) -> int:
    """Lower learned K until the model has at most ``budget`` non-zero digits, and return how many it has then.

    Steps down are taken in the order of the error that each adds for each digit that it saves, along the lower convex
    hull of every channel's error over its digits (Shoham and Gersho, 1988): no other choice of K with as few digits has
    a smaller sum of errors. A channel is pruned (K 0) only where K 1 everywhere is still too much. The error of a
    channel is the squared error of its words as a part of the channel's squared values, for a constant of one value a
    channel as a part of the mean square of all. Words of fewer digits end lower: a channel takes one fraction bit less
    with its new K where that is nearer, and its binary point is its own and learned.

    Raises:
        TrainError: the budget is below the digits of the constants whose K is not learned.
    """
    require_kind(TrainError, "budget", budget, int, "a number of digits")
    require_converted(model)
    name_quantizers(model)
    while (total := int(nonzero_digits(model))) > budget:
        _lower(model, total, budget)
    return total


def _lower(model: nn.Module, total: int, budget: int) -> None:
    """Lower K until this saves enough digits of ``total``; shifts, which follow their scale, may come to other ones."""
    learned = [found for found in khot_constants(model).values() if found[0].learns_digits]
    _require_possible(total, budget, learned)
    prunes = all(int(quantizer.k_now.max()) <= 1 for quantizer, _ in learned)
    steps = [step for place, found in enumerate(learned) for step in _steps(place, *found, least=0 if prunes else 1)]
    starts = [quantizer.frac.clone() for quantizer, _ in learned]
    for _, place, channel, k, saved, coarser in sorted(steps, key=lambda step: step[0]):
        if total <= budget:
            break
        quantizer = learned[place][0]
        assert quantizer.k is not None
        quantizer.k[channel] = k
        if quantizer.spec.per_channel:
            quantizer.frac[channel] = starts[place][channel] - coarser
        total -= saved


@torch.no_grad()
def hold_digits(quantizer: Quantizer, values: Tensor, most: int) -> None:
    """Hold learned K of all channels at ``most`` or less, with the binary points of `limit_digits`."""
    assert quantizer.k is not None  # of one that learns it
    above = quantizer.k_now > most
    if quantizer.spec.per_channel:
        quantizer.frac.sub_(torch.from_numpy(_by_k(quantizer, values)[2][most]).to(quantizer.frac) * above)
    quantizer.k.copy_(torch.where(above, float(most), quantizer.k))


def khot_constants(model: nn.Module) -> dict[str, tuple[Quantizer, Tensor]]:
    """Return the quantizer and the real values of each K-hot constant, each once, by the quantizer's path."""
    paths = {quantizer: path for path, quantizer in quantizers(model).items()}
    found = ((quantizer, values) for module in model.modules() for quantizer, values in _constants(module))
    return {paths[quantizer]: (quantizer, values) for quantizer, values in found if quantizer.spec.digits}


def _constants(layer: nn.Module) -> Iterator[tuple[Quantizer, Tensor]]:
    if isinstance(layer, BatchNorm2d):
        if not layer.folded:
            yield from zip((layer.scale_quant, layer.shift_quant), layer.real_constants(), strict=True)
    elif isinstance(layer, Affine):
        yield from ((layer.scale_quant, layer.scale), (layer.shift_quant, layer.shift))
    elif isinstance(layer, PReLU):
        yield layer.slope_quant, layer.weight
    elif hasattr(layer, "weight_quant"):
        yield layer.weight_quant, layer.effective()[0]  # type: ignore[operator,misc]


def _counted(quantizer: Quantizer, values: Tensor) -> Tensor:
    """The digits of one constant, with the gradient of its K."""
    digits = quantizer.spec.digits
    assert digits is not None
    values = values.detach()
    words = quantizer(values.to(torch.float64)).detach()
    shape = channel_shape(words, quantizer.frac, quantizer.axis)
    codes = torch.ldexp(words, quantizer.frac_now.reshape(shape)).abs().long()
    counts = torch.tensor(digit_counts(quantizer.spec.width, digits.signed), device=codes.device)
    total = counts[codes].sum().double()
    if quantizer.k is None or not quantizer.k.requires_grad:
        return total
    place = quantizer.words.place(_sizes(quantizer, values))
    table = torch.tensor(nested_magnitudes(quantizer.spec.width, digits.signed)[2], device=codes.device)
    own = channel_shape(words, quantizer.k, quantizer.axis)
    lower, upper = (table[k.long().reshape(own), place] for k in neighbours(quantizer.k, quantizer.words.most))
    slope = sum_to((upper - lower).double(), quantizer.k.shape, quantizer.axis)
    return total + ((quantizer.k - quantizer.k.detach()) * slope).sum()


def _sizes(quantizer: Quantizer, values: Tensor) -> Tensor:
    """The values' sizes on the scale of codes, in float64."""
    shape = channel_shape(values, quantizer.frac, quantizer.axis)
    return torch.ldexp(values.to(torch.float64), quantizer.frac_now.reshape(shape)).abs()


def _require_possible(total: int, budget: int, learned: list[tuple[Quantizer, Tensor]]) -> None:
    fixed = total - sum(int(_counted(*found)) for found in learned)
    if not learned or fixed > budget:
        raise TrainError(
            f"a digit budget must leave room for the {fixed:,} non-zero digits of constants whose K is not learned, "
            f"not be {budget:,}: give more of them digits with 'learn: true' in the recipe, or a larger budget"
        )


def _steps(
    place: int, quantizer: Quantizer, values: Tensor, least: int
) -> Iterator[tuple[float, int, int, int, int, int]]:
    """The steps of each channel of one constant down to ``least``.

    Each is the error added for each digit saved, ``place``, the channel, its K then, the digits saved, and the fraction
    bits that it then has less than now.
    """
    errors, digits, coarser = _by_k(quantizer, values)
    for channel, now in enumerate(quantizer.k_now.int().tolist()):
        while now > least:
            saved = digits[now, channel] - digits[least:now, channel]
            added = errors[least:now, channel] - errors[now, channel]
            slopes = np.where(saved > 0, added / np.maximum(saved, 1), 0.0)  # a K that saves nothing costs nothing
            step = int(slopes.argmin())
            now = least + step
            yield float(slopes[step]), place, channel, now, int(saved[step]), int(coarser[now, channel])


def _by_k(quantizer: Quantizer, values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error, digits and fraction bits less of each channel for every K: (K, channels); for the K in use, as it is."""
    errors, digits = _measured(quantizer, values, 0)
    if not quantizer.learned or not quantizer.spec.per_channel:
        return errors, digits, np.zeros_like(digits)
    errors_then, digits_then = _measured(quantizer, values, 1)
    others = np.arange(len(errors))[:, None] < quantizer.k_now.cpu().numpy()
    coarser = others & (errors_then < errors)
    return np.where(coarser, errors_then, errors), np.where(coarser, digits_then, digits), coarser.astype(np.int64)


def _measured(quantizer: Quantizer, values: Tensor, coarser: int) -> tuple[np.ndarray, np.ndarray]:
    """Error and digits of each channel for every K, with so many fraction bits less: (K, channels)."""
    assert quantizer.k is not None and quantizer.spec.digits is not None
    rows = _sizes(quantizer, values).movedim(quantizer.axis, 0).reshape(len(quantizer.k), -1).cpu().numpy()
    rows = np.ldexp(rows, -coarser)
    edges, levels, counts = nested_magnitudes(quantizer.spec.width, quantizer.spec.digits.signed)
    column = np.searchsorted(edges, rows)
    squares = rows**2
    whole = squares.sum(1) if rows.shape[1] > 1 else _mean_square(quantizer, values, coarser)
    errors = np.stack([((level[column] - rows) ** 2).sum(1) for level in levels])
    return errors / np.maximum(whole, np.finfo(np.float64).tiny), np.stack([count[column].sum(1) for count in counts])


def _mean_square(quantizer: Quantizer, values: Tensor, coarser: int) -> np.ndarray:
    """The mean square of all values on the scale of each channel's codes."""
    mean = (values.detach().double() ** 2).mean().item()
    fracs = np.broadcast_to(quantizer.frac_now.cpu().numpy().astype(np.int64), (len(values),))
    return np.ldexp(mean, 2 * (fracs - coarser))
