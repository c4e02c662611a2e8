"""How convert makes calls of several tensors fixed-point layers: arithmetic and concatenations."""

from torch import fx

from qfx.nn.conversion import Conversion
from qfx.nn.elementwise import Concat
from qfx.nn.operators import convert_operator, views_constant
from qfx.nn.shapes import unjoinable
from qfx.nn.spelling import joined, joins_channels


def convert_call(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put a layer at ``path`` in the place of a call of several tensors, and return whether it was one.

    A view of a constant stays, until the layer that takes the constant is found.
    """
    if views_constant(node) or convert_operator(conversion, node, path):
        return True
    if operands := joined(node):
        _concat(conversion, node, path, operands)
        return True
    return False


def _concat(conversion: Conversion, node: fx.Node, path: str, operands: list[fx.Node]) -> None:
    if joins_channels(node, conversion.rank(operands[0])):
        new, reason = conversion.replace(node, path, Concat(), *operands), unjoinable(conversion.module, operands)
    else:
        new, reason = node, "it must join channels: torch.cat(tensors, 1)"
    if reason:
        conversion.problems[new] = reason
