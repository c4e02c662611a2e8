"""What functions on whole models are given: checks of the model and of its inputs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qfx.arguments import require_kind
from qfx.errors import QfxError, TrainError
from qfx.nn.quantizer import Quantizer


def require_model(model: Any, error: type[QfxError] = TrainError) -> None:
    """Raise ``error`` unless ``model`` is a torch module."""
    require_kind(error, "model", model, nn.Module, "a torch module")


def require_converted(model: Any) -> None:
    """Raise TrainError unless ``model`` has fixed-point layers."""
    require_model(model)
    if not any(isinstance(module, Quantizer) for module in model.modules()):
        raise TrainError(
            f"the model must have fixed-point layers, but {type(model).__name__} has none: convert it first, "
            "model = qfx.convert(model, recipe, example)"
        )


def require_finite(model: nn.Module, error: type[QfxError] = TrainError) -> None:
    """Raise ``error`` where a parameter or a buffer of ``model`` holds NaN or infinity."""
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if not values.isfinite().all():
            path, _, role = name.rpartition(".")
            raise error(
                f"{role} of '{path or type(model).__name__}' must be finite, but holds NaN or infinity: training has "
                "diverged; load an earlier checkpoint, and train on with a lower learning rate"
            )


def require_input(name: str, x: Any, error: type[QfxError] = TrainError) -> None:
    """Raise ``error`` unless ``x`` is a tensor with at least one element."""
    require_kind(error, name, x, Tensor, "a tensor (torch.from_numpy(x) of an array x)")
    if not x.numel():
        raise error(f"{name} must have at least one element, not shape {tuple(x.shape)}")


def home(model: nn.Module) -> torch.device:
    """Return the device where a network's parameters and buffers are.

    Raises:
        TrainError: they are on several.
    """
    places: dict[torch.device, str] = {}
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        places.setdefault(values.device, name)
    if len(places) > 1:
        (one, first), (other, second) = list(places.items())[:2]
        raise TrainError(
            f"the network must be on one device, but '{first}' is on {one} and '{second}' on {other}: call "
            f"model.to('{other}')"
        )
    return next(iter(places), torch.device("cpu"))


@contextmanager
def taken(x: Tensor, error: type[QfxError] = TrainError, name: str = "the network") -> Iterator[None]:
    """Raise ``error`` where torch finds in the block that the network, or what is called so, cannot take ``x``."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as reason:
        shape = "x".join(map(str, x.shape[1:]))
        raise error(f"{name} must take an input of shape {shape}, but torch says: {reason}") from reason
