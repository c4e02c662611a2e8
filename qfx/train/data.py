"""Labelled data of a design, checked before anything is trained on it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from qfx.errors import TrainError
from qfx.train.pictures import Inputs


@dataclass(frozen=True)
class Data:
    """Inputs as torch layers take them, real values, and labels 0.. as integers (N,).

    Inputs are tensors (N, C, H, W), (N, C, L) or (N, features), or images that stay on disk (qfx.train.image_folder).
    The test set is used for the figures of a report and for golden vectors, and for nothing else.
    """

    train_x: Inputs
    train_y: Tensor
    test_x: Inputs
    test_y: Tensor

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            if not isinstance(x, Inputs) or not isinstance(y, Tensor):
                raise TrainError(f"{part} data must be torch tensors, not {type(x).__name__} and {type(y).__name__}")
            if len(x) == 0 or y.shape != (len(x),) or y.is_floating_point():
                raise TrainError(
                    f"{part} data must be N > 0 inputs and N integer labels, not {tuple(x.shape)} and {tuple(y.shape)} "
                    f"{str(y.dtype).removeprefix('torch.')}"
                )
            if isinstance(x, Tensor) and not torch.isfinite(x).all():
                raise TrainError(f"{part} data must be finite, but holds NaN or infinity")
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise TrainError(
                f"test data must have the shape of train data, {tuple(self.train_x.shape[1:])} each, not "
                f"{tuple(self.test_x.shape[1:])}"
            )

    def held_out(self, count: int) -> "Data":
        """Return the training inputs alone, the last ``count`` of them for testing: to choose settings by."""
        x, y = self.train_x, self.train_y
        if not 0 < count < len(x):
            raise TrainError(f"count of inputs to hold out must lie in 1..{len(x) - 1:,}, not {count:,}")
        if not isinstance(x, Tensor):
            return Data(x.part(slice(0, -count)), y[:-count], x.part(slice(-count, None)), y[-count:])
        return Data(x[:-count], y[:-count], x[-count:], y[-count:])

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise TrainError if an input does not have the channels-last ``shape`` of the design."""
        asked = (shape[-1], *shape[:-1])
        for part, x in (("train", self.train_x), ("test", self.test_x)):
            if tuple(x.shape[1:]) != asked:
                raise TrainError(
                    f"{part} data must have shape (N, {', '.join(map(str, asked))}), channels first, "
                    f"as input.shape {list(shape)} says, not {tuple(x.shape)}"
                )


def ends(labels: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest label."""
    return int(labels.min()), int(labels.max())


def require_classes(found: tuple[int, int], classes: int, labels: str = "train labels", model: str = "model") -> None:
    """Raise TrainError unless the `ends` of labels are among the classes that a model gives scores of."""
    low, high = found
    if low < 0 or high >= classes:
        raise TrainError(
            f"{labels} must lie in 0..{classes - 1}, since {model} gives {classes} scores, not in {low}..{high}"
        )
