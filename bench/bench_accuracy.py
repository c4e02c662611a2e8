"""Accuracy of designs/digits: float, quantized after training, and trained in fixed point, three seeds.

The mean at 4 bits must be at least 98.3 % and within 1.0 of float.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from harness import publish
from rich.console import Console

from qfx.design import Design
from qfx.train import runs

SEEDS = (0, 1, 2)


def main() -> None:
    """Train every row and print it with its mean."""
    results = [_one_seed(seed) for seed in SEEDS]
    rows = [
        {
            "row": name,
            **{f"seed {seed}": result[name] for seed, result in zip(SEEDS, results, strict=True)},
            "mean": statistics.mean(result[name] for result in results),
        }
        for name in results[0]
    ]
    publish("accuracy", "designs/digits, accuracy on the 360 test images, %", rows)


def _one_seed(seed: int) -> dict[str, float]:
    design = Design.load("digits").with_seed(seed)
    data = runs.load_data(design)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        start = _folder(scratch, "float")
        runs.train_float(design, data, start, _folder(scratch, "halfway"), _quiet)
        found["float"] = runs.metrics(start)["accuracy"]
        for width in design.content.training.widths:
            folder = _folder(scratch, str(width))
            halfway = _folder(scratch, f"{width} halfway")
            runs.train_fixed(design, data, start, width, folder, halfway, _quiet)
            reached = runs.metrics(folder)
            found[f"{width} bits, after training"] = reached["quantized"]
            found[f"{width} bits, trained"] = reached["accuracy"]
            Console().print(f"seed {seed}, {width} bits: {reached['accuracy']:.2f} %")
    return found


def _folder(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    return path


def _quiet(done: float, doing: str) -> None:
    """Training shows no progress here."""


if __name__ == "__main__":
    main()
