"""Which settings designs/digits is trained with, chosen on 360 training images that no run of this script trains on.

The 360 test images play no part here: each fourth training image is held out, and takes the place of the test set.
Not part of `make bench`: it answers a question once.
"""

import statistics
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from harness import publish

from qfx.design import Design
from qfx.train import Data, runs

SEEDS = (0, 1, 2)
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "float 40, fixed 15 epochs": {},  # jitter, label smoothing 0.05, lr 4e-3 and 1e-3: what the others change
    "no jitter": {"augment": None},
    "no label smoothing": {"label_smoothing": 0.0},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "float 30, fixed 15 epochs": {"epochs": (30, 15)},
    "float 40, fixed 10 epochs": {"epochs": (40, 10)},
    "float 50, fixed 20 epochs": {"epochs": (50, 20)},
    "fixed lr 5e-4": {"fixed_lr": 5e-4},
    "fixed lr 2e-3": {"fixed_lr": 2e-3},
    "float lr 2e-3": {"float_lr": 2e-3},
}


def main() -> None:
    """Train every candidate with every seed and print the means."""
    jobs = list(product(CANDIDATES, SEEDS))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        reached = dict(zip(jobs, pool.map(_train, *zip(*jobs, strict=True)), strict=True))
    rows = [
        {
            "settings": name,
            "float": statistics.mean(reached[name, seed][0] for seed in SEEDS),
            "4 bits": statistics.mean(reached[name, seed][1] for seed in SEEDS),
            "4 bits, each seed": ", ".join(f"{reached[name, seed][1]:.2f}" for seed in SEEDS),
        }
        for name in CANDIDATES
    ]
    publish("choose_digits", "designs/digits, accuracy on 360 held-out training images, %", rows)


def _train(name: str, seed: int) -> tuple[float, float]:
    """Return the accuracy on the held-out images in float and at 4 bits."""
    design = _changed(Design.load("digits").with_seed(seed), CANDIDATES[name])
    data = _held_out(runs.load_data(design))
    width = design.content.training.widths[0]
    with tempfile.TemporaryDirectory() as scratch:
        first, second, halfway = (Path(scratch) / name for name in ("float", "fixed", "halfway"))
        for folder in (first, second, halfway / "float", halfway / "fixed"):
            folder.mkdir(parents=True)
        runs.train_float(design, data, first, halfway / "float", _quiet)
        runs.train_fixed(design, data, first, width, second, halfway / "fixed", _quiet)
        return runs.metrics(first)["accuracy"], runs.metrics(second)["accuracy"]


def _held_out(data: Data) -> Data:
    held = torch.arange(len(data.train_x)) % 4 == 0
    return Data(data.train_x[~held], data.train_y[~held], data.train_x[held], data.train_y[held])


def _changed(design: Design, change: Mapping[str, Any]) -> Design:
    training = design.content.training
    float_epochs, fixed_epochs = change.get("epochs", (40, 15))
    training = training.model_copy(
        update={
            "float_": training.float_.model_copy(
                update={"epochs": float_epochs, "lr": change.get("float_lr", training.float_.lr)}
            ),
            "fixed": training.fixed.model_copy(
                update={"epochs": fixed_epochs, "lr": change.get("fixed_lr", training.fixed.lr)}
            ),
            "label_smoothing": change.get("label_smoothing", training.label_smoothing),
        }
    )
    content = design.content.model_copy(
        update={"training": training, "augment": change.get("augment", design.content.augment)}
    )
    return Design(design.folder, content, design.argument)


def _quiet(done: float, doing: str) -> None:
    """Training shows no progress here."""


if __name__ == "__main__":
    main()
