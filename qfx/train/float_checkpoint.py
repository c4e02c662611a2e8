"""A float network from a checkpoint that others trained, instead of training it here."""

import pickle
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import Normalize

_SHOWN = 3  # keys that an error names


def load_float(model: nn.Module, path: Path) -> nn.Module:
    """Load a float checkpoint; every key must be there, and no other; the constants of Normalize may be missing.

    Args:
        path: a safetensors file, or what ``torch.save`` wrote: a state_dict, or a mapping that holds one at
            ``state_dict``; keys may carry DataParallel's prefix ``module.``.

    Raises:
        TrainError: it is no such file, or of another network; the first wrong keys are named.
    """
    state, wanted = _tensors(path), model.state_dict()
    norms = {name: part for name, part in model.named_modules() if isinstance(part, Normalize)}
    constants = {f"{name}.{key}" for name, norm in norms.items() for key in norm.state_dict()}
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # BatchNorm's, which old torch had not
    if fault := differences(state, wanted, constants | counters):
        raise TrainError(f"{path} must hold the weights of {type(model).__name__}, but {fault}")
    if wrong := sorted(key for key, values in state.items() if not torch.isfinite(values).all()):
        raise TrainError(f"{path} must hold finite weights, but holds NaN or infinity at {_some(wrong)}")
    model.load_state_dict(state, strict=False)
    return model


def differences(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], spare: Set[str] = frozenset()) -> str:
    """Return in words how the keys and shapes of ``state`` differ from those wanted; it may lack ``spare`` ones."""
    faults = {
        "misses": sorted(wanted.keys() - state.keys() - spare),
        "also holds": sorted(state.keys() - wanted.keys()),
        "has other shapes at": sorted(k for k in state.keys() & wanted.keys() if state[k].shape != wanted[k].shape),
    }
    return "; ".join(f"{fault} {_some(keys)}" for fault, keys in faults.items() if keys)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise TrainError(f"{path} must be a checkpoint of tensors alone, but {_fault(path, error)}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise TrainError(f"{path} must hold a state_dict, tensors by name, not {type(content).__name__}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with a file that could not be read, and what to do; torch's own words advise to run its code."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if zipfile.is_zipfile(path) and isinstance(error, pickle.UnpicklingError):
        return "holds other objects too: write it with torch.save(model.state_dict(), path)"
    return (
        "is damaged or another kind of file: write it with torch.save(model.state_dict(), path), or as .safetensors "
        "with safetensors.torch.save_file"
    )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
