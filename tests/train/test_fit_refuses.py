"""What a caller hands to fit and what cannot be trained with is refused in words, in the first step at the latest."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.train import Data, Detection, Distill, Settings, fit

ONCE = Settings(epochs=1, lr=1e-3, batch=16)


def network(features: int = 16, classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))


def data() -> Data:
    x, y = torch.rand(32, 1, 4, 4), torch.arange(32) % 2
    return Data(x, y, x, y)


def spoilt() -> nn.Module:
    found = network()
    with torch.no_grad():
        found[1].weight[0, 0] = float("nan")
    return found


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (
            spoilt(),
            "the loss must stay finite, not nan; the teacher does not: its 1.weight holds NaN or infinity: load",
        ),
        (network(classes=3), "the teacher must give 2 scores an input, as the network does, not 3"),
        (network(features=9), "the teacher must take an input of shape 1x4x4, but torch says: mat1 and mat2"),
        (nn.Identity(), "the teacher must give one score a class, a tensor (N, classes), not (16, 1, 4, 4)"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher: nn.Module, said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        fit(network(), data(), replace(ONCE, distill=Distill()), teacher=teacher)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (network(features=9), "the network must take an input of shape 1x4x4, but torch says: mat1 and mat2"),
        (nn.Conv2d(1, 2, 3), "the network must give one score a class, a tensor (N, classes), not (16, 2, 2, 2)"),
    ],
)
def test_a_network_that_does_not_go_with_the_data_is_refused(model: nn.Module, said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        fit(model, data(), ONCE)


class Returning(nn.Module):
    """Scores, returned in a structure."""

    def __init__(self, structure: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.scores, self.structure = network(), structure

    def forward(self, x: Tensor) -> Any:
        return self.structure(self.scores(x))


RESULT = "the network's result: it must be a tensor, or a tuple of two or more tensors, not "


@pytest.mark.parametrize(
    ("structure", "what"),
    [
        (lambda y: {"scores": y}, "a dict of 1"),
        (lambda y: [y, (y, y)], "a list with a tuple in it"),
        (lambda y: (y, None), "a tuple with None in it"),
        (lambda y: (y,), "a tuple of 1"),
        (lambda y: None, "None"),
        (lambda y: {y}, "set"),
    ],
)
@pytest.mark.parametrize("own", [None, lambda result, y: result["scores"].mean()])
def test_a_result_that_convert_would_refuse_is_refused_with_the_same_remedy(
    structure: Callable[[Tensor], Any], what: str, own: Any
) -> None:
    with pytest.raises(TrainError, match=re.escape(f"{RESULT}{what}: return the tensors alone")):
        fit(Returning(structure), data(), ONCE, loss=own)


@pytest.mark.parametrize("several", [tuple, list])
def test_a_loss_of_ones_own_is_given_several_results_as_a_tuple(several: type) -> None:
    given: list[Any] = []

    def loss(result: Any, y: Tensor) -> Tensor:
        given.append(result)
        return result[0].mean() + result[1].mean()

    fit(Returning(lambda y: several([y, 2 * y])), data(), ONCE, loss=loss)
    assert {type(each) for each in given} == {tuple} and all(torch.equal(2 * a, b) for a, b in given)
    with pytest.raises(TrainError, match=re.escape("a tensor (N, classes), not tuple: give fit a loss of your own")):
        fit(Returning(lambda y: several([y, 2 * y])), data(), ONCE)


def test_the_folder_may_be_text_and_must_not_be_a_file(tmp_path: Path) -> None:
    fit(network(), data(), ONCE, folder=str(tmp_path / "run"))
    assert (tmp_path / "run" / "log.csv").is_file()
    with pytest.raises(TrainError, match="log.csv must be a place that can be written to, but: File exists: choose"):
        fit(network(), data(), ONCE, folder=tmp_path / "run" / "log.csv")
    with pytest.raises(TrainError, match="folder must be a path, not 3"):
        fit(network(), data(), ONCE, folder=3)  # type: ignore[arg-type]


def divides(x: Tensor) -> Tensor:
    return x / (1 // 0)


INPUTS = "must return inputs like those that it is given, (16, 1, 4, 4) float32, "


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (lambda x: None, f"test_fit_refuses.py: augment <lambda> {INPUTS}not NoneType"),
        (lambda x: x.flatten(1), f"{INPUTS}not (16, 16) float32"),
        (lambda x: x[:5], f"{INPUTS}not (5, 1, 4, 4) float32"),
        (lambda x: x.double(), f"{INPUTS}not (16, 1, 4, 4) float64"),
        (divides, rf"{INPUTS}but ZeroDivisionError: integer division or modulo by zero"),
        (nn.Flatten(), f"augment Flatten {INPUTS}not (16, 16) float32"),
    ],
)
def test_what_augment_makes_is_checked_and_its_name_said(augment: Callable[..., object], said: str) -> None:
    with pytest.raises(TrainError, match=re.escape(said)):
        fit(network(), data(), ONCE, augment=augment)


def test_an_error_in_augment_is_told_with_its_line() -> None:
    line = divides.__code__.co_firstlineno + 1
    with pytest.raises(TrainError, match=rf"test_fit_refuses.py:{line}: augment divides must return inputs like those"):
        fit(network(), data(), ONCE, augment=divides)


def test_an_augment_of_a_detection_takes_and_gives_boxes() -> None:
    x, boxes = torch.rand(32, 1, 4, 4), torch.tensor([0.0, 1, 1, 3, 3]).expand(32, 1, 5)
    found, both = Detection(x, boxes, x, boxes, ("square",)), "must return inputs and targets like those that it is"
    for augment, said in (
        (lambda x: x, "but TypeError: .* takes 1 positional argument but 2 were given"),
        (lambda x, y: x, r"not \(16, 1, 4, 4\) float32"),
        (lambda x, y: (x, None), "not NoneType"),
    ):
        with pytest.raises(TrainError, match=rf"augment <lambda> {both} given, \(16, .*\) float32 and .*, {said}"):
            fit(network(), found, ONCE, augment=augment, loss=lambda result, y: result.mean())
    fit(network(), found, ONCE, augment=lambda x, y: (x, y), loss=lambda result, y: result.mean())
