"""load: the weights of a checkpoint into a network, float or converted, with a report of every key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qfx.arguments import require_kind
from qfx.errors import TrainError
from qfx.nn.calibrate import name_quantizers, quantizers
from qfx.nn.inputs import require_model

_SHOWN = 3
_SHOWN_WRONG = 12
_OF_FORMATS = ("frac", "initial", "_extra_state")  # what each quantizer saves


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each key of a model and of a checkpoint."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # the model has it, the checkpoint has not
    unexpected: tuple[str, ...]  # the other way round
    wrong_shape: tuple[str, ...]  # both have it, with the two shapes behind it

    def __str__(self) -> str:
        return self.text(_SHOWN)

    def text(self, shown: int) -> str:
        """Return a line for each kind of keys, with the first ``shown`` of those that are not loaded."""
        kinds = ("loaded", "missing", "unexpected", "wrong shape")
        keys = (self.loaded, self.missing, self.unexpected, self.wrong_shape)
        most = (_SHOWN, shown, shown, shown)
        return "\n".join(
            f"  {kind} ({len(found)}): {', '.join(found[:count])}{', ...' if len(found) > count else ''}"
            for kind, found, count in zip(kinds, keys, most, strict=True)
            if found
        )


def load(model: nn.Module, state: Mapping[str, Any]) -> LoadReport:
    """Load a checkpoint's tensors: all of them, or nothing.

    Model and checkpoint may each be the float network or the converted one. Where only one of them is converted, the
    formats of its quantizers are what is ``missing`` (they stay as they are) or ``unexpected`` (they are left out);
    every other key must be on both sides, with one shape.

    Args:
        state: a ``state_dict``: tensors by name.

    Raises:
        TrainError: the checkpoint is of another network, or of another recipe.
    """
    require_model(model)
    require_kind(
        TrainError, "state", state, Mapping, "a state_dict (torch.load(path, weights_only=True), model.state_dict())"
    )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TrainError(
                f"the checkpoint must hold tensors by name, not {type(value).__name__} at {name!r}: "
                "pass the part of it that is the model's state_dict"
            )
        if not value.isfinite().all():
            raise TrainError(f"the checkpoint must hold finite numbers, but NaN or infinity is among those at {name!r}")
    own = model.state_dict()
    report = _compared(own, state)
    missing, unexpected = _refused(report.missing, own, state), _refused(report.unexpected, state, own)
    if wrong := len(missing) + len(unexpected) + len(report.wrong_shape):
        of_weights = LoadReport(report.loaded, missing, unexpected, report.wrong_shape)  # formats may be missing
        raise TrainError(
            f"the checkpoint must be of the network {type(model).__name__}, but of {len(report.loaded) + wrong} keys "
            f"only {len(report.loaded)} fit, so that nothing was loaded:\n{of_weights.text(_SHOWN_WRONG)}"
            f"{_advice(own, state)}"
        )
    name_quantizers(model)
    for name, quantizer in quantizers(model).items():
        if f"{name}._extra_state" in state:
            quantizer.require_width(int(state[f"{name}._extra_state"][0]))
    model.load_state_dict({name: state[name] for name in report.loaded}, strict=False)
    return report


def _compared(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> LoadReport:
    both = [name for name in own if name in state]
    differ = {name for name in both if own[name].shape != state[name].shape}
    return LoadReport(
        tuple(name for name in both if name not in differ),
        tuple(name for name in own if name not in state),
        tuple(name for name in state if name not in own),
        tuple(
            f"{name} {_shape(state[name])} in the checkpoint and {_shape(own[name])} in the model"
            for name in both
            if name in differ
        ),
    )


def _refused(keys: Iterable[str], holder: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Those of ``keys`` that ``holder`` has and ``other`` must have too: all but formats, where it has no formats."""
    formats = set() if _quantizers_in(other) else _quantizers_in(holder)
    return tuple(key for key in keys if key.rpartition(".")[0] not in formats and not _is_learned_table(key, formats))


def _is_learned_table(key: str, formats: set[str]) -> bool:
    """Whether a key holds the learned entries of a table, which no float network has."""
    layer, _, name = key.rpartition(".")
    return name == "offset" and {f"{layer}.output_quant", f"{layer}.input_quant"} & formats != set()


def _quantizers_in(state: Mapping[str, Tensor]) -> set[str]:
    """The paths of the quantizers whose formats a state_dict holds."""
    paths = {name.removesuffix("._extra_state") for name in state if name.endswith("._extra_state")}
    return {path for path in paths if all(f"{path}.{part}" in state for part in _OF_FORMATS)}


def _advice(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    if state and all(name.startswith("module.") for name in state):
        return "\nits keys begin with 'module.', as DistributedDataParallel saves them: leave that out"
    if _quantizers_in(own) and _quantizers_in(state):
        return "\nconvert with the recipe that the checkpoint was trained with, or load only its float weights"
    return ""


def _shape(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
