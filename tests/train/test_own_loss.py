"""fit with a loss of one's own: a small detector in the manner of CenterNet (Zhou et al., 2019) finds squares."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import TrainError
from qfx.train import Data, Detection, Distill, Settings, fit

SIDE, STRIDE = 16, 2


class Detector(nn.Module):
    """(N, 1, 16, 16) to the logits of centres (N, 1, 8, 8) and the sides of boxes there, in cells (N, 2, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
        )
        self.heat, self.sides = nn.Conv2d(8, 1, 3, 1, 1), nn.Conv2d(8, 2, 3, 1, 1)
        nn.init.constant_(self.heat.bias, -2.19)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.features(x)
        return self.heat(x), self.sides(x)


def squares(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images with one bright square of 3 to 7 pixels, and its box."""
    generator = torch.Generator().manual_seed(seed)
    sides = torch.randint(3, 8, (count,), generator=generator)
    corner = (torch.rand(count, 2, generator=generator) * (SIDE - sides[:, None])).floor().long()
    images = torch.randint(0, 20, (count, 1, SIDE, SIDE), generator=generator).float()
    for image, side, (left, top) in zip(images, sides.tolist(), corner.tolist(), strict=True):
        image[0, top : top + side, left : left + side] += 200
    boxes = torch.cat([torch.zeros(count, 1), corner, corner + sides[:, None]], 1)
    return images, boxes[:, None]


def cells(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of the cell that holds the centre of the one box of each image, and its sides in cells."""
    box = boxes[:, 0, 1:]
    column, row = ((box[:, axis] + box[:, axis + 2]) / 2 / STRIDE for axis in (0, 1))
    return row.long(), column.long(), (box[:, 2:] - box[:, :2]) / STRIDE


def loss(result: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
    """Focal loss of the centres (without the Gaussian around them), and the mean error of the sides there."""
    heat, sides = result
    row, column, wanted = cells(boxes)
    image = torch.arange(len(boxes))
    p = heat[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    there = torch.zeros_like(p)
    there[image, row, column] = 1
    focal = -(there * (1 - p) ** 2 * p.log() + (1 - there) * p**2 * (1 - p).log()).sum()
    return focal / len(boxes) + 0.1 * F.l1_loss(sides[image, :, row, column], wanted)


def found(result: tuple[Tensor, Tensor], boxes: Tensor) -> Tensor:
    """Part of the images whose highest centre lies within a cell of the true one."""
    row, column, _ = cells(boxes)
    place = result[0].flatten(1).argmax(1)
    near = ((place // 8 - row).abs() <= 1) & ((place % 8 - column).abs() <= 1)
    return near.float().mean()


def data() -> Detection:
    (x, y), (test_x, test_y) = squares(192, 1), squares(64, 2)
    return Detection(x, y, test_x, test_y, ("square",))


def mirror(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror a batch, boxes too."""
    if torch.rand(()) < 0.5:
        return images, boxes
    kind, left, top, right, bottom = boxes.unbind(2)
    return images.flip(3), torch.stack([kind, SIDE - right, top, SIDE - left, bottom], 2)


def stay(images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror the images and forget the boxes: the planted fault."""
    return images.flip(3), boxes


def fixed(net: nn.Module, x: Tensor) -> nn.Module:
    return qnn.calibrate(
        qnn.convert(net, {"default": {"weight": 4, "activation": 4, "input": "u8.0"}}, x[:2]), [x[:64]]
    )


@pytest.mark.parametrize(("augment", "good"), [(mirror, True), (stay, False)])
def test_a_detector_learns_boxes_in_fixed_point_if_they_move_with_the_images(
    augment: Any, good: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = data()
    model = fixed(Detector(), source.train_x[:])
    fit(
        model, source, Settings(epochs=10, lr=1e-2, batch=32), augment=augment, folder=tmp_path, loss=loss, metric=found
    )
    reached = found(qnn.exact(model)(source.test_x), source.test_y).item()
    assert (reached > 0.9) == good, reached
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert "accuracy" not in rows[0] and 0 <= rows[0]["metric"] <= 1 and rows[-1]["loss"] < rows[0]["loss"]
    again = fit(fixed(Detector(), source.train_x[:]), source, SAME, folder=tmp_path, loss=loss, metric=found)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


SAME = Settings(epochs=10, lr=1e-2, batch=32)


def test_a_regression_needs_no_metric(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 4)
    source = Data(x, torch.arange(64), x, torch.arange(64))
    fit(
        nn.Linear(4, 1),
        source,
        Settings(epochs=2, lr=0.1),
        folder=tmp_path,
        loss=lambda y, t: (y[:, 0] - t / 64).square().mean(),
    )
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert "accuracy" not in row and "metric" not in row and row["loss"] < 2


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        ({}, {}, r"a Detection must come with a loss, a function \(result, targets\) -> number"),
        ({"metric": found}, {}, "a metric must come with a loss"),
        (
            {"loss": loss},
            {"label_smoothing": 0.1},
            "a loss must stand without teacher and label_smoothing, which belong",
        ),
        (
            {"loss": loss, "teacher": Detector()},
            {"distill": Distill()},
            "a loss must stand without teacher and label_sm",
        ),
        ({"loss": lambda y, t: 1.0}, {}, "loss must return one number that depends on the network, not float"),
        (
            {"loss": lambda y, t: y[0]},
            {},
            r"loss must return one number that depends on the network, not a tensor \(32, 1",
        ),
        (
            {"loss": lambda y, t: y[0].sum() * float("nan")},
            {},
            r"the loss must stay finite, not nan; no layer gives NaN",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options: Any, settings: Any, said: str) -> None:
    with pytest.raises(TrainError, match=said):
        fit(Detector(), data(), Settings(epochs=1, lr=0.01, batch=32, **settings), **options)
