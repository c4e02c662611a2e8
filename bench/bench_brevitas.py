"""Row A of designs/resnet20 quantized after training by Brevitas: what `bench_resnet20.py` does, with its tools.

Brevitas' fixed-point quantizers, calibrated on 1,024 training images, then its corrections of BatchNorm statistics and
of biases on the same images. BatchNorm stays in float. Needs QFX_CIFAR10 and QFX_CHECKPOINTS: see
designs/resnet20/README.md.
"""

import torch
from brevitas.graph.calibrate import bias_correction_mode, calibration_mode, norm_correction_mode
from brevitas_resnet import BrevitasResNet, Kind
from harness import publish
from torch import Tensor, nn

from qfx.design import Design
from qfx.train import accuracy, runs
from qfx.train.float_checkpoint import load_float

CALIBRATION = 1024
WIDTHS = (8, 6, 5, 4, 3)


@torch.no_grad()
def quantized(given: nn.Module, images: Tensor, kind: Kind) -> nn.Module:
    """Return Brevitas' network with the weights of the float one, calibrated and corrected on ``images``."""
    model = BrevitasResNet(kind).eval()
    left = model.load_state_dict(given.state_dict(), strict=False)
    if any(not key.startswith("norm.") for key in left.unexpected_keys):
        raise SystemExit(f"every float weight must find its place, but not {left.unexpected_keys}")
    batches = images.split(256)
    with calibration_mode(model):
        for x in batches:
            model(x)
    for correction in (norm_correction_mode, bias_correction_mode):
        with correction(model):
            for x in batches:
                model(x)
    return model.eval()


def main() -> None:
    """Measure the rows and publish them."""
    design = Design.load("resnet20")
    data = runs.load_data(design)
    assert design.float_checkpoint  # design.yaml names one
    given = load_float(runs.float_model(design), design.float_checkpoint).eval()
    rows = []
    for width in WIDTHS:
        row: dict[str, str | float] = {"row": f"A, {width} bits"}
        for scales, least_error in (("statistics", False), ("least error", True)):
            model = quantized(given, data.train_x[:CALIBRATION], Kind(width, least_error))
            with torch.no_grad():
                row[f"scales by {scales}"] = accuracy(model, data.test_x, data.test_y)
        print(row, flush=True)
        rows.append(row)
    title = f"Brevitas after training, accuracy on the {len(data.test_x):,} test images, %"
    publish("brevitas", title, rows, calibration_images=CALIBRATION)


if __name__ == "__main__":
    main()
