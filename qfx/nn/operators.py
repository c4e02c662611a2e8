"""How convert makes arithmetic of tensors and constants fixed-point layers: ``a + b``, ``a * b``, ``1 - x``."""

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx

from qfx.nn.conversion import Conversion
from qfx.nn.elementwise import Add, Joint
from qfx.nn.extremes import Maximum, Minimum
from qfx.nn.multiply import Multiply
from qfx.nn.quantizer import Quantizer
from qfx.nn.rescale import Held, Known, Rescale, Scale, exponents
from qfx.nn.shapes import flattened_from, unlike
from qfx.nn.trace import call_name

_OPERATIONS = {
    **dict.fromkeys(("add", "iadd"), "add"),
    **dict.fromkeys(("sub", "isub", "subtract", "rsub"), "sub"),
    **dict.fromkeys(("mul", "imul", "multiply"), "mul"),
    **dict.fromkeys(("div", "truediv", "itruediv", "divide", "true_divide"), "div"),
    **dict.fromkeys(("neg", "negative"), "neg"),
    **dict.fromkeys(("square", "pow"), "pow"),
    **dict.fromkeys(("max", "maximum"), "max"),
    **dict.fromkeys(("min", "minimum"), "min"),
}
_PAIRS: dict[str, type[Joint]] = {"mul": Multiply, "max": Maximum, "min": Minimum}
_RESHAPES = ("view", "reshape", "unsqueeze", "squeeze", "flatten", "getitem", "contiguous")
NUMBER = "_tensor_constant"  # what torch calls tensors that a forward makes itself


def convert_operator(conversion: Conversion, node: fx.Node, path: str) -> bool:
    """Put layers at ``path`` in the place of an arithmetic operation, and return whether it was one that has a form."""
    operation, operands = _OPERATIONS.get(call_name(node)), list(node.args)
    if operation is None or node.kwargs or len(operands) > 2:
        return False
    if call_name(node) == "rsub":
        operands.reverse()
    known = [_known(conversion, operand) for operand in operands]
    tensors = [operand for operand, value in zip(operands, known, strict=True) if value is None]
    if not tensors or not all(isinstance(tensor, fx.Node) and _of_input(tensor) for tensor in tensors):
        return False
    match operation, known:
        case "neg", [None]:
            _scale(conversion, node, path, tensors[0], torch.tensor([-1.0]))
        case "pow", [None] | [None, Tensor()]:
            if len(known) == 2 and not torch.equal(known[1], torch.tensor([2.0])):
                return False
            _pair(conversion, node, path, Multiply, tensors[0], tensors[0])
        case "add", [None, None]:
            _pair(conversion, node, path, Add, *tensors)
        case "sub", [None, None]:
            negative = conversion.insert(conversion.free(f"{path}_negative"), Scale(0, True), tensors[1], tensors[1])
            negative.meta = dict(tensors[1].meta)
            _pair(conversion, node, path, Add, tensors[0], negative)
        case (("mul" | "max" | "min"), [None, None]):
            _pair(conversion, node, path, _PAIRS[operation], *tensors)
        case ("add" | "sub" | "mul" | "div", [None, constant] | [constant, None]) if constant is not None:
            return _with_constant(conversion, node, path, operation, tensors[0], known)
        case _:
            return False
    return True


def _pair(conversion: Conversion, node: fx.Node, path: str, kind: type[Joint], a: fx.Node, b: fx.Node) -> None:
    spec = conversion.recipe.spec(path, "elementwise")
    layer = kind(operand_spec=spec, output_spec=spec)
    new = conversion.replace(node, path, layer, a, b)
    if reason := unlike(conversion.module, a, b):
        conversion.problems[new] = reason
    conversion.enter(new, layer, path, "elementwise", "a_quant", 0)
    conversion.enter(new, layer, path, "elementwise", "b_quant", 1)
    operands: dict[str, Quantizer] = {"a_quant": layer.a_quant, "b_quant": layer.b_quant}
    layer.settled = frozenset(
        name for name, source in zip(operands, (a, b), strict=True) if conversion.left.get(source) is operands[name]
    )
    conversion.leave(new, layer)


def _with_constant(
    conversion: Conversion, node: fx.Node, path: str, operation: str, x: fx.Node, known: list[Known | None]
) -> bool:
    """Put the product, quotient, sum or difference of a tensor and a constant in place; False: ``constant / x``."""
    first = known[0] is None
    constant = next(value for value in known if value is not None)
    if operation == "div" and not first:
        return False
    if operation in ("mul", "div") and not _real(constant).any():
        conversion.problems[node] = "its constant must not be 0"
        return True
    if reason := _unfit(conversion, node, x, constant):
        conversion.problems[node] = reason
        return True
    one, none = torch.ones(1), torch.zeros(1)
    match operation, first:
        case "mul", _:
            scale, shift = constant, none
        case "div", _:
            scale, shift = _of(constant, torch.reciprocal), none
        case "sub", True:
            scale, shift = one, _of(constant, torch.neg)
        case "sub", False:
            scale, shift = -one, constant
        case _:
            scale, shift = one, constant
    if shift is none and isinstance(scale, Tensor) and scale.numel() == 1 and exponents(scale) is not None:
        _scale(conversion, node, path, x, scale)
        return True
    recipe = conversion.recipe
    layer = Rescale(
        scale, shift, constant_spec=recipe.spec(path, "constant"), output_spec=recipe.spec(path, "elementwise")
    )
    conversion.leave(conversion.replace(node, path, layer, x), layer)
    return True


def _scale(conversion: Conversion, node: fx.Node, path: str, x: fx.Node, factor: Tensor) -> None:
    powers = exponents(factor)
    assert powers is not None
    conversion.replace(node, path, Scale(powers[0], bool(factor < 0)), x)


def _of(constant: Known, function: Callable[[Tensor], Tensor]) -> Known:
    return function(constant) if isinstance(constant, Tensor) else Held(constant.owner, constant.name, function)


def _unfit(conversion: Conversion, node: fx.Node, x: fx.Node, constant: Known) -> str | None:
    """Return why a constant cannot be one of each channel, or None."""
    if not _real(constant).isfinite().all():
        return "its constant must be finite, not NaN or infinity"
    if _real(constant).numel() == 1:
        return None
    rank = conversion.rank(x)
    shape = _shape(conversion, next(arg for arg in node.args if arg is not x))
    if rank is None:
        return "its constant must be a number, unless convert is given an example, which tells the tensor's axes"
    axes = [1] * (rank - len(shape)) + shape
    if len(shape) > rank or any(size != 1 for axis, size in enumerate(axes) if axis != 1):
        return (
            f"its constant must have one value, or one for each channel, of shape (1, C{', 1' * (rank - 2)}), not "
            f"{tuple(shape)}"
        )
    if flattened_from(conversion.module, x):
        return "it must not read a flattened image: put it before the Flatten"
    return None


def _real(constant: Known) -> Tensor:
    return constant if isinstance(constant, Tensor) else constant().detach()


def _known(conversion: Conversion, operand: object) -> Known | None:
    """Return the constant that an operand is, None for a tensor that the network computes."""
    if isinstance(operand, int | float) and not isinstance(operand, bool):
        return torch.tensor([float(operand)])
    if not isinstance(operand, fx.Node):
        return None
    source = _source(operand)
    if source.op != "get_attr":
        return None
    path, _, name = str(source.target).rpartition(".")
    owner, value = conversion.module.get_submodule(path), _value(conversion, operand)
    if name.startswith(NUMBER):
        return value.flatten().float()
    return Held(owner, name) if value.numel() == getattr(owner, name).numel() else None


def views_constant(node: fx.Node) -> bool:
    """Return whether a call only gives another shape to what a module holds."""
    return node.op != "get_attr" and _source(node).op == "get_attr"


def _of_input(node: fx.Node) -> bool:
    """Whether a tensor depends on the network's input, not on parameters alone."""
    return node.op in ("placeholder", "call_module") or any(map(_of_input, node.all_input_nodes))


def _source(node: fx.Node) -> fx.Node:
    """What a node is a view of."""
    while node.op in ("call_method", "call_function") and call_name(node) in _RESHAPES:
        if len(node.all_input_nodes) != 1:
            break
        node = node.all_input_nodes[0]
    return node


def _value(conversion: Conversion, node: fx.Node) -> Tensor:
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(conversion.module).detach()
    x, rest = _value(conversion, node.all_input_nodes[0]), node.args[1:]
    return getattr(x, str(node.target))(*rest) if node.op == "call_method" else node.target(x, *rest)  # type: ignore


def _shape(conversion: Conversion, operand: object) -> list[int]:
    return list(_value(conversion, operand).shape) if isinstance(operand, fx.Node) else []
