"""Rows of the accuracy table of designs/resnet20: each trains in fixed point from the public float checkpoint.

    python bench/train_resnet20.py B [--seed 0] [--epochs 5] [--eager]

Needs QFX_CIFAR10 and QFX_CHECKPOINTS (designs/resnet20/README.md). A row that was stopped carries on when it is asked
for again. Results are gathered in bench/results/resnet20_rows.json; the test images are run once a row.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import RESULTS
from resnet20_rows import recipes

from qfx import steps
from qfx.design import Design, TeacherSection

TABLE = RESULTS / "resnet20_rows.json"
RUNS = Path("build") / "resnet20"  # below the current folder


def train(row: str, seed: int, epochs: int, formats: str, teacher: bool, eager: bool) -> Mapping[str, Any]:
    """Train one row and return its figures."""
    design = Design.load("resnet20")
    training = design.content.training
    changes: dict[str, Any] = {
        "seed": seed,
        "fixed": training.fixed.model_copy(update={"epochs": epochs}),
        "formats": formats,
        "compile": not eager,
        "widths": (int(row[1]),) if row.startswith("W") else (8,) if "hot" in row else training.widths,
    }
    if teacher:
        taught = {"model": "model.py:resnet56", "checkpoint": "$QFX_CHECKPOINTS/resnet56-4bfd9763.th"}
        changes["teacher"] = TeacherSection(**taught)
    content = design.content.model_copy(
        update={"recipe": recipes()[row], "training": training.model_copy(update=changes)}
    )
    name = f"{row}-{formats}{'-taught' if teacher else ''}-{epochs}-{seed}".replace(" ", "_")
    made = Design(design.folder, content, design.argument)
    figures = steps.train(made, out=RUNS / name, progress=_say(time.monotonic())).figures
    run = figures["widths"][str(changes["widths"][0])]
    moved = [a != b for move in run["moves"].values() for a, b in zip(move["before"], move["now"], strict=True)]
    return {
        "row": row,
        "binary points": formats,
        "teacher": "ResNet-56" if teacher else "",
        "epochs": epochs,
        "seed": seed,
        "float, %": round(figures["float"]["accuracy"], 2),
        "quantized after training, %": round(run["quantized"], 2),
        "trained, %": round(run["accuracy"], 2),
        "points moved": f"{sum(moved)} of {len(moved)}",
    }


def _say(start: float) -> Any:
    def tell(done: float, doing: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s {100 * done:5.1f} % {doing}", flush=True)

    return tell


def keep(found: Mapping[str, Any]) -> None:
    """Put a row into the table, in the place of an earlier one of the same settings."""
    rows = json.loads(TABLE.read_text()) if TABLE.is_file() else []
    same = ("row", "binary points", "teacher", "epochs", "seed")
    rows = [row for row in rows if any(row[key] != found[key] for key in same)] + [dict(found)]
    RESULTS.mkdir(exist_ok=True)
    TABLE.write_text(json.dumps(sorted(rows, key=lambda row: [str(row[key]) for key in same]), indent=1) + "\n")


def main() -> None:
    """Train the row that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=recipes())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--frozen", action="store_true", help="binary points stay as calibrated")
    parser.add_argument("--teacher", action="store_true", help="distil from ResNet-56")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    asked = parser.parse_args()
    formats = "frozen" if asked.frozen else "learned"
    found = train(asked.row, asked.seed, asked.epochs, formats, asked.teacher, asked.eager)
    keep(found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
