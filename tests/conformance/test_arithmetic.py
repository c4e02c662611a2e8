"""Networks of operations that the graph spells out give one answer in torch, the interpreter, csim and RTL."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.boards import Board
from qfx.emit.rtl import rtl
from qfx.graph import Graph
from qfx.graph.lower import lower
from qfx.graph.ops import Clamp, Op, Select
from qfx.plan import network, plan
from qfx.plan.model import frame_ends
from qfx.steps.compare import first_mismatch
from qfx_sim.design import simulate
from tests.conformance.engines import Codes, interpreter, run_csim
from tests.graph.lowering import calibrated, changed, first_wrong


class Gated(nn.Module):
    """Squeeze and excitation, spatial attention, a residual of half weight, and a softmax over classes."""

    reads = (2, 5, 4)

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


class Halved(nn.Module):
    """Gated halves, the smaller and the larger of two, one of them broadcast, pixels into channels, and maxout."""

    reads = (2, 6, 4)

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.conv, self.fc = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 3, 1), nn.Linear(12, 6)
        self.gate, self.pixels = nn.GLU(1), nn.PixelUnshuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.minimum(self.gate(self.wide(x)), self.conv(x))
        x = torch.maximum(x.mean((2, 3), keepdim=True), x)
        return torch.max(*self.fc(F.relu(self.pixels(x)).mean((2, 3))).chunk(2, 1))


Change = Callable[[Graph], Graph]


def with_op(graph: Graph, name: str, op: Op) -> Graph:
    nodes = (replace(node, op=op) if node.name == name else node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


FAULTS: dict[type[nn.Module], dict[str, Change]] = {  # by the node that has it
    Gated: {"softmax.exp": lambda graph: changed(graph, "softmax.exp.table", lambda codes: codes // 2)},
    Halved: {
        # The other half; the larger for the smaller, and the other way round; pixels first, then channels.
        "gate.getitem": lambda graph: with_op(graph, "gate.getitem", Select((3, 4, 5))),
        "minimum.beyond": lambda graph: with_op(graph, "minimum.beyond", Clamp(0, 127)),
        "maximum.beyond": lambda graph: with_op(graph, "maximum.beyond", Clamp(-64, 0)),
        "pixels.getitem_4": lambda graph: with_op(graph, "pixels.getitem_4", Select(tuple(range(12)))),
        "max.negative": lambda graph: changed(graph, "max.negative.scale", np.negative),
    },
}


class Lowered(NamedTuple):
    """A network in fixed point, its graph, inputs and their codes, what each node must give, and what faults give."""

    model: nn.Module
    graph: Graph
    x: Tensor
    codes: np.ndarray
    golden: Codes
    faults: dict[str, Graph]


@pytest.fixture(scope="module", params=FAULTS, ids=lambda net: net.__name__.lower())
def lowered(request: pytest.FixtureRequest) -> Lowered:
    torch.manual_seed(5)
    x = torch.randint(-8, 8, (6, *request.param.reads)).float() / 8
    points = {"weight": 5, "activation": 5, "elementwise": 6}
    model = calibrated(request.param(), x, {"default": {**points, "input": "s5.3"}})
    graph = lower(model, x)
    codes = graph.encode(x.numpy(), "NCHW")
    faults = {node: plant(graph) for node, plant in FAULTS[request.param].items()}
    return Lowered(model, graph, x, codes, interpreter(graph, codes), faults)


def test_torch_and_csim_agree_with_the_interpreter(lowered: Lowered) -> None:
    model, graph, x, codes, golden, faults = lowered
    assert first_wrong(graph, model, x) is None
    found = run_csim(graph, codes)
    assert first_mismatch(graph, golden, found, "csim") is None
    for node, wrong in faults.items():
        assert first_wrong(wrong, model, x) is not None
        shown = first_mismatch(wrong, interpreter(wrong, codes), found, "csim")
        assert shown is not None and shown.node == node


def test_the_rtl_agrees_in_the_planned_cycles(lowered: Lowered, tmp_path: Path) -> None:
    _, graph, _, codes, golden, faults = lowered
    made = plan(graph, Board.load("ultra96v2"), 400)
    folder = rtl(graph, made, tmp_path / "rtl")
    found = simulate(folder, codes, golden, every_node=True)
    assert found.difference is None
    assert list(found.ends) == frame_ends(network(graph, made.nodes, made.depths), len(codes))
    for node, wrong in faults.items():
        shown = simulate(folder, codes, interpreter(wrong, codes), every_node=True).difference
        assert shown is not None and shown.node == node
