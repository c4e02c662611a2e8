"""How designs/digits is trained in fixed point, chosen on training images that no run of this script trains on.

The 360 test images play no part here: a fourth of the training images takes the place of the test set, each fourth in
turn, with two seeds, so that every candidate is judged on all 1,437 training images twice. Not part of `make bench`: it
answers a question once.
"""

import statistics
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from harness import publish

from qfx.design import Design
from qfx.train import Data, runs

FOLDS, SEEDS = 4, (0, 1)
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "lr 1e-3": {"lr": 1e-3},
    "lr 2e-3": {"lr": 2e-3},
    "lr 4e-3": {"lr": 4e-3},
    "lr 8e-3": {"lr": 8e-3},
    "lr 4e-3, 20 epochs": {"lr": 4e-3, "epochs": 20},
    "lr 4e-3, frozen binary points": {"lr": 4e-3, "formats": "frozen"},
}


def main() -> None:
    """Train every candidate on every part with every seed and print the means."""
    reached = [_judge(fold, seed) for fold, seed in product(range(FOLDS), SEEDS)]
    means = {name: statistics.mean(each[name] for each in reached) for name in reached[0]}
    lowest = {name: min(each[name] for each in reached) for name in reached[0]}
    rows = [{"settings": name, "4 bits": means[name], "worst of 8": lowest[name]} for name in means]
    publish("choose_digits", "designs/digits, accuracy on held-out training images, %", rows)


def _judge(fold: int, seed: int) -> dict[str, float]:
    """Return the accuracy on the held-out images in float, after quantization, and of each candidate at 4 bits."""
    design = Design.load("digits").with_seed(seed)
    data = _held_out(runs.load_data(design), fold)
    with tempfile.TemporaryDirectory() as scratch:
        start = _folder(scratch, "float")
        runs.train_float(design, data, start, _folder(scratch, "halfway"), _quiet)
        found = {"float": runs.metrics(start)["accuracy"]}
        for number, (name, change) in enumerate(CANDIDATES.items()):
            folder, halfway = _folder(scratch, str(number)), _folder(scratch, f"{number} halfway")
            runs.train_fixed(_changed(design, change), data, start, 4, folder, halfway, _quiet)
            figures = runs.metrics(folder)
            found |= {"quantized after training": figures["quantized"], name: figures["accuracy"]}
    return found


def _held_out(data: Data, fold: int) -> Data:
    held = torch.arange(len(data.train_x)) % FOLDS == fold
    return Data(data.train_x[~held], data.train_y[~held], data.train_x[held], data.train_y[held])


def _changed(design: Design, change: Mapping[str, Any]) -> Design:
    training = design.content.training
    fixed = {key: value for key, value in change.items() if key in ("lr", "epochs")}
    others = {key: value for key, value in change.items() if key not in fixed}
    training = training.model_copy(update={"fixed": training.fixed.model_copy(update=fixed), **others})
    return Design(design.folder, design.content.model_copy(update={"training": training}), design.argument)


def _folder(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    return path


def _quiet(done: float, doing: str) -> None:
    """Training shows no progress here."""


if __name__ == "__main__":
    main()
