"""Torch's tracer, told the sizes of tensors by an example that runs beside it."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from qfx.errors import LowerError
from qfx.nn.spelled_out import FUNCTIONS, MODULES

DROPOUTS: dict[str, type[nn.Module]] = {
    "dropout": nn.Dropout,
    "dropout1d": nn.Dropout1d,
    "dropout2d": nn.Dropout2d,
    "dropout3d": nn.Dropout3d,
    "alpha_dropout": nn.AlphaDropout,
    "feature_alpha_dropout": nn.FeatureAlphaDropout,
}
"""By the name of torch's function: the layers that drop values in training."""
NEUTRAL: tuple[type[nn.Module], ...] = (nn.Identity, *DROPOUTS.values())
"""The layers of torch that do nothing in evaluation."""
_SIZES = ("size", "shape", "numel", "ndim", "dim")
_FACTS = ("dtype", "device", "ndim")  # of a tensor, whatever its values and its batch


class UntraceableError(LowerError):
    """A forward that cannot be traced; the message goes on behind "the forward of <module>"."""


class _Symbol(fx.Proxy):
    """A value of the network while it is traced: of what does not depend on data or batch, the number itself."""

    def __getattr__(self, name: str) -> Any:
        tracer = self.tracer
        assert isinstance(tracer, Tracer)
        if name.startswith("__array"):
            self.__array_function__()
        value = tracer.values.get(self.node)
        if isinstance(value, Tensor) and name == "shape":
            return tracer.shape(self)
        if isinstance(value, Tensor) and name in _FACTS:
            return getattr(value, name)
        if value is not None and not callable(getattr(value, name, len)):
            return tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)

    def __iter__(self) -> Iterator[Any]:
        value = self.tracer.values.get(self.node)  # type: ignore[attr-defined]
        return iter([self[i] for i in range(len(value))]) if isinstance(value, tuple | list) else super().__iter__()

    def __len__(self) -> int:
        value = self.tracer.values.get(self.node)  # type: ignore[attr-defined]
        return len(value) if isinstance(value, tuple | list) else self.tracer.refuse_size()  # type: ignore

    def __int__(self) -> int:
        return self.tracer.refuse_number(self)  # type: ignore[attr-defined, no-any-return]

    __index__ = __float__ = __int__  # type: ignore[assignment]

    def __array_function__(self, *_: Any) -> NoReturn:
        raise UntraceableError(
            "must compute in torch, not in numpy: use torch's function of that name, or compute it outside of the "
            "network"
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        raise UntraceableError(
            "must not assign to a part of a tensor, x[...] = y: join the parts with torch.cat(parts, 1), or multiply "
            "by a mask"
        )


class _Batch(_Symbol):
    """How many inputs a batch has: the same for all tensors, and never a number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Batch) or self.tracer.refuse_size()  # type: ignore[attr-defined, no-any-return]

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = fx.Proxy.__hash__


class Tracer(fx.Tracer):
    """Sees whole layers and calls; with an example, sizes are numbers but for that of the batch.

    Calls have one form: what they read stands first, by place; a functional dropout that follows the mode of its
    module is recorded as evaluation has it, with ``training=False``.

    Args:
        leaves: layers that are not looked into, beside torch's.
        example: an input; zeros of its shape run through the network as it is traced, in a batch of another size.

    Both may be missing: torch traces what it has pickled by a tracer that it makes itself.
    """

    proxy_buffer_attributes = True  # a buffer that arithmetic reads is seen, however it is reshaped

    def __init__(self, leaves: tuple[type[nn.Module], ...] = (), example: Tensor | None = None) -> None:
        super().__init__()
        self.leaves, self.example = leaves, example
        self.values: dict[fx.Node, Any] = {}  # what the example gives
        self.failed = ""  # the path of the innermost module in whose forward tracing ended
        self._batches: dict[fx.Node, Any] = {}
        self._of_input: set[fx.Node] = set()
        self._within: list[nn.Module] = []
        self._running = False

    # What torch's tracer asks --------------------------------------------------------------------------------------

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m) in MODULES:
            return False
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        if kwargs:
            bound = inspect.signature(m.forward).bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        if type(m) in MODULES:
            forward = partial(MODULES[type(m)], m)
        self._within.append(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise
        finally:
            self._within.pop()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        return attr_val if self._running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        if kind in ("call_function", "call_method"):
            args, kwargs = _by_place(args, kwargs)
            if kind == "call_method" and target == "size" and self._known(args[0]):
                return self._size(args, kwargs)
            if kind == "call_method" and target in ("dim", "ndimension") and self._known(args[0]):
                return self.values[args[0].node].dim()
            name = getattr(target, "__name__", "")
            if name in FUNCTIONS:
                return FUNCTIONS[name](*args, **kwargs)
            if name in DROPOUTS:
                return self._dropout(target, args, kwargs)
        return self._record(kind, target, args, kwargs, *more, **named)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """An argument of the network behind the first is its default, where it has one that is no tensor."""
        fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        symbols = [place for place, arg in enumerate(args) if isinstance(arg, fx.Proxy)]
        for place in symbols[1:]:
            default = _default(root_fn, str(args[place].node.target))
            if default is not inspect.Parameter.empty and not isinstance(default, Tensor):
                self.graph.erase_node(args[place].node)
                args[place] = default
        return fn, args

    def to_bool(self, obj: fx.Proxy) -> bool:
        if obj.node.op == "placeholder":
            raise UntraceableError(
                f"must not branch on its argument '{obj.node.target}': give it a default, which is then used, or set "
                "it in __init__"
            )
        if _of_sizes(obj.node):
            self.refuse_size()
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        if _of_sizes(obj.node) or (self.example is None and obj.node.target in ("chunk", "split", "unbind")):
            self.refuse_size()
        return super().iter(obj)

    # Sizes ----------------------------------------------------------------------------------------------------------

    def shape(self, proxy: fx.Proxy) -> tuple[Any, ...]:
        """Return the sizes of a tensor that the example knows: numbers, but of the batch."""
        sizes = tuple(self.values[proxy.node].shape)
        if not sizes or proxy.node not in self._of_input:
            return sizes
        if proxy.node not in self._batches:
            count = self._record("call_method", "size", (proxy, 0), {})
            self._batches[proxy.node] = _Batch(count.node, self)
        return (self._batches[proxy.node], *sizes[1:])

    def refuse_number(self, proxy: fx.Proxy) -> NoReturn:
        """Refuse to give a number that depends on data, that no example tells, or that is of the batch."""
        if _of_sizes(proxy.node):
            self.refuse_size()
        raise UntraceableError(
            "must not take a number from data, as float(y.max()) does: compute with the tensor itself, or take what "
            "needs the number out of the network"
        )

    def refuse_size(self) -> NoReturn:
        """Refuse to give a size that no example tells, or that is of the batch."""
        if self.example is None:
            raise UntraceableError(
                "must know sizes where it branches, loops or counts: give convert an example, "
                "qfx.convert(net, recipe, example), which tells them"
            )
        raise UntraceableError(
            "must leave open how many inputs a batch has: use x.shape[0] as it is, without len(x), int(x.shape[0]), or "
            "a branch or loop over it"
        )

    def _known(self, proxy: Any) -> bool:
        return isinstance(proxy, fx.Proxy) and isinstance(self.values.get(proxy.node), Tensor)

    def _size(self, args: Any, kwargs: Any) -> Any:
        axis = args[1] if len(args) > 1 else kwargs.get("dim")
        return self.shape(args[0]) if axis is None else self.shape(args[0])[axis]

    # The example ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _watch(self, node: fx.Node) -> None:
        """Compute what the example gives at a node, where all that it reads is known."""
        if self.example is None:
            return
        if node.op == "placeholder" or not self._of_input.isdisjoint(node.all_input_nodes):
            self._of_input.add(node)
        if not all(source in self.values for source in node.all_input_nodes):
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.values.__getitem__)
        self._running = True
        try:
            self.values[node] = self._run(node, args, kwargs)
        except Exception:  # an example of a wrong shape is refused when the whole network runs on it
            return
        finally:
            self._running = False

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        match node.op:
            case "placeholder":
                assert self.example is not None
                batch = 3 if len(self.example) == 2 else 2  # another than the example's: what depends on it differs
                return self.example.new_zeros(batch, *self.example.shape[1:])
            case "get_attr":
                return _attribute(self.root, str(node.target))
            case "call_module":
                return _evaluated(self.root.get_submodule(str(node.target)), args, kwargs)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            case _:
                return node.target(*args, **kwargs)  # type: ignore[operator]

    def _record(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        self._watch(proxy.node)
        return proxy

    def _dropout(self, target: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
        training = bool(given.get("training", given.get("train", True)))
        mode = self._within[-1].training if self._within else self.root.training
        if mode and not training:
            return given["input"]  # in training neither
        found = given["input"], given.get("p", 0.5)
        return self._record("call_function", target, found, {"training": training and not mode})


def _by_place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put what a call of torch reads, where it is named, first: ``torch.add(input=a, other=b)``."""
    kwargs = dict(kwargs)
    for place, name in enumerate(("input", "other")):
        if len(args) == place and isinstance(kwargs.get(name), fx.Proxy):
            args = (*args, kwargs.pop(name))
    return args, kwargs


def _of_sizes(node: fx.Node) -> bool:
    """Whether a node is, or is computed of, sizes."""
    if node.op == "call_method" and node.target in _SIZES:
        return True
    if node.target is getattr and node.args[1] in _SIZES:
        return True
    return bool(node.all_input_nodes) and all(map(_of_sizes, node.all_input_nodes))


def _default(function: Callable[..., Any], argument: str) -> Any:
    """Return what a function's argument is where a call leaves it out, or Parameter.empty."""
    found = inspect.signature(function).parameters.get(argument.lstrip("*"))
    if found is None:
        return inspect.Parameter.empty
    if found.kind == found.VAR_POSITIONAL:
        return ()
    return {} if found.kind == found.VAR_KEYWORD else found.default


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _evaluated(layer: nn.Module, args: Any, kwargs: Any) -> Any:
    """Return what a layer gives in evaluation; its mode stays."""
    modes = {module: module.training for module in layer.modules()}
    layer.eval()
    try:
        return layer(*args, **kwargs)
    finally:
        for module, mode in modes.items():
            module.training = mode
