"""Which widths of a converted network are to be chosen: one for each point of a layer, and for what shares a format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from qfx.errors import TrainError
from qfx.nn.calibrate import quantizers
from qfx.nn.compute import Conv2d, Linear
from qfx.nn.deform import DeformConv2d
from qfx.nn.quantizer import Quantizer
from qfx.nn.recipe import Recipe
from qfx.nn.sharing import used
from qfx.nn.table import Table
from qfx.nn.transposed import ConvTranspose2d

COMPUTE = (Conv2d, ConvTranspose2d, Linear, DeformConv2d)  # layers with weights
BITS = ("weight", "activation")  # points whose widths make weight bits and bit operations
POINTS = (*BITS, "elementwise", "constant")

Place = tuple[str, str]  # the path of a layer, and a point of it


@dataclass(frozen=True)
class Choice:
    """A width that a recipe states at ``places``, for the ``quantizers`` there.

    Layers that share a quantizer have one width; each tensor keeps one format.
    """

    places: tuple[Place, ...]
    quantizers: tuple[str, ...]  # their paths
    free: bool  # whether it is to be chosen
    widths: tuple[int, ...]  # to choose from, the smallest first; the present one where it is not free

    @property
    def name(self) -> str:
        """The path of its first quantizer."""
        return self.quantizers[0]


def choices(
    model: fx.GraphModule, recipe: Mapping[str, Any] | None, points: Sequence[str], widths: Sequence[int]
) -> list[Choice]:
    """Return the choices at ``points``, and at the points of BITS, of what convert made by ``recipe``.

    A width stays where the recipe fixes a binary point or digits, and where a layer was made with a format of its own.
    """
    known, given = quantizers(model), Recipe(recipe)
    targets = {str(node.target) for node in model.graph.nodes if node.op == "call_module"}
    found: list[Choice] = []
    for (path, point), own in _places(model):
        if point not in (*BITS, *points):
            continue
        spec = given.spec(path, point)
        stated = spec.width, spec.frac, spec.digits
        free = point in points and spec.frac is None and spec.digits is None
        for name in own:
            ours = known[name].spec
            free = free and name not in targets and (ours.width, ours.frac, ours.digits) == stated
        new = Choice(((path, point),), own, free, tuple(widths) if free else (known[own[0]].width,))
        joined = [each for each in found if set(each.quantizers) & set(own)]
        found = [each for each in found if each not in joined]
        for each in joined:
            new = _together(each, new)
        found.append(new)
    return found


def require_points(points: Sequence[str], on_board: bool) -> None:
    """Refuse points that have no width to choose, or whose width nothing would count."""
    if not points or any(point not in POINTS for point in points):
        raise TrainError(f"points must be of {', '.join(POINTS)}, not {', '.join(map(str, points)) or 'none'}")
    if others := [point for point in points if point not in BITS and not on_board]:
        raise TrainError(
            f"points must be of {', '.join(BITS)} without hardware, not {others[0]}: no budget of bits counts its "
            "width, so that the largest would always be chosen"
        )


def _together(first: Choice, second: Choice) -> Choice:
    free = first.free and second.free
    names = tuple(dict.fromkeys((*first.quantizers, *second.quantizers)))
    stays = next((each.widths for each in (first, second) if not each.free), first.widths)
    return replace(
        first, places=first.places + second.places, quantizers=names, free=free, widths=first.widths if free else stays
    )


def _places(model: fx.GraphModule) -> Iterator[tuple[Place, tuple[str, ...]]]:
    """Each point of each layer with the paths of its quantizers, in the order of the forward."""
    names = {id(quantizer): name for name, quantizer in quantizers(model).items()}
    targets = dict.fromkeys(str(node.target) for node in model.graph.nodes if node.op == "call_module")
    for path in targets:
        layer = model.get_submodule(path)
        if isinstance(layer, Quantizer) or (isinstance(layer, Table) and layer.offset is not None):
            continue  # the network's input and output; a table whose learned entries are as many as its codes
        if isinstance(layer, COMPUTE):
            for part, inner in layer.named_modules(prefix=path):
                if isinstance(inner, COMPUTE):
                    yield (part, "weight"), (names[id(inner.weight_quant)],)
            yield (path, "activation"), (names[id(layer.input_quant)],)
            continue
        of_layer = [quantizer for _, quantizer in used(layer)]
        for point, axis in (("elementwise", 1), ("constant", 0)):
            own = dict.fromkeys(names[id(each)] for each in of_layer if each.axis == axis)
            if own and (axis or all(each.constant for each in of_layer if each.axis == 0)):
                yield (path, point), tuple(own)
