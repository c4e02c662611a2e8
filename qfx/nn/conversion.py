"""One conversion of a traced model: its graph being rewritten, its quantization points, and what was found wrong."""

from dataclasses import dataclass

from torch import fx, nn

from qfx.nn.compute import Conv2d, Linear
from qfx.nn.elementwise import Flatten
from qfx.nn.geometry import NO_PADDING, Quad, added
from qfx.nn.moves import Unflatten
from qfx.nn.quantizer import Quantizer
from qfx.nn.recipe import Recipe
from qfx.nn.shapes import shape_of
from qfx.nn.sharing import share
from qfx.nn.trace import call_name, is_layer
from qfx.nn.transposed import ConvTranspose2d


@dataclass(frozen=True)
class Reduction:
    """A sum, mean or largest value over ``axes`` of a tensor of ``rank`` axes, as a call asks for it."""

    kind: str  # sum, mean, max
    source: fx.Node
    axes: tuple[int, ...]
    rank: int | None
    keepdim: bool


class Conversion:
    """What the parts of convert share: the module being rewritten, and what they found wrong with it."""

    def __init__(self, module: fx.GraphModule, recipe: Recipe) -> None:
        self.module, self.graph, self.recipe = module, module.graph, recipe
        self.problems: dict[fx.Node, str] = {}
        self.quantizers: dict[tuple[fx.Node, str], Quantizer] = {}
        self.left: dict[fx.Node, Quantizer] = {}  # the quantizer that a layer's result has just left
        self.declared: set[fx.Node] = set()  # results of the network's input quantizers
        self.padding: dict[fx.Node, Quad] = {}  # zeros that wait for the convolutions and pools that read them
        self.reduced: dict[
            fx.Node, Reduction
        ] = {}  # axes that a reduction takes away, until a call behind it tells more
        self.called: set[str] = set()
        self.floats = dict(module.named_modules())
        self.paths: dict[fx.Node, str] = {}  # the paths at which calls would stand that are refused
        self.was: dict[str, str] = {}  # by path: the torch layer or call that stood there

    # Places -------------------------------------------------------------------------------------------------------

    def free(self, path: str) -> str:
        """A module path that is not taken yet: ``path``, or it with _1, _2, ... behind."""
        module = self.module
        named = (module.named_modules(), module.named_parameters(), module.named_buffers())
        taken = {name for names in named for name, _ in names} | {*self.paths.values()}
        number, free = 0, path
        while free in taken:
            number += 1
            free = f"{path}_{number}"
        return free

    def insert(self, path: str, layer: nn.Module, after: fx.Node, *inputs: fx.Node) -> fx.Node:
        """Put a layer at ``path`` into the module, and return its call behind the node ``after``."""
        self.module.add_submodule(path, layer)
        with self.graph.inserting_after(after):
            return self.graph.call_module(path, inputs)

    def replace(self, node: fx.Node, path: str, layer: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Put a layer at ``path`` in the place of ``node``, and return its call."""
        new = self.insert(path, layer, node, *inputs)
        new.meta, self.was[path] = node.meta, call_name(node)
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        return new

    def rank(self, node: fx.Node) -> int | None:
        """How many axes a tensor has, as far as the layers and the example tell."""
        shape = shape_of(node)
        if shape is not None:
            return len(shape) + 1
        layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Linear | Flatten):
            return 2
        if isinstance(layer, Conv2d | ConvTranspose2d):
            return layer.weight.dim()
        if isinstance(layer, Unflatten):
            return 2 + layer.axes
        known = layer is not None and (is_layer(layer) or node in self.padding)
        return self.rank(node.all_input_nodes[0]) if known else None

    # Quantization points ------------------------------------------------------------------------------------------

    def enter(self, node: fx.Node, layer: nn.Module, path: str, point: str, name: str, index: int = 0) -> None:
        """Let ``layer.<name>`` be the quantizer that its input tensor already has at this point, if there is one."""
        source = node.args[index]
        assert isinstance(source, fx.Node)
        own: Quantizer = getattr(layer, name)
        if source in self.declared and not self.recipe.names(path, point):
            own_or_shared = self.module.get_submodule(str(source.target))
        else:
            own_or_shared = self.quantizers.setdefault((source, point), own)
        assert isinstance(own_or_shared, Quantizer)
        if own_or_shared is own:
            return
        if own_or_shared.spec != own.spec and source not in self.declared:
            if point == "activation":
                self.problems[node] = (
                    f"its input must have one format at point 'activation' for all its consumers, but the recipe says "
                    f"{own.spec.width} bits here and {own_or_shared.spec.width} elsewhere"
                )
            return
        share(layer, name, own_or_shared)

    def leave(self, node: fx.Node, layer: nn.Module) -> None:
        """Note the quantizer, if any, that the result of ``node`` comes from."""
        quantizer = getattr(layer, "output_quant", None)
        if quantizer is not None:
            self.quantizers[node, "elementwise"] = self.left[node] = quantizer

    def before_padding(self, node: fx.Node) -> fx.Node:
        """What a node reads but for zeros that stand before it."""
        source = node.args[0]
        while source in self.padding:
            source = source.args[0]
        assert isinstance(source, fx.Node)
        return source

    def take_padding(self, node: fx.Node) -> Quad:
        """The zeros that stand before a node; it reads what is before them from now on."""
        total = NO_PADDING
        while (source := node.args[0]) in self.padding:
            assert isinstance(source, fx.Node)
            total = added(total, self.padding[source])
            node.update_arg(0, source.args[0])
        return total
