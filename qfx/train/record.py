"""What a run of training leaves in its folder: checkpoints and logs. Without a folder, nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qfx.arguments import as_path
from qfx.errors import TrainError
from qfx.files import make_folder
from qfx.nn.ranks import gather, rank, ranks
from qfx.train.budget import Budget
from qfx.train.checkpoint import Checkpoints
from qfx.train.data import Data
from qfx.train.detection import Detection
from qfx.train.log import Log
from qfx.train.settings import Settings
from qfx.train.state import State


class Record:
    """The folder of one run; the first rank writes, all read."""

    def __init__(
        self,
        folder: Path | str | None,
        settings: Settings,
        data: Data | Detection,
        teacher: nn.Module | None,
        budget: Budget | None,
    ) -> None:
        self._folder = None if folder is None else as_path(TrainError, "folder", folder)
        self._checkpoints: Checkpoints | None = None
        if self._folder:
            make_folder(self._folder, TrainError)
            self._checkpoints = Checkpoints(self._folder / "checkpoints", settings, data, teacher, budget)
        self._log: Log | None = None

    def resume(self, state: State, per_epoch: int) -> None:
        """Take up the newest checkpoint, if there is one, and open the log."""
        if self._checkpoints:
            self._checkpoints.restore(state, rank(), ranks())
        if self._folder and rank() == 0:
            self._log = Log(self._folder, state.step // per_epoch)

    def save(self, state: State) -> None:
        """Write a checkpoint."""
        if self._checkpoints:
            owns = gather(state.own())
            if rank() == 0:
                self._checkpoints.save(state, owns)

    def log(self, row: Mapping[str, Any]) -> None:
        """Write the row of an epoch."""
        if self._log:
            self._log.add(row)
