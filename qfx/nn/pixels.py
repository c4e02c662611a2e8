"""Which features of a traced network stay an image, since an image is made of them again."""

from typing import Any

from torch import fx, nn

from qfx.nn.compute import Linear
from qfx.nn.elementwise import Flatten, Hardtanh, ReLU
from qfx.nn.moves import Detach, Unflatten
from qfx.nn.quantizer import Quantizer
from qfx.nn.rescale import Scale
from qfx.nn.table import Table
from qfx.nn.tracer import NEUTRAL

_ALIKE = (*NEUTRAL, Detach, Quantizer, ReLU, Hardtanh, Table, Scale)  # a function of each element alone


def kept_images(graph: fx.Graph, modules: dict[str, nn.Module]) -> frozenset[fx.Node]:
    """Return the nodes of features, (N, C) in torch, that stay an image since an Unflatten makes one of them.

    They are what it reads, back to the Flatten before, which then does nothing: a Linear on the way is a convolution
    whose window is the image. What else reads them stays an image too, up to the next Linear, which flattens it.
    """
    found: set[fx.Node] = set()
    waiting = [source for node in graph.nodes if _is(node, Unflatten, modules) for source in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in found or node.op == "output":
            continue
        found.add(node)
        if not _is(node, Flatten | nn.Flatten, modules):
            waiting += node.all_input_nodes
        waiting += [user for user in node.users if not _is(user, Linear | Unflatten, modules)]
    return frozenset(found)


def reaches_linears(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether all that reads features is a Linear in the end, with functions of each element before it."""
    return all(
        _is(user, Linear, modules) or (_is(user, _ALIKE, modules) and reaches_linears(user, modules))
        for user in node.users
    )


def _is(node: fx.Node, kinds: Any, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], kinds)
