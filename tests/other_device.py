"""A second device for tests, "standin", which a machine without a GPU has too.

Its tensors lie in the CPU's memory, and its arithmetic is the CPU's own; but torch takes the two for different devices,
so that an operation on both of them fails, as with a GPU.
"""

from typing import Any

import torch
from torch import Tensor, library
from torch.utils import backend_registration
from torch.utils._pytree import tree_map

NAME = "standin"
_ops = torch.ops.aten


class _Other(Tensor):
    """A tensor of the device; ``raw`` holds its values."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> "_Other":
        place = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        made = Tensor._make_wrapper_subclass(cls, raw.shape, device=f"{NAME}:0", **place)
        made.raw = raw
        return made

    def tolist(self) -> Any:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, *args, **(kwargs or {}))


def _raw(tensor: Tensor) -> Tensor:
    return tensor.raw if isinstance(tensor, _Other) else tensor


def _copy(target: Tensor, source: Tensor, *_: object) -> Tensor:
    _raw(target).copy_(_raw(source))
    return target


def _to_copy(tensor: Tensor, *, device: torch.device | None = None, **kwargs: Any) -> Tensor:
    found = _ops._to_copy(_raw(tensor), **kwargs)
    return found if device is not None and device.type == "cpu" else _Other(found)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Any:
    return _ops.convolution_backward(grad, x, weight, [len(weight)], *rest)


_BETWEEN = {
    "aten::copy_": _copy,
    "aten::_copy_from": lambda source, target, *_: _copy(target, source),
    "aten::_to_copy": _to_copy,
}
_CALLED_OTHERWISE = {  # by torch, on devices that it does not know
    "aten::convolution_overrideable": _ops.convolution,
    "aten::convolution_backward_overrideable": _convolution_backward,
}


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an operation of torch on the values of the device's tensors."""
    if op.name() in _BETWEEN:
        return _BETWEEN[op.name()](*args, **kwargs)
    given: list[_Other] = []

    def opened(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if not isinstance(value, Tensor):
            return value
        if isinstance(value, _Other):
            given.append(value)
        elif value.dim() and "index" not in op.name():  # numbers and indices may come from the CPU, as to a GPU
            raise RuntimeError(f"{op.name()}: a tensor {tuple(value.shape)} of the CPU meets the device {NAME}")
        return _raw(value)

    def closed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        same = [each for each in given if each.raw is value]  # of an operation in place
        return same[0] if same else _Other(value)

    found = _CALLED_OTHERWISE.get(op.name(), op)(*tree_map(opened, args), **tree_map(opened, kwargs))
    return tree_map(closed, found)


class _Module:
    """What ``torch.standin`` is: the random numbers are those of the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.random, name)

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.set_rng_state(state)


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
_kernels = library.Library("_", "IMPL")
_kernels.fallback(_run, "PrivateUse1")
_kernels.fallback(library.fallthrough_kernel, "AutocastPrivateUse1")  # bfloat16 stays unused
