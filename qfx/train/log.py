"""The log of a training run: a row for each epoch as CSV, as JSON lines, and for TensorBoard where that is installed.

No times stand in it: the same training writes the same log.
"""

import csv
import importlib.util
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfx.files import write_text

CSV = "log.csv"
JSONL = "log.jsonl"
LOGS = (CSV, JSONL)
TENSORBOARD = "tensorboard"

Row = Mapping[str, Any]  # epoch, figures, and "moves": quantizer -> binary points that differ from the initial ones


class Log:
    """The rows of one run in a folder; rows of epochs after ``epochs``, which a resumed run repeats, are dropped."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder
        self.rows = [row for row in _read(folder / JSONL) if row["epoch"] <= epochs]
        self._board = _board(folder / TENSORBOARD, epochs + 1)
        self._write()

    def add(self, row: Row) -> None:
        """Append the row of an epoch."""
        self.rows.append(row)
        self._write()
        if self._board:
            for name, value in _flat(row).items():
                self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board:
            self._board.close()

    def _write(self) -> None:
        write_text(self.folder / JSONL, "".join(json.dumps(row) + "\n" for row in self.rows))
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(_flat(self.rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(_flat(row) for row in self.rows)
            write_text(self.folder / CSV, text.getvalue())


def _flat(row: Row) -> dict[str, Any]:
    """A row as one table has it: the moves of each quantizer in a column of its own."""
    figures = {name: value for name, value in row.items() if name != "moves"}
    return {**figures, **{f"moves/{name}": moved for name, moved in row["moves"].items()}}


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def _board(folder: Path, first: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first)
