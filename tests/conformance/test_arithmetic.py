"""A trained network of softmax, gates and constants gives one answer in torch, the interpreter, csim and RTL."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.boards import Board
from qfx.emit.rtl import rtl
from qfx.fixed import encode
from qfx.graph import Constant, Graph
from qfx.graph.lower import lower
from qfx.plan import network, plan
from qfx.plan.model import frame_ends
from qfx_sim.design import simulate
from tests.conformance.engines import difference, run_csim
from tests.graph.test_lower import calibrated, first_wrong


class Gated(nn.Module):
    """Squeeze and excitation, spatial attention, a residual of half weight, and a softmax over classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.where = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1)
        self.gamma, self.fc = nn.Parameter(torch.tensor([0.3, 0.7, 1.2]).view(1, 3, 1, 1)), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        y = y * torch.sigmoid(self.where(y))
        y = (x - 0.5 * y) * self.gamma + 0.3
        return F.softmax(self.fc((1 - y).mean((2, 3))), 1)


@pytest.fixture(scope="module")
def gated() -> tuple[nn.Module, Graph, Tensor, np.ndarray]:
    """The network in fixed point, its graph, images and their codes."""
    torch.manual_seed(5)
    x = torch.randint(-8, 8, (6, 2, 5, 4)).float() / 8
    points = {"weight": 5, "activation": 5, "elementwise": 6}
    model = calibrated(Gated(), x, {"default": {**points, "input": "s5.3"}})
    return model, lower(model, x), x, encode(x.permute(0, 2, 3, 1).numpy(), lower(model, x).input.type.fixed)


def test_torch_and_csim_agree_with_the_interpreter(gated: tuple[nn.Module, Graph, Tensor, np.ndarray]) -> None:
    model, graph, x, codes = gated
    assert first_wrong(graph, model, x) is None
    assert difference(graph, codes, run_csim) is None


def test_the_rtl_agrees_in_the_planned_cycles(
    gated: tuple[nn.Module, Graph, Tensor, np.ndarray], tmp_path: Path
) -> None:
    _, graph, _, codes = gated
    made = plan(graph, Board.load("ultra96v2"), 400)
    folder = rtl(graph, made, tmp_path / "rtl")
    golden = graph.evaluate_codes(codes, all_nodes=True)
    found = simulate(folder, codes, golden, every_node=True)
    assert found.difference is None
    assert list(found.ends) == frame_ends(network(graph, made.nodes, made.depths), len(codes))
    table = graph.constants["softmax.exp.table"]
    wrong = replace(graph, constants={**graph.constants, "softmax.exp.table": Constant(table.codes // 2, table.fixed)})
    shown = simulate(folder, codes, wrong.evaluate_codes(codes, all_nodes=True), every_node=True).difference
    assert shown is not None and shown.node == "softmax.exp"
