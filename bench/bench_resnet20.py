"""Accuracy of designs/resnet20 without training: the float checkpoint, and every row quantized after training.

Formats and corrected statistics come from 1,024 training images. Needs QFX_CIFAR10 and QFX_CHECKPOINTS: see
designs/resnet20/README.md.
"""

from collections.abc import Mapping
from typing import Any

import torch
from harness import publish
from resnet20_rows import recipes
from torch import nn

import qfx
from qfx.design import Design
from qfx.train import Data, accuracy, runs
from qfx.train.float_checkpoint import load_float

CALIBRATION = 1024
SHOWN = 128  # images on which float32 is compared with exact arithmetic


def main() -> None:
    """Measure the rows and publish them."""
    design = Design.load("resnet20")
    data = runs.load_data(design)
    model = load_float(runs.float_model(design), design.float_checkpoint).eval()
    with torch.no_grad():
        rows = [{"row": "float checkpoint", "test accuracy, %": accuracy(model, data.test_x, data.test_y)}]
    for name, recipe in {**recipes(), "mixed": mixed(design, model, data)}.items():
        reached = quantized(design, model, recipe, data)
        print(f"row {name}: {reached:.2f} %", flush=True)
        rows.append({"row": f"{name}, quantized after training", "test accuracy, %": reached})
    title = f"designs/resnet20, accuracy on the {len(data.test_x):,} test images, %"
    publish("resnet20", title, rows, calibration_images=CALIBRATION)


def mixed(design: Design, model: nn.Module, data: Data) -> Mapping[str, Any]:
    """Return widths that `qfx.allocate` chooses, at the weight bits and bit operations of 4 bits in every layer."""
    given = {**design.content.recipe, "default": {"input": design.content.input.format}}
    batches = [data.train_x[:256]]
    same = qfx.allocate(model, batches, {"weight_bits": 1e12}, with_input(design, design.content.recipe), widths=(4,))
    budget = {name: same.cost[name] for name in ("weight_bits", "bit_operations")}
    found = qfx.allocate(model, batches, budget, given)
    print(f"mixed: {found.widths}, {found.cost}, at most {budget}", flush=True)
    return found.recipe


def with_input(design: Design, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe that fixes the format of the design's input."""
    return {**recipe, "default": {"input": design.content.input.format, **recipe["default"]}}


def quantized(design: Design, model: nn.Module, recipe: Mapping[str, Any], data: Data) -> float:
    """Return the accuracy of ``model`` in the formats of ``recipe``, without training.

    It is computed in float32, and shown on some images to be what exact arithmetic gives.
    """
    given = with_input(design, recipe)
    batches = data.train_x[:CALIBRATION].split(256)
    fixed = qfx.correct(qfx.calibrate(qfx.convert(model, given).eval(), batches), batches)
    with torch.no_grad():
        some = data.test_x[:SHOWN]
        if not torch.equal(qfx.exact(fixed)(some), fixed(some).double()):
            raise SystemExit("float32 must give the values of exact arithmetic, but does not")
        return accuracy(fixed, data.test_x, data.test_y)


if __name__ == "__main__":
    main()
