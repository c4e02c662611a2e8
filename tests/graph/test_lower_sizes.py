"""Sizes that a forward computes from its tensors are those of the example; calls that change nothing go."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.graph.lower import lower
from tests.graph.lowering import calibrated, equals_torch


class Called(nn.Module):
    """A call on an image of 4 channels, 6x4 pixels, and the convolution behind it."""

    def __init__(self, call) -> None:
        super().__init__()
        self.stem, self.last, self.call = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), call

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.call(self.stem(x)))


SIZED = {
    "the rest of a size": lambda x: F.avg_pool2d(x, x.size()[2:]),
    "numbers of a size": lambda x: F.max_pool2d(x, kernel_size=(x.size(2), x.size(-1)), stride=x.shape[2]),
    "a part of a shape": lambda x: F.adaptive_avg_pool2d(x, (x.shape[-2] // 2, x.shape[2:][1])),
    "like another": lambda x: x + F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:], mode="nearest"),
    "half of the channels": lambda x: torch.cat((x[:, x.size(1) // 2 :], x.split(x.shape[1] // 2, 1)[0]), 1),
    "like numbers": lambda x: x + F.interpolate(F.max_pool2d(x, (1, 2)), (6, 4)),
}
SAME = {
    "contiguous": lambda x: x.contiguous().clone().float(),
    "shuffled": lambda x: x.view(-1, 2, 2, 6, 4).transpose(1, 2).contiguous().view(-1, 4, 6, 4).contiguous(),
    "in another order": lambda x: x[:, [2, 0, 3, 1]] + x.flip(1) + x[:, [3, 3, 0, 0], :, :],
    "repeated": lambda x: x.repeat(1, 2, 1, 1)[:, 2:6] + torch.repeat_interleave(x, 2, 1)[:, :4],
    "clamp_min": lambda x: x.clamp_min(0) + torch.clamp_min(x, 0.0),
}


@pytest.mark.parametrize("name", [*SIZED, *SAME])
def test_the_graph_gives_the_integers_of_torch(name: str) -> None:
    torch.manual_seed(6)
    network, x = Called((SIZED | SAME)[name]), torch.rand(5, 3, 6, 4) * 2 - 1
    model = calibrated(network, x)
    graph = lower(model, x)
    assert equals_torch(graph, model, x) and equals_torch(graph, model, x[:2])
    off = (qnn.exact(model)(x) - network(x)).abs().mean() / network(x).abs().mean()
    assert off < 0.1
    with torch.no_grad():
        model.last.weight[0] *= -1
    assert not equals_torch(graph, model, x)


UNKNOWN = {
    "like numbers": r"interpolate \(Upsample\): its scale_factor must be a whole number, not size \(6, 4\)$",
    "half of the channels": r"its slices must have numbers for ends, none that depend on the input",
}
ASKED = r"(pool2d|interpolate)\): use numbers for its sizes, or give convert an example that tells them, instead$"


@pytest.mark.parametrize("name", SIZED)
def test_without_an_example_sizes_are_asked_for(name: str) -> None:
    with pytest.raises(LowerError, match=UNKNOWN.get(name, ASKED)):
        qnn.convert(Called(SIZED[name]))


def test_repeated_channels_are_counted_in_an_example() -> None:
    with pytest.raises(LowerError, match=r"repeat \(repeat\): it must have an example, which tells how many channels"):
        qnn.convert(Called(SAME["repeated"]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.interpolate(x, (9, 4)), r"its size must be a whole multiple of 6x4, not 9x4"),
        (lambda x: F.interpolate(x, 4), r"its size must be a whole multiple of 6x4, not 4x4"),
        (
            lambda x: F.avg_pool2d(x, x.size(0)),
            r"avg_pool2d \(avg_pool2d\): use numbers for its sizes, or give convert",
        ),
        (lambda x: torch.exp(x), r"exp \(exp\): use qfx.nn.Table\(torch.exp\)\(x\) instead"),
    ],
)
def test_what_has_no_form_is_refused(call, message: str) -> None:
    with pytest.raises(LowerError, match=message):
        qnn.convert(Called(call), None, torch.rand(2, 3, 6, 4))
