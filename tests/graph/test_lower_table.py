"""Functions that become tables: torch, the graph, the C++ and the RTL have the same integers, for each of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.boards import Board
from qfx.emit.rtl import rtl
from qfx.graph import Graph
from qfx.graph.lower import lower
from qfx.graph.ops import Lookup
from qfx.nn.table import FUNCTIONS
from qfx.plan import plan
from qfx.steps.compare import Mismatch, first_mismatch
from qfx_sim.design import Difference, simulate
from tests.conformance.engines import run_csim
from tests.graph.lowering import calibrated, changed, equals_torch, first_wrong


class Slopes(nn.Module):
    """A PReLU with a slope for each channel, behind a signed and behind an unsigned tensor, on 3x3x4 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.mix, self.positive = nn.PReLU(3), nn.Conv2d(3, 3, 1), nn.PReLU(3)
        nn.init.uniform_(self.act.weight, -0.8, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(torch.relu(self.mix(self.act(x))))


class Functions(nn.Module):
    """Every function behind a convolution or a BatchNorm, on 3x3x4 inputs; the last ones behind a Flatten."""

    def __init__(self) -> None:
        super().__init__()
        functions = [nn.Threshold(0.1, -0.2) if kind is nn.Threshold else kind() for kind in FUNCTIONS]
        self.act = nn.ModuleList(functions)
        self.mix = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in functions[:-2])
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(3 * 3 * 4, 4)
        for mix in self.mix:
            nn.init.orthogonal_(mix.weight, 1.6)

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for number, (mix, act) in enumerate(zip(self.mix, self.act, strict=False)):
            x = act(mix(x + start if number % 4 == 3 else x))  # so that late functions see many values too
        return self.act[-1](self.fc(self.act[-2](self.norm(x)).flatten(1)))


def lowered(elementwise: int = 7, net: type[nn.Module] = Functions) -> tuple[Graph, nn.Module, Tensor]:
    torch.manual_seed(4)
    x = torch.rand(8, 3, 3, 4) * 4 - 2
    model = calibrated(net(), x, {"default": {"weight": 5, "activation": 6, "elementwise": elementwise}})
    return lower(model, x), model, x


def differences(graph: Graph, wanted: Graph, x: Tensor, folder: Path) -> list[Mismatch | Difference | None]:
    """Where the C++ and the RTL of a graph first differ from what the interpreter computes for ``wanted``."""
    codes = wanted.encode(x.numpy(), "NCHW")
    golden = wanted.evaluate_codes(codes, all_nodes=True)
    made = rtl(graph, plan(graph, Board.load("ultra96v2"), 200), folder / "rtl")
    found = first_mismatch(wanted, golden, run_csim(graph, codes), "csim")
    return [found, simulate(made, codes, golden, every_node=True).difference]


@pytest.mark.parametrize("elementwise", [3, 7, 12])
def test_the_graph_has_the_integers_of_torch_at_every_function(elementwise: int) -> None:
    graph, model, x = lowered(elementwise)
    assert sum(isinstance(node.op, Lookup) for node in graph.nodes) == len(FUNCTIONS)
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None
    assert torch.equal(model(x).double(), qnn.exact(model)(x))
    table = f"{next(node.name for node in graph.nodes if isinstance(node.op, Lookup))}.table"
    shifted = changed(graph, table, lambda codes: codes[[*range(1, len(codes)), 0]])
    assert first_wrong(shifted, model, x) == table.removesuffix(".table")


@pytest.mark.parametrize("elementwise", [3, 8, 14])
def test_a_slope_for_each_channel_is_exact(elementwise: int, tmp_path: Path) -> None:
    graph, model, x = lowered(elementwise, Slopes)
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None
    assert torch.equal(model(x).double(), qnn.exact(model)(x))
    wrong = changed(graph, "act.sloped.scale", lambda codes: codes[[1, 0, 2]])
    assert first_wrong(wrong, model, x) == "act.out"
    if elementwise == 8:
        assert differences(graph, graph, x, tmp_path) == [None, None]


def test_csim_and_rtl_have_the_integers_of_every_function_and_a_wrong_entry_shows(tmp_path: Path) -> None:
    graph, _, x = lowered()
    golden = graph.evaluate_codes(graph.encode(x.numpy(), "NCHW"), all_nodes=True)
    functions = [node.name for node in graph.nodes if isinstance(node.op, Lookup)]
    assert min(len(np.unique(golden[name])) for name in functions) > 8
    assert differences(graph, graph, x, tmp_path) == [None, None]
    victim = functions[0]
    wrong = changed(graph, f"{victim}.table", lambda entries: entries ^ (entries == golden[victim].flat[0]))
    assert [found.node for found in differences(wrong, graph, x, tmp_path) if found] == [victim, victim]


def test_a_hand_written_table_called_twice_and_a_width_that_learning_took_away() -> None:
    layer = qnn.Table(torch.exp, input_spec=qnn.Spec(6, 3, True), output_spec=qnn.Spec(7, 4, False))
    nothing = qnn.Table(torch.cos, input_spec=qnn.Spec(0, 3, True), output_spec=qnn.Spec(4, 2, True))
    model = nn.Sequential(qnn.Quantizer(qnn.Spec(8, 4, True)), layer, layer, nothing).eval()
    x = torch.linspace(-8, 7, 60).reshape(5, 3, 2, 2)
    graph = lower(model, x)
    assert equals_torch(graph, model, x) and first_wrong(graph, model, x) is None
    assert (graph.evaluate(x.numpy(), "NCHW") == 1.0).all()
