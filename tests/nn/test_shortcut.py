"""The shortcut of zeros: exact in torch, and the same integers in the graph."""

import numpy as np
import torch
from torch import Tensor, nn

import qfx
from qfx.graph.ops import Select
from qfx.nn import PadShortcut, calibrate, convert, exact


class Residual(nn.Module):
    def __init__(self, before: int = 2, after: int = 3) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3 + before + after, 3, 2, 1)
        self.shortcut = PadShortcut(2, before, after)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.conv(x) + self.shortcut(x)


def test_it_takes_every_second_pixel_and_pads_channels(rng) -> None:
    x = torch.tensor(rng.normal(0, 1, (2, 3, 5, 6))).float()
    y = PadShortcut(2, 1, 2)(x)
    assert y.shape == (2, 6, 3, 3) and torch.equal(y[:, 1:4], x[:, :, ::2, ::2])
    assert not y[:, 0].any() and not y[:, 4:].any()


def test_the_graph_gives_the_integers_of_torch(rng) -> None:
    torch.manual_seed(0)
    codes = rng.integers(0, 16, (4, 3, 6, 6))
    x = torch.tensor(codes).float()
    model = calibrate(convert(Residual(), {"default": {"input": "u4.0"}}, x).eval(), [x])
    graph = qfx.lower(model, x[:1])
    wanted = exact(model)(x).numpy()
    assert np.array_equal(graph.evaluate(x.numpy(), "NCHW"), wanted)
    model.shortcut.before, model.shortcut.after = 3, 2
    assert not np.array_equal(exact(model)(x).numpy(), wanted)


def test_a_shortcut_of_exact_products_keeps_their_binary_points(rng) -> None:
    torch.manual_seed(0)
    x = torch.tensor(rng.integers(0, 16, (4, 1, 6, 6))).float()
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), PadShortcut(2, 1, 1))
    model = calibrate(convert(net, {"default": {"input": "u4.0"}}, x).eval(), [x])
    graph = qfx.lower(model, x[:1])
    assert graph.by_name["2"].op == Select((-1, 0, 1, -1)) and graph.by_name["2"].type.fixed.per_channel
    assert np.array_equal(graph.evaluate(x.numpy(), "NCHW"), exact(model)(x).numpy())
