"""The log of a training run: a row for each epoch as CSV, as JSON lines, and for TensorBoard where that is installed.

No times stand in it: the same training writes the same log.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfx.files import write_text
from qfx.train import events

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
        self._write()
        self._events = folder / TENSORBOARD / events.FILE if events.installed() else None
        if self._events:
            self._events.parent.mkdir(parents=True, exist_ok=True)
            self._events.write_bytes(events.records(map(_scalars, self.rows), first=True))

    def add(self, row: Row) -> None:
        """Append the row of an epoch."""
        self.rows.append(row)
        self._write()
        if self._events:
            with self._events.open("ab") as file:
                file.write(events.records([_scalars(row)], first=False))

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


def _scalars(row: Row) -> tuple[int, Mapping[str, float]]:
    """A row as TensorBoard has it."""
    return row["epoch"], _flat(row)


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
