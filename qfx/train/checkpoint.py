"""Checkpoints: a folder for each, written aside and renamed, so that whatever stops training leaves a whole one.

``<folder>/step_00000120/tensors.safetensors`` has the network, its average, the optimizer and random numbers;
``state.json`` beside it has the rest. Only the newest stays.
"""

import dataclasses
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.files import atomic_folder
from qfx.train.budget import Budget
from qfx.train.data import Data
from qfx.train.detection import Detection
from qfx.train.distill import fingerprint
from qfx.train.float_checkpoint import differences
from qfx.train.settings import Settings
from qfx.train.state import State

TENSORS = "tensors.safetensors"
JSON = "state.json"
_VERSION = 2
_NAME = "step_"


class Checkpoints:
    """The checkpoints of one training in a folder.

    Args:
        settings, data, teacher, budget: a checkpoint of another training is refused, by these.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        data: Data | Detection,
        teacher: nn.Module | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.folder = folder
        self.identity = {
            "version": _VERSION,
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
            "teacher": fingerprint(teacher),
            "budget": budget.asked if budget else None,
            "data": [list(data.train_x.shape), zlib.crc32(data.train_y.cpu().numpy().tobytes())],
        }

    def save(self, state: State, owns: list[dict[str, Any]]) -> None:
        """Write a checkpoint and remove the older ones; ``owns`` has what each rank has of its own."""
        place = self.folder / f"{_NAME}{state.step:08}"
        if place.exists():
            return
        facts = {**self.identity, **state.facts(), "ranks": len(owns)}
        facts["owns"] = [{name: value for name, value in own.items() if name != "random"} for own in owns]
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.tensors().items()}
        for rank, own in enumerate(owns):
            tensors |= {f"random.{rank}.{name}": tensor for name, tensor in own["random"].items()}
        with atomic_folder(place) as aside:
            with (aside / TENSORS).open("wb") as file:
                file.write(save(tensors))
            (aside / JSON).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for other in self.folder.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def restore(self, state: State, rank: int, ranks: int) -> bool:
        """Take up the newest checkpoint; return whether there is one.

        Raises:
            TrainError: it is damaged, or of another training.
        """
        found = sorted(self.folder.glob(f"{_NAME}*"))
        if not found:
            return False
        place = found[-1]
        try:
            facts = json.loads((place / JSON).read_text("utf-8"))
            tensors = load((place / TENSORS).read_bytes())
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainError(f"{place} must be a whole checkpoint, but: {error}: remove it to start again") from error
        self._require_same(place, facts, ranks)
        _require_network(place, tensors, state.model)
        state.restore(tensors, facts)
        mine = f"random.{rank}."
        drawn = {name.removeprefix(mine): tensor for name, tensor in tensors.items() if name.startswith(mine)}
        state.restore_own({**facts["owns"][rank], "random": drawn})
        return True

    def _require_same(self, place: Path, facts: dict[str, Any], ranks: int) -> None:
        now = {**_flat(self.identity), "ranks": ranks}
        then = _flat({key: facts.get(key) for key in (*self.identity, "ranks")})
        for key, value in now.items():
            if then.get(key) != value:
                remedy = f"train on with --ranks {then.get(key)}" if key == "ranks" else "train in another folder"
                raise TrainError(
                    f"{place} must be a checkpoint of this training, but its {key} is {then.get(key)}, not {value}: "
                    f"{remedy}, or remove it to start again"
                )


def _require_network(place: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse a checkpoint of another network; `State.tensors` says how names begin."""
    begin = "model."
    found = {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}
    if fault := differences(found, model.state_dict()):
        raise TrainError(
            f"{place} must be a checkpoint of this network, but {fault}: train in another folder, or remove it"
        )


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    settings = facts.get("settings") or {}
    return {**{key: value for key, value in facts.items() if key != "settings"}, **settings}
