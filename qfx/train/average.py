"""The exponential moving average of a network: what is evaluated and lowered where ``ema`` is set."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from qfx.nn import quantizers


class Average:
    """``average += (1 - d) * (now - average)``, ``d = min(decay, (1 + step) / (10 + step))``, of float tensors.

    Weights, binary points and BatchNorm's statistics are averaged (Polyak and Juditsky, 1992); whole numbers follow.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.clone() for name, tensor in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the network as it is after ``step`` steps."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, now in _tensors(model).items():
            average = self.tensors[name]
            if average.is_floating_point():
                average.lerp_(now, rate)
            else:
                average.copy_(now)

    @torch.no_grad()
    def give(self, model: nn.Module, names: Collection[str] | None = None) -> None:
        """Write the average, or the part of it with these ``names``, into the network."""
        for name, now in _tensors(model).items():
            if names is None or name in names:
                now.copy_(self.tensors[name])

    @torch.no_grad()
    def take(self, model: nn.Module, names: Collection[str]) -> None:
        """Forget what was averaged under these ``names`` and take the network's."""
        for name, now in _tensors(model).items():
            if name in names:
                self.tensors[name].copy_(now)


def format_names(model: nn.Module) -> set[str]:
    """The names of the binary points and widths of a network."""
    return {f"{path}.{name}" for path, found in quantizers(model).items() for name, _ in found.named_parameters()}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
