"""What a traced graph does not show: a tensor changed in place and read again, a forward that depends on its mode."""

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from qfx.errors import LowerError
from qfx.nn.inputs import taken
from qfx.nn.shapes import Recorder
from qfx.nn.spelling import RANDOM
from qfx.nn.trace import call_name, node_path

_OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def refuse_in_place(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Raise LowerError where a tensor that was changed in place is read afterwards, and name every such place."""
    order = {node: number for number, node in enumerate(graph.nodes)}
    lines = []
    for node in graph.nodes:
        changed = node.args[0] if node.args and _is_in_place(node, modules) else None
        readers = [user for user in changed.users if call_name(user) != "size"] if isinstance(changed, fx.Node) else []
        if any(order[reader] > order[node] for reader in readers):
            lines.append(
                f"  {node_path(node)}: it changes in place a tensor that is read again: use the operation that is not "
                "in place, and its result"
            )
    if lines:
        raise LowerError("the model must not read a tensor after changing it in place, but does:\n" + "\n".join(lines))


@torch.no_grad()
def require_same(model: nn.Module, traced: fx.GraphModule, example: Tensor) -> None:
    """Raise LowerError if the trace of a model of one input does not compute what the model does in evaluation.

    The nodes of the trace know their shapes then. A trace with random calls, which are refused later, is not compared.

    Args:
        example: gives the shape; the values are random.
    """
    if sum(node.op == "placeholder" for node in traced.graph.nodes) != 1:
        return
    x = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    original, training = copy.deepcopy(model).eval(), traced.training
    with taken(x, LowerError):
        expected = original(x.clone())
    ran = True
    try:
        found = Recorder(traced.eval()).run(x.clone())
    except RuntimeError:  # sizes of another batch stand in it
        ran = False
    traced.train(training)
    if any(_is_random(node) for node in traced.graph.nodes):
        return
    if not ran or (isinstance(expected, Tensor) and not _close(found, expected)):
        raise LowerError(
            f"the forward of {type(model).__name__} must be what torch.fx sees of it, but gives other values: it "
            "changes a tensor in place that another name stands for, branches on self.training, drops values in "
            "evaluation, or depends on how many inputs a batch has: write it without"
        )


def _close(found: Any, expected: Tensor) -> bool:
    alike = isinstance(found, Tensor) and found.shape == expected.shape
    return alike and torch.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def _is_random(node: fx.Node) -> bool:
    """Whether a call gives other values each time; a dropout that follows its module's mode does not, see Tracer."""
    return call_name(node) in RANDOM and node.kwargs.get("training") is not False


def _is_in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return getattr(modules.get(str(node.target)), "inplace", False) is True
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    underscored = name.endswith("_") and not name.endswith("__")
    return underscored or node.target in _OPERATORS or node.kwargs.get("inplace") is True
