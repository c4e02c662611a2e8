"""K-hot against an adder optimiser: non-zero digits, accuracy and adders of designs/resnet20 with 8-bit weights.

    python bench/bench_khot.py [--adders PYTHON] [--row ROW] ... [--trained ROW=FOLDER] ...

Each row is the float checkpoint quantized after training, or, where a FOLDER is given, the network that
`bench/train_resnet20.py` left in its build/resnet20/ROW.../train. Adders are those of the small layers in LAYERS, each
unrolled into the product by one constant matrix: without sharing, the non-zero digits of each output less one; and
after the optimiser of da4ml, which PYTHON has (python -m venv adders; adders/bin/pip install da4ml). It takes larger
layers minutes to hours. Rows that are not asked for stay as they were measured before. Needs QFX_CIFAR10 and
QFX_CHECKPOINTS: see designs/resnet20/README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_resnet20 import CALIBRATION, with_input
from harness import RESULTS, publish
from resnet20_rows import recipes
from torch import nn

import qfx
from qfx.design import Design
from qfx.fixed import digit_counts
from qfx.nn import Conv2d, Linear, limit_digits, nonzero_digits
from qfx.train import Data, accuracy, runs
from qfx.train.float_checkpoint import load_float

LAYERS = ("conv1", *(f"layer1.{block}.conv{place}" for block in range(3) for place in (1, 2)), "linear")
WIDTH = 8
MEAN = 1.6  # digits a weight of the row whose K differ between channels
LEARNED = "K by channel, signed"
ROWS = ("plain", "1-hot", "2-hot", "2-hot signed", LEARNED)


def main() -> None:
    """Measure the rows and publish them."""
    asked = _arguments()
    trained = dict(given.split("=", 1) for given in asked.trained)
    design = Design.load("resnet20")
    data = runs.load_data(design)
    rows, matrices = [], {}
    for name in asked.row or ROWS:
        model = network(design, data, name, trained.get(name))
        rows.append({"weights": name, "made": "trained" if name in trained else "quantized after training"})
        rows[-1] |= figures(model, data, signed=name not in ("1-hot", "2-hot"))
        matrices |= {f"{name}/{layer}": matrix for layer, matrix in unrolled(model).items()}
        print(rows[-1], flush=True)
    found, reason = optimised(asked.adders, matrices)
    for row in rows:
        of_row = [found[f"{row['weights']}/{layer}"] for layer in LAYERS] if found else []
        row["adders, da4ml"] = sum(layer["adders"] for layer in of_row) if of_row else "-"
    before = json.loads((RESULTS / "khot.json").read_text()) if asked.row else {"rows": [], "by_layer": {}}
    rows += [row for row in before["rows"] if row["weights"] not in asked.row]
    rows.sort(key=lambda row: ROWS.index(row["weights"]))
    found = {**before["by_layer"], **found}
    title = f"designs/resnet20, {WIDTH}-bit words; adders of {', '.join(LAYERS)}"
    publish("khot", title, rows, da4ml=reason, by_layer=found, calibration_images=CALIBRATION)


def network(design: Design, data: Data, name: str, folder: str | None) -> nn.Module:
    """Return a row's fixed-point network, from a training's folder or quantized after training."""
    weight: dict[str, Any] = {"width": WIDTH}
    if name == LEARNED:
        weight["digits"] = {"k": 4, "signed": True, "learn": True}
    recipe = {"default": {"weight": weight, "activation": WIDTH}} if name in ("plain", LEARNED) else recipes()[name]
    model = load_float(runs.float_model(design), design.float_checkpoint).eval()
    fixed = qfx.convert(model, with_input(design, recipe)).eval()
    if folder is not None:
        return runs.load_weights(fixed, Path(folder)).eval()
    batches = data.train_x[:CALIBRATION].split(256)
    qfx.calibrate(fixed, batches)
    if name == LEARNED:
        weights = sum(layer.weight.numel() for layer in layers(fixed).values())
        limit_digits(fixed, int(MEAN * weights))
    return qfx.correct(fixed, batches)


def layers(model: nn.Module) -> dict[str, Conv2d | Linear]:
    """Return the layers with weights by their path."""
    return {path: layer for path, layer in model.named_modules() if isinstance(layer, Conv2d | Linear)}


def figures(model: nn.Module, data: Data, signed: bool) -> dict[str, Any]:
    """Return accuracy, and digits and adders of the weights: the fewest signed digits, or ones where not ``signed``."""
    matrices = {path: matrix(layer) for path, layer in layers(model).items()}
    counts = digit_counts(WIDTH, signed)
    digits = {path: int(counts[np.abs(codes)].sum()) for path, codes in matrices.items()}
    if (kept := int(nonzero_digits(model))) not in (0, sum(digits.values())):
        raise SystemExit(f"both counts of non-zero digits must be equal, not {kept} and {sum(digits.values())}")
    outputs = sum(int(matrices[layer].any(0).sum()) for layer in LAYERS)
    with torch.no_grad():
        reached = accuracy(model, data.test_x, data.test_y)
    return {
        "accuracy, %": reached,
        "digits": sum(digits.values()),
        "digits a weight": sum(digits.values()) / sum(codes.size for codes in matrices.values()),
        "digits of the small layers": sum(digits[layer] for layer in LAYERS),
        "adders, no sharing": sum(digits[layer] for layer in LAYERS) - outputs,
    }


def matrix(layer: Conv2d | Linear) -> np.ndarray:
    """Return the integer weights of a layer as (inputs, outputs)."""
    codes = layer.constants()["weight"].codes
    return codes.reshape(-1, codes.shape[-1])


def unrolled(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the matrices of the small layers."""
    return {path: matrix(layer) for path, layer in layers(model).items() if path in LAYERS}


def optimised(python: str, matrices: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], str]:
    """Return adders and seconds of each matrix after da4ml, and its version, or nothing and why."""
    told = "import importlib.metadata as m; import da4ml.cmvm; print(m.version('da4ml'))"
    asked = subprocess.run([python, "-c", told], capture_output=True, text=True, check=False)
    if asked.returncode:
        return {}, f"{python} does not have it: install it in an environment of its own, and name that with --adders"
    with tempfile.TemporaryDirectory() as scratch:
        source, result = Path(scratch) / "matrices.npz", Path(scratch) / "adders.json"
        np.savez(source, **matrices)
        subprocess.run([python, str(Path(__file__).with_name("adders.py")), str(source), str(result)], check=True)
        return json.loads(result.read_text()), asked.stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--adders", default=sys.executable, help="a Python that has da4ml")
    parser.add_argument("--row", action="append", default=[], choices=ROWS, help="measure this row only")
    parser.add_argument("--trained", action="append", default=[], help="ROW=FOLDER of weights.safetensors")
    return parser.parse_args()


if __name__ == "__main__":
    main()
