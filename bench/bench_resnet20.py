"""Accuracy of designs/resnet20 without training: the float checkpoint, and quantized after training by rows A and B.

Initial formats come from 1,024 training images. Needs QFX_CIFAR10 and QFX_CHECKPOINTS (designs/resnet20/README.md).
"""

from collections.abc import Mapping
from typing import Any

import torch
import yaml
from harness import publish
from torch import nn

import qfx
from qfx.design import Design
from qfx.train import Data, accuracy, runs
from qfx.train.float_checkpoint import load_float

CALIBRATION = 1024


def main() -> None:
    """Measure the three rows and publish them."""
    design = Design.load("resnet20")
    data = runs.load_data(design)
    model = load_float(runs.float_model(design), design.float_checkpoint).eval()
    with torch.no_grad():
        rows = [{"row": "float checkpoint", "test accuracy, %": accuracy(model, data.test_x, data.test_y)}]
    recipes = {"A": design.content.recipe, "B": yaml.safe_load((design.folder / "row_b.yaml").read_text())}
    for name, recipe in recipes.items():
        reached = quantized(design, model, recipe, data)
        rows.append({"row": f"{name}, quantized after training", "test accuracy, %": reached})
    title = f"designs/resnet20, accuracy on the {len(data.test_x):,} test images, %"
    publish("resnet20", title, rows, calibration_images=CALIBRATION)


def quantized(design: Design, model: nn.Module, recipe: Mapping[str, Any], data: Data) -> float:
    """Return the accuracy, in exact arithmetic, of ``model`` in the formats of ``recipe``, without training."""
    given = {**recipe, "default": {"input": design.content.input.format, **recipe["default"]}}
    fixed = qfx.calibrate(qfx.convert(model, given).eval(), data.train_x[:CALIBRATION].split(256))
    return accuracy(qfx.exact(fixed), data.test_x, data.test_y)


if __name__ == "__main__":
    main()
