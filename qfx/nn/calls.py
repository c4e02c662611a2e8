"""How convert makes calls of several tensors fixed-point layers: sums and concatenations."""

from torch import fx

from qfx.nn.conversion import Conversion
from qfx.nn.elementwise import Add, Concat
from qfx.nn.shapes import unjoinable, unlike
from qfx.nn.spelling import is_sum, joined, joins_channels


def convert_call(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put a layer at ``path`` in the place of a call of several tensors, and return whether it was one."""
    if is_sum(node):
        _add(conversion, node, path)
    elif operands := joined(node):
        _concat(conversion, node, path, operands)
    else:
        return False
    return True


def _add(conversion: Conversion, node: fx.Node, path: str) -> None:
    a, b = node.args[:2]
    assert isinstance(a, fx.Node) and isinstance(b, fx.Node)
    spec = conversion.recipe.spec(path, "elementwise")
    layer = Add(operand_spec=spec, output_spec=spec)
    new = conversion.replace(node, path, layer, a, b)
    if reason := unlike(conversion.module, a, b):
        conversion.problems[new] = reason
    conversion.enter(new, layer, path, "elementwise", "a_quant", 0)
    conversion.enter(new, layer, path, "elementwise", "b_quant", 1)
    operands = {"a_quant": layer.a_quant, "b_quant": layer.b_quant}
    layer.settled = frozenset(
        name for name, source in zip(operands, (a, b), strict=True) if conversion.left.get(source) is operands[name]
    )
    conversion.leave(new, layer)


def _concat(conversion: Conversion, node: fx.Node, path: str, operands: list[fx.Node]) -> None:
    if joins_channels(node, conversion.rank(operands[0])):
        new, reason = conversion.replace(node, path, Concat(), *operands), unjoinable(conversion.module, operands)
    else:
        new, reason = node, "it must join channels: torch.cat(tensors, 1)"
    if reason:
        conversion.problems[new] = reason
