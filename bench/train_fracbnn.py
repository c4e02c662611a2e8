"""Rows of the accuracy table of designs/fracbnn: quantized after training, then trained on in fixed point.

    python bench/train_fracbnn.py "12, 2-hot" [--epochs 0]
    python bench/train_fracbnn.py "12, 2-hot" --held-out --lr 1e-4

Needs QFX_CIFAR10 and the checkpoint of designs/fracbnn/README.md. Results are gathered in
bench/results/fracbnn_rows.json; the test images are run once a row. With --held-out 5,000 training images stand for the
test images, to choose settings by: gathered in fracbnn_choices.json.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from harness import keep
from safetensors.torch import save_file
from torch import nn

import qfx
from qfx.design import Design
from qfx.nn import moves
from qfx.train import Data, accuracy, fit, runs
from qfx.train.float_checkpoint import load_float

SAME = ("row", "epochs", "training images", "lr")
RUNS = Path("build") / "fracbnn"  # below the current folder
ROWS = ("12", "12, 2-hot", "12, 2-hot signed")
CALIBRATION = 512  # training images
CORRECTION = 256  # of them
SHOWN = 64  # test images on which float32 is compared with exact arithmetic


def row(asked: argparse.Namespace) -> Mapping[str, Any]:
    """Quantize the network of one row, train it on, and return its figures."""
    design, start = Design.load("fracbnn"), time.process_time()
    data = design.call("model.py:held_out", "data") if asked.held_out else runs.load_data(design)
    settings = runs.settings(design, design.content.training.fixed)
    settings = replace(settings, epochs=max(asked.epochs, 1), lr=asked.lr or settings.lr)
    model = fixed(design, asked.row, data)
    count = (asked.images or len(data.train_x)) if asked.epochs else 0
    if count:
        part = Data(data.train_x[:count], data.train_y[:count], data.test_x, data.test_y)
        fit(model, part, settings, _say, runs.augmentation(design))
    RUNS.mkdir(parents=True, exist_ok=True)
    name = f"{asked.row.replace(', ', '-').replace(' ', '-')}-{asked.epochs}-{count}-{settings.lr:g}"
    save_file(model.state_dict(), RUNS / f"{name}{'-held_out' if asked.held_out else ''}.safetensors")
    moved = [a != b for move in moves(model).values() for a, b in zip(move.before, move.now, strict=True)]
    return {
        "row": asked.row,
        "epochs": asked.epochs,
        "training images": count,
        "lr": settings.lr if count else 0.0,
        "points moved": f"{sum(moved)} of {len(moved)}",
        "accuracy, %": reached(model, data),
        "CPU minutes": round((time.process_time() - start) / 60, 1),
    }


def _say(done: float, doing: str) -> None:
    print(f"{done:.1%} {doing}", flush=True)


def fixed(design: Design, name: str, data: Data) -> nn.Module:
    """Return the network of a row, calibrated and corrected."""
    recipe = design.content.recipe
    if "hot" in name:
        recipe = yaml.safe_load((design.folder / "two_hot.yaml").read_text("utf-8"))
        recipe["default"]["constant"]["digits"]["signed"] = "signed" in name
    recipe = {**recipe, "default": {"input": design.content.input.format, **recipe["default"]}}
    assert design.float_checkpoint  # design.yaml names one
    model = load_float(runs.float_model(design), design.float_checkpoint)
    batches = data.train_x[:CALIBRATION].split(128)
    model = qfx.calibrate(qfx.convert(model.eval(), recipe, batches[0][:2]).eval(), batches)
    return qfx.correct(model, data.train_x[:CORRECTION].split(128))


def reached(model: nn.Module, data: Data) -> float:
    """Return the accuracy in float32, which is shown on some images to give what exact arithmetic does."""
    with torch.no_grad():
        some = data.test_x[:SHOWN]
        if not torch.equal(qfx.exact(model)(some), model(some).double()):
            raise SystemExit("float32 must give the values of exact arithmetic, but does not")
        return accuracy(model, data.test_x, data.test_y)


def main() -> None:
    """Measure the row that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--epochs", type=int, default=1, help="0: no training")
    parser.add_argument("--images", type=int, help="the first of the training images alone")
    parser.add_argument("--lr", type=float, help="the highest learning rate, if not the design's")
    parser.add_argument("--held-out", action="store_true", help="judge on 5,000 training images that are left out")
    asked = parser.parse_args()
    keep(row(asked), "fracbnn_choices" if asked.held_out else "fracbnn_rows", SAME)


if __name__ == "__main__":
    main()
