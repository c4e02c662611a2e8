"""Rows of the accuracy table of designs/fracbnn: quantized after training, then trained on in fixed point.

    python bench/train_fracbnn.py "12, 2-hot" [--images 50000] [--epochs 5]

Needs QFX_CIFAR10 and the checkpoint of designs/fracbnn/README.md. Results are gathered in
bench/results/fracbnn_rows.json; the test images are run once a row.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from harness import RESULTS
from safetensors.torch import save_file
from torch import nn

import qfx
from qfx.design import Design
from qfx.nn import moves
from qfx.train import Data, accuracy, fit, runs
from qfx.train.float_checkpoint import load_float

TABLE = RESULTS / "fracbnn_rows.json"
RUNS = Path("build") / "fracbnn"  # below the current folder
ROWS = ("12", "12, 2-hot")
CALIBRATION = 512  # training images
SHOWN = 64  # test images on which float32 is compared with exact arithmetic


def row(name: str, images: int, epochs: int) -> Mapping[str, Any]:
    """Quantize the network of one row, train it on that many ``images``, and return its figures."""
    design, start = Design.load("fracbnn"), time.process_time()
    data = runs.load_data(design)
    model = fixed(design, name, data)
    if images:
        settings = replace(runs.settings(design, design.content.training.fixed), epochs=epochs)
        chosen = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(settings.seed))[:images]
        part = Data(data.train_x[chosen], data.train_y[chosen], data.test_x, data.test_y)
        fit(
            model,
            part,
            settings,
            lambda done, doing: print(f"{done:.0%} {doing}", flush=True),
            runs.augmentation(design),
        )
    RUNS.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), RUNS / f"{name.replace(', ', '-')}-{images}-{epochs}.safetensors")
    moved = [a != b for move in moves(model).values() for a, b in zip(move.before, move.now, strict=True)]
    return {
        "row": name,
        "training images": images,
        "epochs": epochs if images else 0,
        "points moved": f"{sum(moved)} of {len(moved)}",
        "test accuracy, %": reached(model, data),
        "CPU minutes": round((time.process_time() - start) / 60, 1),
    }


def fixed(design: Design, name: str, data: Data) -> nn.Module:
    """Return the network of a row, calibrated and corrected."""
    recipe = design.content.recipe
    if "hot" in name:
        recipe = yaml.safe_load((design.folder / "two_hot.yaml").read_text("utf-8"))
    recipe = {**recipe, "default": {"input": design.content.input.format, **recipe["default"]}}
    model = load_float(runs.float_model(design), design.float_checkpoint)
    batches = data.train_x[:CALIBRATION].split(128)
    model = qfx.calibrate(qfx.convert(model.eval(), recipe, batches[0][:2]).eval(), batches)
    return qfx.correct(model, batches[:2])


def reached(model: nn.Module, data: Data) -> float:
    """Return the accuracy in float32, which is shown on some images to give what exact arithmetic does."""
    with torch.no_grad():
        some = data.test_x[:SHOWN]
        if not torch.equal(qfx.exact(model)(some), model(some).double()):
            raise SystemExit("float32 must give the values of exact arithmetic, but does not")
        return accuracy(model, data.test_x, data.test_y)


def keep(found: Mapping[str, Any]) -> None:
    """Put a row into the table, in the place of an earlier one of the same settings."""
    rows = json.loads(TABLE.read_text()) if TABLE.is_file() else []
    same = ("row", "training images", "epochs")
    rows = [row for row in rows if any(row[key] != found[key] for key in same)] + [dict(found)]
    RESULTS.mkdir(exist_ok=True)
    TABLE.write_text(json.dumps(sorted(rows, key=lambda row: [str(row[key]) for key in same]), indent=1) + "\n")


def main() -> None:
    """Measure the row that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--images", type=int, default=50_000, help="training images; 0: no training")
    parser.add_argument("--epochs", type=int, default=5)
    asked = parser.parse_args()
    found = row(asked.row, asked.images, asked.epochs)
    keep(found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
