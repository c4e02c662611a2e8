"""What convert made of each layer and call of a network, and the formats at its quantization points, in a table."""

from dataclasses import dataclass

from torch import nn

from qfx.errors import LowerError
from qfx.nn.calibrate import quantizers
from qfx.nn.quantizer import Quantizer
from qfx.nn.sharing import used

WAS = "qfx_was"  # key of a converted module's meta: torch's layer or call by path
_GONE = "nothing"


@dataclass(frozen=True)
class Row:
    """One layer or call."""

    path: str
    was: str  # torch's layer or call; "" for the quantizers of input and output, and in a model that was pickled
    became: str  # a layer of qfx.nn, "nothing", or the path of the layer that it was folded into
    points: dict[str, str]  # format or width by quantization point


@dataclass(frozen=True)
class Description:
    """The rows, in the order of the forward; as text, a table."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        head = ("path", "was", "became", "formats")
        lines = [head, *((row.path, row.was, row.became, _points(row)) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        return "\n".join(
            "  ".join((*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3])).rstrip()
            for line in lines
        )


def describe(model: nn.Module) -> Description:
    """Return what became of every layer and call of a model that convert made, with the formats it has now.

    Raises:
        LowerError: the model is not what convert returned.
    """
    was: dict[str, str] = getattr(model, "meta", {}).get(WAS, {})
    graph = getattr(model, "graph", None)
    if graph is None or not quantizers(model):
        raise LowerError(f"the model must be what qfx.convert returned, not a {type(model).__name__}")
    names = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    kept = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    folded = {id(norm): path for path in kept for norm in getattr(model.get_submodule(path), "norm", ())}
    gone = [Row(path, name, _fate(model, path, folded), {}) for path, name in was.items() if path not in kept]
    return Description(tuple([_row(model, path, was.get(path, ""), names) for path in kept] + gone))


def _row(model: nn.Module, path: str, was: str, names: dict[int, str]) -> Row:
    layer = model.get_submodule(path)
    points = {"": _format(layer)} if isinstance(layer, Quantizer) else {}
    for name, quantizer in used(layer):
        owner, own = names[id(quantizer)], f"{path}.{name}"
        place = name.removesuffix("_quant")
        points[place] = _format(quantizer) + ("" if owner == own else f" of {owner.removesuffix('_quant')}")
    return Row(path, was, type(layer).__name__, points)


def _format(quantizer: Quantizer) -> str:
    """The format, or the width where there is none yet; of different binary points the least and the largest."""
    if not quantizer.calibrated:
        return f"{quantizer.width} bits"
    form = quantizer.format()
    if not form.per_channel:
        return str(form)
    fracs = form.fracs(quantizer.frac.numel())
    low, high = fracs.min(), fracs.max()
    return f"{'s' if form.signed else 'u'}{form.width}.{low if low == high else f'[{low}..{high}]'}"


def _fate(model: nn.Module, path: str, folded: dict[int, str]) -> str:
    """What became of a layer that is not called any more."""
    layer = dict(model.named_modules()).get(path)
    return f"folded into {folded[id(layer)]}" if id(layer) in folded else _GONE


def _points(row: Row) -> str:
    return ", ".join(f"{name} {form}".strip() for name, form in row.points.items())
