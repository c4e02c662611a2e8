"""designs/resnet20: the keys of the public checkpoint, and recipes that fit the network."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from qfx.design import Design
from qfx.nn import calibrate, convert, quantizers
from qfx.train import accuracy, runs
from qfx.train.float_checkpoint import load_float

DESIGN = Design.load(Path(__file__).parents[2] / "designs" / "resnet20")


def test_keys_and_size_are_those_of_the_public_network() -> None:
    model = runs.float_model(DESIGN)
    assert sum(parameter.numel() for parameter in model.parameters()) == 269_722
    convolutions = [f"layer{s}.{b}.{n}{k}" for s in (1, 2, 3) for b in range(3) for n in ("conv", "bn") for k in (1, 2)]
    names = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert names == {"conv1", "bn1", "linear", *convolutions}


@pytest.mark.parametrize("row", ["A", "B"])
def test_both_recipes_give_every_layer_its_width(row) -> None:
    recipe = DESIGN.content.recipe if row == "A" else yaml.safe_load((DESIGN.folder / "row_b.yaml").read_text())
    images = torch.randint(0, 256, (2, 3, 32, 32)).float()
    given = {**recipe, "default": {"input": "u8.0", **recipe["default"]}}
    found = quantizers(calibrate(convert(runs.float_model(DESIGN), given), [images]))
    widths = {name: quantizer.width for name, quantizer in found.items()}
    ends, inside = (8, 8) if row == "A" else (4, 4)
    assert widths["conv1.weight_quant"] == widths["linear.weight_quant"] == ends
    assert widths["layer2.1.bn2.output_quant"] == widths["layer2.1.add.b_quant"] == inside
    assert widths["layer2.1.conv1.weight_quant"] == widths["layer2.1.conv1.input_quant"] == 4
    assert widths["bn1.scale_quant"] == inside and widths["conv1.input_quant"] == widths["output"] == 8


@pytest.mark.skipif(
    not os.environ.get("QFX_CIFAR10") or not os.environ.get("QFX_CHECKPOINTS"),
    reason="needs CIFAR-10 and the public checkpoint: set QFX_CIFAR10 and QFX_CHECKPOINTS",
)
def test_the_checkpoint_reaches_what_it_is_known_for() -> None:
    data, model = runs.load_data(DESIGN), runs.float_model(DESIGN)
    assert DESIGN.float_checkpoint is not None
    load_float(model, DESIGN.float_checkpoint).eval()
    with torch.no_grad():
        assert accuracy(model, data.test_x[:1000], data.test_y[:1000]) > 90
