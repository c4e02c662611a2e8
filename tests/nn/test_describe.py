"""describe: every layer and call of a network, with what became of it and the formats it has."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx.errors import LowerError


class Net(nn.Module):
    """A residual network with a folded BatchNorm, an Identity and calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.folded = nn.BatchNorm2d(4)
        self.same, self.drop, self.dense = nn.Identity(), nn.Dropout(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = y + F.relu(self.folded(self.second(self.same(y))))
        return self.dense(self.drop(y.mean((2, 3))))


def converted() -> nn.Module:
    torch.manual_seed(0)
    recipe = {"default": {"input": "u5.0", "weight": 4}, "layers": {"folded": {"fold": True}}}
    return qfx.convert(Net(), recipe, torch.zeros(2, 1, 4, 4))


def test_every_layer_and_call_has_a_row_with_what_became_of_it() -> None:
    assert [(row.path, row.was, row.became) for row in qfx.describe(converted()).rows] == [
        ("input", "", "Quantizer"),
        ("conv", "Conv2d", "Conv2d"),
        ("norm", "BatchNorm2d", "BatchNorm2d"),
        ("relu", "relu", "ReLU"),
        ("second", "Conv2d", "Conv2d"),
        ("relu_1", "relu", "ReLU"),
        ("add", "add", "Add"),
        ("mean", "mean", "AdaptiveAvgPool2d"),
        ("mean_flatten", "mean", "Flatten"),
        ("drop", "Dropout", "Dropout"),
        ("dense", "Linear", "Linear"),
        ("output", "", "Quantizer"),
        ("same", "Identity", "nothing"),
        ("folded", "BatchNorm2d", "folded into second"),
    ]


def test_formats_are_widths_until_calibrated_and_the_quantizers_own_then() -> None:
    model = converted()
    before = {row.path: row.points for row in qfx.describe(model).rows}
    assert before["conv"] == {"input": "u5.0 of input", "weight": "4 bits"}
    with torch.no_grad():
        model.second.weight[0] *= 4
    qfx.calibrate(model, [torch.rand(8, 1, 4, 4) * 31])
    after = {row.path: row.points for row in qfx.describe(copy.deepcopy(model)).rows}
    fracs = model.second.weight_quant.format().fracs(4)
    assert after["second"]["weight"] == f"s4.[{fracs.min()}..{fracs.max()}]" and fracs.min() < fracs.max()
    assert after["mean"]["input"] == f"{model.add.output_quant.format()} of add.output"
    assert after["second"]["input"] == str(model.second.input_quant.format())


def test_equal_binary_points_of_all_channels_are_one_number() -> None:
    model = converted()
    qfx.calibrate(model, [torch.rand(8, 1, 4, 4) * 31])
    with torch.no_grad():
        model.conv.weight_quant.frac.fill_(9)
        model.second.weight_quant.frac.copy_(torch.tensor([9, 9, 8, 9]))
    points = {row.path: row.points for row in qfx.describe(model).rows}
    assert points["conv"]["weight"] == "s4.9" and points["second"]["weight"] == "s4.[8..9]"


def test_as_text_it_is_a_table() -> None:
    lines = str(qfx.describe(converted())).splitlines()
    assert lines[0].split() == ["path", "was", "became", "formats"]
    assert lines[2].split() == "conv Conv2d Conv2d input u5.0 of input, weight 4 bits".split()
    assert lines[1].index("Quantizer") == lines[2].rindex("Conv2d") == lines[0].index("became")


def test_a_network_that_was_not_converted_is_refused() -> None:
    with pytest.raises(LowerError, match="^the model must be what qfx.convert returned, not a Net$"):
        qfx.describe(Net())
