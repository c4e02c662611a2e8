"""What calibration remembers of the values that reach a quantizer."""

import torch
from torch import Tensor

from qfx.errors import TrainError
from qfx.nn.ranks import gather

SAMPLES = 1 << 16  # values kept per batch
UNSEEN = 4.0  # the size that is assumed of activations that were all zero: four standard deviations


class Observer:
    """The range of all values seen, and an even subsample of each batch.

    Args:
        axis: the channel axis if the quantizer is per channel, else None.
        constant: the values are constants that training will move: a channel's range is taken 1.25 times as large,
            and at least an eighth of the largest channel's.
        path: of the quantizer, for messages.
        weights: the values are weights or constants, axis 0 their outputs, and not activations.
    """

    def __init__(self, axis: int | None, constant: bool = False, path: str = "", weights: bool = False) -> None:
        self.per_channel, self.constant, self.path, self.weights = axis is not None, constant, path, weights
        self._unseen = UNSEEN
        self._axis = axis
        self.low = 0.0
        self._parts: list[Tensor] = []
        self._peak: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing has been seen."""
        return self._peak is None

    @property
    def peak(self) -> float:
        """The largest size of a value seen."""
        return 0.0 if self._peak is None else self._peak.max().item()

    def add(self, x: Tensor) -> None:
        """Record one tensor."""
        if not torch.isfinite(x).all():
            raise TrainError(
                f"the values that reach quantizer '{self.path}' must be finite, but NaN or infinity is among them: "
                "look at the data, at the weights of this layer and at those before it"
            )
        if self.weights:
            self._unseen = x[0].numel() ** -0.5
        rows = x.float().movedim(self._axis, 0).flatten(1) if self.per_channel and x.dim() > 1 else x.float()
        rows = rows.reshape(len(rows), -1) if self.per_channel else rows.reshape(1, -1)
        peak = rows.abs().amax(1)
        self._peak = peak if self._peak is None else torch.maximum(self._peak, peak)
        self.low = min(self.low, rows.min().item())
        self._parts.append(rows[:, :: max(1, rows.numel() // SAMPLES)].clone())

    def share(self) -> None:
        """Take in what the other ranks have seen."""
        seen = [each for each in gather((self.low, self._peak, self._parts)) if each[1] is not None]
        if seen:
            self.low = min(low for low, _, _ in seen)
            self._peak = torch.stack([peak for _, peak, _ in seen]).amax(0)
            self._parts = [part for _, _, parts in seen for part in parts]

    def samples(self) -> Tensor:
        """The kept values: (channels, n), or (n,) if not per channel."""
        rows = torch.cat(self._parts, 1)
        return rows if self.per_channel else rows[0]

    def frac_for(self, largest: float, part: float = 1.0) -> Tensor:
        """The finest frac with which the code ``largest`` still covers the range seen, per channel or one.

        With a ``part`` below 1 it covers that part of the values seen. A channel that was all zero takes the frac of
        the largest one. Where all were, as in a layer that starts at zero, training is to find room: weights get the
        range that torch starts them with, ``1 / sqrt(n)`` with n of them to an output, and activations ``UNSEEN``.
        """
        assert self._peak is not None
        if part < 1:
            rows = self.samples().abs().reshape(len(self._peak), -1)
            order = min(int(part * rows.shape[1]), rows.shape[1] - 1)
            return self._frac(rows.sort(1).values[:, order], largest)
        return self._frac(self._peak, largest)

    def _frac(self, seen: Tensor, largest: float) -> Tensor:
        peak = torch.maximum(seen * 1.25, seen.max() / 8) if self.constant else seen
        largest_peak = peak.max() if peak.any() else torch.full_like(peak[0], self._unseen)
        peak = torch.where(peak > 0, peak, largest_peak)
        frac = torch.floor(torch.log2(largest / peak.double())).float()
        return frac if self.per_channel else frac[0]
