"""Rows of the accuracy table of designs/resnet20: each trains in fixed point from the public float checkpoint.

    python bench/train_resnet20.py B [--seed 0] [--epochs 5] [--eager]
    python bench/train_resnet20.py B --held-out --lr 3e-3 --ema 0.99

Needs QFX_CIFAR10 and QFX_CHECKPOINTS (designs/resnet20/README.md). A row that was stopped carries on when it is asked
for again. Results are gathered in bench/results/resnet20_rows.json; the test images are run once a row. With --held-out
5,000 training images stand for the test images, to choose settings by: gathered in resnet20_choices.json. The row
"float" trains the float network on in the same way: what a row loses beside it, its formats lose.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import keep
from resnet20_rows import recipes

from qfx import steps
from qfx.design import Design
from qfx.sections import AllocateSection, TeacherSection
from qfx.train import accuracy, fit, runs
from qfx.train.float_checkpoint import load_float

ROWS, CHOICES = "resnet20_rows", "resnet20_choices"
SAME = ("row", "binary points", "teacher", "epochs", "lr", "batch", "ema", "freeze bn", "seed")
FLOAT = "float"
MIXED = "mixed"  # widths by training.allocate, at the bits of 4 bits in every layer
FOUR_BITS = AllocateSection(weight_bits=1_073_344, bit_operations=648_816_640)
RUNS = Path("build") / "resnet20"  # below the current folder


def train(asked: argparse.Namespace) -> Mapping[str, Any]:
    """Train one row and return its figures."""
    made = _design(asked)
    if asked.row == FLOAT:
        return _train_float(made)
    training = made.content.training
    figures = steps.train(made, out=_folder(asked, training), progress=_say(time.monotonic())).figures
    run = figures["widths"][str(training.widths[0])]
    moved = [a != b for move in run["moves"].values() for a, b in zip(move["before"], move["now"], strict=True)]
    return {
        **_asked(made, asked.row, "ResNet-56" if asked.teacher else ""),
        "float, %": round(figures["float"]["accuracy"], 2),
        "quantized after training, %": round(run["quantized"], 2),
        "trained, %": round(run["accuracy"], 2),
        "points moved": f"{sum(moved)} of {len(moved)}",
    }


def _train_float(made: Design) -> Mapping[str, Any]:
    """Train the float network on, with all settings of a row."""
    data, model = runs.load_data(made), load_float(runs.float_model(made), made.float_checkpoint).eval()
    before = accuracy(model, data.test_x, data.test_y)
    fit(model, data, runs.settings(made, made.content.training.fixed), _say(time.monotonic()), runs.augmentation(made))
    reached = accuracy(model, data.test_x, data.test_y)
    found = {"freeze bn": 0.0, "float, %": round(before, 2), "trained, %": round(reached, 2)}
    return {**_asked(made, FLOAT, ""), **found}


def _asked(made: Design, row: str, teacher: str) -> dict[str, Any]:
    """What makes a row: the values of SAME."""
    training = made.content.training
    fixed, others = training.fixed, (training.ema, training.freeze.bn, training.seed)
    numbers = (fixed.epochs, fixed.lr, training.batch, *others)
    formats = "" if row == FLOAT else training.formats
    return dict(zip(SAME, (row, formats, teacher, *numbers), strict=True))


def _design(asked: argparse.Namespace) -> Design:
    """The design resnet20 with the recipe and the settings of the row that is asked for."""
    design = Design.load("resnet20")
    training, row = design.content.training, asked.row
    fixed = {"epochs": asked.epochs, **({"lr": asked.lr} if asked.lr else {})}
    changes: dict[str, Any] = {
        "seed": asked.seed,
        "fixed": training.fixed.model_copy(update=fixed),
        "formats": "frozen" if asked.frozen else "learned",
        "compile": not asked.eager,
        "widths": (int(row[1]),) if row.startswith("W") else (8,) if "hot" in row else training.widths,
        **{key: value for key in ("batch", "ema") if (value := getattr(asked, key)) is not None},
    }
    if asked.freeze_bn is not None:
        changes["freeze"] = training.freeze.model_copy(update={"bn": asked.freeze_bn})
    if row == MIXED:
        changes["allocate"] = FOUR_BITS
    if asked.teacher:
        taught = {"model": "model.py:resnet56", "checkpoint": "$QFX_CHECKPOINTS/resnet56-4bfd9763.th"}
        changes["teacher"] = TeacherSection(**taught)
    update: dict[str, Any] = {
        "recipe": recipes().get(row, design.content.recipe),
        "training": training.model_copy(update=changes),
    }
    if asked.held_out:
        update["data"] = "model.py:held_out"
    return Design(design.folder, design.content.model_copy(update=update), design.argument)


def _folder(asked: argparse.Namespace, training: Any) -> Path:
    taught, held = "-taught" if asked.teacher else "", "-held_out" if asked.held_out else ""
    numbers = (asked.epochs, training.fixed.lr, training.batch, training.ema, training.freeze.bn, asked.seed)
    settings = "-".join(f"{number:g}" for number in numbers)
    return RUNS / f"{asked.row}-{training.formats}{taught}{held}-{settings}".replace(" ", "_")


def _say(start: float) -> Any:
    def tell(done: float, doing: str) -> None:
        print(f"{time.monotonic() - start:7.0f} s {100 * done:5.1f} % {doing}", flush=True)

    return tell


def main() -> None:
    """Train the row that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=[*recipes(), MIXED, FLOAT])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, help="the highest learning rate, if not the design's")
    parser.add_argument("--batch", type=int, help="images a step, if not the design's")
    parser.add_argument("--ema", type=float, help="decay of averaged weights, if not the design's")
    parser.add_argument(
        "--freeze-bn", type=float, help="last part of the steps with fixed statistics, if not the design's"
    )
    parser.add_argument("--held-out", action="store_true", help="judge on 5,000 training images that are left out")
    parser.add_argument("--frozen", action="store_true", help="binary points stay as calibrated")
    parser.add_argument("--teacher", action="store_true", help="distil from ResNet-56")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    asked = parser.parse_args()
    keep(train(asked), CHOICES if asked.held_out else ROWS, SAME)


if __name__ == "__main__":
    main()
