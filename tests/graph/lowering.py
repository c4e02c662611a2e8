"""What tests of lowering share: networks in fixed point, and whether a graph has their integers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.graph import Graph
from qfx.graph.torch_values import node_codes


def calibrated(model: nn.Module, x: Tensor, recipe: dict | None = None) -> nn.Module:
    """The model in fixed point, its BatchNorm statistics those of ``x``."""
    model.train()
    for _ in range(5):
        model(x)
    converted = qnn.convert(model.eval(), recipe, x)
    return qnn.calibrate(converted, [x]).eval()


def made(net: type[nn.Module], recipe: dict | None = None) -> tuple[nn.Module, nn.Module, Tensor]:
    """A float network that states the shape of its inputs as ``reads``, it in fixed point, and a batch."""
    torch.manual_seed(2)
    x, network = torch.rand(6, *net.reads) * 4 - 1, net()
    return network, calibrated(network, x, recipe), x


def equals_torch(graph: Graph, model: nn.Module, x: Tensor) -> bool:
    """Whether all results, one or several, have the values and shapes of exact evaluation."""
    found, wanted = graph.evaluate(x.numpy(), "NCHW"), qnn.exact(model)(x)
    pairs = [(found, wanted)] if isinstance(wanted, Tensor) else zip(found.values(), wanted, strict=True)
    return all(np.array_equal(one, other.numpy()) for one, other in pairs)


def torch_codes(graph: Graph, model: nn.Module, x: Tensor) -> dict[str, np.ndarray]:
    return node_codes(graph, {call: value.numpy() for call, value in qnn.exact_values(model)(x).items()})


def first_wrong(graph: Graph, model: nn.Module, x: Tensor) -> str | None:
    """The first node at which the graph parts from torch, of those that stand for a layer or a quantizer."""
    trained = torch_codes(graph, model, x)
    computed = graph.evaluate_codes(graph.encode(x.numpy(), "NCHW"), all_nodes=True)
    return next(
        (n.name for n in graph.nodes if n.name in trained and (trained[n.name] != computed[n.name]).any()), None
    )


def changed(graph: Graph, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Graph:
    """The graph with other codes in one constant."""
    constant = graph.constants[name]
    return replace(graph, constants={**graph.constants, name: replace(constant, codes=change(constant.codes))})
