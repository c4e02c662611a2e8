"""from_brevitas: the walk over a Brevitas network, in which each layer or call gives way to layers of qfx.nn."""

import copy
from typing import Any, Literal

import brevitas.nn as bnn
import torch
from brevitas.quant_tensor import QuantTensor
from torch import Tensor, fx, nn

from qfx.arguments import require_kind
from qfx.errors import LowerError, QfxError
from qfx.interop.brevitas.formats import Held
from qfx.interop.brevitas.layers import (
    LAYERS,
    REMEDIES,
    UNKNOWN,
    Chain,
    NotAtFault,
    Site,
    cat,
    forgets,
    known,
    torch_sum,
)
from qfx.interop.brevitas.norms import NORMS, keep_norm, merge_norms
from qfx.nn.calibrate import name_quantizers
from qfx.nn.inputs import require_model
from qfx.nn.quantizer import Quantizer
from qfx.nn.sharing import share
from qfx.nn.spelling import as_modules, is_sum, joined, joins_channels
from qfx.nn.trace import call_name, node_path, refuse_taken_names, scope

_OF_SIZE = (bnn.QuantConvTranspose1d, bnn.QuantConvTranspose2d)  # their call may name the size of the result
_ASKED = ("size", "getattr", "getitem")  # calls whose result only a view needs


def from_brevitas(
    model: nn.Module,
    example: Tensor | None = None,
    batch_norm: Literal["refuse", "merge", "keep"] = "refuse",
) -> nn.Module:
    """Return a copy of a trained Brevitas network whose layers are those of qfx.nn, calibrated and in evaluation mode.

    Its results equal Brevitas' own, and it can be lowered, evaluated exactly and trained on: weights keep their float
    masters, binary points become learnable. Each convolution and dense layer needs a quantized input.

    Args:
        example: an input, where a format depends on the size of an image (TruncAdaptiveAvgPool2d).
        batch_norm: of a float BatchNorm, which Brevitas computes in float: ``refuse`` it, ``merge`` it into the layer
            before it as Brevitas' merge_bn does (the results then equal the merged network's), or ``keep`` it as a
            fixed-point BatchNorm with constants of 16 bits (whose results may differ by a rounding).

    Raises:
        LowerError: everything that is not fixed point or not known, at once, with layer paths and the class to use.
    """
    require_model(model, LowerError)
    require_kind(LowerError, "example", example, (Tensor, type(None)), "a tensor")
    if batch_norm not in ("refuse", "merge", "keep"):
        raise LowerError(f"batch_norm must be 'refuse', 'merge' or 'keep', not {batch_norm!r}")
    copied = copy.deepcopy(model).eval()
    traced = _trace(copied)
    if example is not None:
        _Sizes(traced).run(example)
    problems = merge_norms(traced) if batch_norm == "merge" else {}
    return _Network(traced, problems, keeps_norms=batch_norm == "keep").run()


class _QuantProxy(fx.Proxy):
    """A traced tensor that passes for a QuantTensor: networks assert that they add such."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        return QuantTensor  # type: ignore[no-any-return]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        of_brevitas = any(kind.__module__.startswith("brevitas.nn.") for kind in type(m).__mro__)
        return of_brevitas or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _QuantProxy(node, self)


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the user's forward raises on proxies
        raise LowerError(
            f"the forward of {type(model).__name__} must be traceable by torch.fx, without branches or loops that "
            f"depend on data (torch: {error})"
        ) from error
    refuse_taken_names(graph)
    return fx.GraphModule(model, graph, type(model).__name__)


class _Sizes(fx.Interpreter):
    """Leaves the shape of each tensor, as an example gives it, in its node's ``meta``."""

    def run_node(self, n: fx.Node) -> Any:
        with torch.no_grad():
            result = super().run_node(n)
        if isinstance(result, Tensor | QuantTensor):
            n.meta["shape"] = tuple(result.shape)
        return result


def _asks(node: fx.Node) -> bool:
    """Whether a call asks for a size, or takes a part."""
    return node.op in ("call_function", "call_method") and call_name(node) in _ASKED


class _Network:
    """One run: the graph being rewritten, what is known of its tensors, and what is wrong with it."""

    def __init__(self, module: fx.GraphModule, problems: dict[fx.Node, str], keeps_norms: bool) -> None:
        self.module, self.graph, self.keeps_norms = module, module.graph, keeps_norms
        self.held: dict[fx.Node, Held] = dict.fromkeys(problems, UNKNOWN)
        self.problems = problems
        self.done: dict[str, tuple[list[Held | None], Chain]] = {}
        self.places: dict[int, str] = {}  # id of a module -> its path
        self.owned: set[nn.Module] = set()  # quantizers that a layer owns, or did: alive, none is taken for another
        self.of_proxy: dict[int, Quantizer] = {}
        self.source = dict(module.named_modules())

    def run(self) -> nn.Module:
        for node in [node for node in self.graph.nodes if node not in self.problems]:
            try:
                if node.op == "call_module":
                    self._layer(node, str(node.target), self.source[str(node.target)])
                elif node.op in ("call_function", "call_method", "get_attr"):
                    self._call(node)
            except NotAtFault:
                self.held[node] = UNKNOWN
            except QfxError as error:
                self.held[node], self.problems[node] = UNKNOWN, str(error)
        self.graph.eliminate_dead_code()
        left = dict.fromkeys(self.problems[node] for node in self.graph.nodes if self._is_at_fault(node))
        if left:
            problems = "\n".join(f"- {problem}" for problem in left)
            raise LowerError(f"the Brevitas network must be fixed point throughout, but:\n{problems}")
        self.module.delete_all_unused_submodules()
        self.graph.lint()
        self.module.recompile()
        name_quantizers(self.module)
        return self.module.eval()

    def _is_at_fault(self, node: fx.Node) -> bool:
        """Whether a node is to be reported: not the size that a refused view asks for, which is reported itself."""
        return node in self.problems and not (_asks(node) and self._explained(node))

    def _explained(self, node: fx.Node) -> bool:
        """Whether a refused call uses what a node asks for."""
        return any(self._explained(user) if _asks(user) else user in self.problems for user in node.users)

    def _layer(self, node: fx.Node, path: str, layer: nn.Module) -> None:
        operands: list[fx.Node] = []
        fx.map_arg((node.args, node.kwargs), operands.append)
        given = [self.held.get(operand) for operand in operands]
        if isinstance(layer, _OF_SIZE) and (len(node.args) > 1 or node.kwargs):
            raise LowerError(f"layer '{path}' must have output_padding, and no output_size in its call")
        sure = not any(held is UNKNOWN for held in given)
        if path in self.done and not sure and not forgets(layer):
            raise NotAtFault(f"what layer '{path}' reads is refused")
        if path in self.done:
            before, chain = self.done[path]
            if not forgets(layer) and not all(
                a is b or (a is not None and a.same_as(b)) for a, b in zip(given, before, strict=True)
            ):
                raise LowerError(
                    f"layer '{path}' must read tensors of one scale, but is called again with another; put one "
                    "QuantIdentity, called each time, before it, or use a layer for each call"
                )
        else:
            site = Site(path, given, operands[0].meta.get("shape") if operands else None, self.of_proxy)
            chain = self._translated(site, node, layer)
            if sure:
                self.done[path] = given, chain
        self._replace(node, path, chain, operands)

    def _translated(self, site: Site, node: fx.Node, layer: nn.Module) -> Chain:
        if isinstance(layer, NORMS):
            readers = [self.source.get(str(user.target)) for user in node.users]
            return keep_norm(site, layer, readers, self.keeps_norms)
        translate = LAYERS.get(type(layer))
        if translate is None:
            name = type(layer).__name__
            instead = f"; use {REMEDIES[name]}" if name in REMEDIES else ""
            raise LowerError(f"layer '{site.path}' ({name}) must be one of {known()}{instead}")
        return translate(site, layer)

    def _call(self, node: fx.Node) -> None:
        if node.target is getattr and node.args[1] in ("value", "tensor"):  # of a QuantTensor
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            return
        if _asks(node) and self.held.get(node.args[0]) is UNKNOWN:  # type: ignore[arg-type]
            raise NotAtFault(f"what call '{node_path(node)}' reads is refused")
        path = self._free(scope(node) + call_name(node))
        operands = [node.args[0], node.args[1]] if is_sum(node) else joined(node)
        if operands is not None:
            given = [self.held.get(operand) for operand in operands]  # type: ignore[arg-type]
            shape = operands[0].meta.get("shape")  # type: ignore[union-attr]
            site = Site(path, given, shape, self.of_proxy)
            if not is_sum(node) and not joins_channels(node, len(shape) if shape else None):
                raise LowerError(f"call '{node_path(node)}' must join channels: torch.cat(tensors, 1)")
            self._replace(node, path, torch_sum(site) if is_sum(node) else cat(site), operands)  # type: ignore[arg-type]
            return
        source = node.args[0] if node.args else None
        shape = source.meta.get("shape") if isinstance(source, fx.Node) else None
        layers = as_modules(node, len(shape) if shape else None)
        if layers is None:
            doing = "" if call_name(node) in _ASKED else f"; use {REMEDIES.get(call_name(node), f'one of {known()}')}"
            raise LowerError(f"call '{node_path(node)}' must be a layer{doing}")
        assert isinstance(source, fx.Node)
        chain: Chain = []
        held = self.held.get(source)
        for layer in layers:
            translate = LAYERS.get(type(layer))
            if translate is None:
                instead = REMEDIES.get(call_name(node), f"one of {known()}")
                raise LowerError(f"call '{node_path(node)}' must be a layer; use {instead}")
            chain += translate(Site(path, [held], shape, self.of_proxy), layer)
            held, shape = chain[-1].held, None
        self._replace(node, path, chain, [source])

    def _replace(self, node: fx.Node, path: str, chain: Chain, operands: list[fx.Node]) -> None:
        """Put the calls of ``chain`` in the place of ``node``."""
        last = node
        for link in chain:
            place = self._place(path, link.layer)
            with self.graph.inserting_before(node):
                new = self.graph.call_module(place, tuple(operands) if last is node else (last,))
            for name, quantizer in link.quantizers.items():
                self._attach(link.layer, name, quantizer)
            last = new
            if link.held is not None:
                self.held[new] = link.held
        last.meta = dict(node.meta)
        node.replace_all_uses_with(last)
        self.graph.erase_node(node)

    def _place(self, path: str, layer: nn.Module) -> str:
        """The path of a layer: where it is already, else ``path``, else that with a number behind."""
        if id(layer) not in self.places:
            used = set(self.places.values())
            place = path if path not in used else self._free(f"{path}_quant" if isinstance(layer, Quantizer) else path)
            self.module.add_submodule(place, layer)
            self.places[id(layer)] = place
            self.owned |= set(layer.modules())
        return self.places[id(layer)]

    def _free(self, path: str) -> str:
        taken = {name for name, _ in self.module.named_modules()} | {name for name, _ in self.module.named_parameters()}
        number, free = 0, path
        while free in taken:
            number += 1
            free = f"{path}_{number}"
        return free

    def _attach(self, layer: nn.Module, name: str, quantizer: Quantizer) -> None:
        """Give a layer its quantizer: as its own, or shared with the module that owns it."""
        if getattr(layer, name) is not quantizer:
            if quantizer in self.owned:
                share(layer, name, quantizer)
            else:
                setattr(layer, name, quantizer)
        self.owned.add(quantizer)
