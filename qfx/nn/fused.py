"""The cast in one pass over memory: a kernel in C++ for eager training on a CPU, with the very bits of the formula."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from qfx.errors import ToolError
from qfx.tools import gxx

_SOURCE = Path(__file__).with_name("fused.cpp")
_FLAGS = ("-O3", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")


def serves(x: Tensor) -> bool:
    """Return whether the kernel can take ``x``: dense float32 on the CPU, outside of a compiler, where there is g++."""
    return (
        not torch.compiler.is_compiling()
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and type(x) in (Tensor, torch.nn.Parameter)
        and _dense(x)
        and _library() is not None
    )


def cast(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    """Return ``clamp(round(x * scale), low, high) / scale``, rounding RND."""
    y = torch.empty_like(x)
    _call("qfx_cast", (x, y), scale, low, high)
    return y


def cast_backward(x: Tensor, grad: Tensor, scale: float, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``x``, and ``grad`` times the slope of each value along frac, without the factor ln2."""
    if grad.stride() != x.stride():  # the formula's results, and so the order of its sum, follow the gradient
        x, grad = (torch.empty_like(grad).copy_(x), grad) if _dense(grad) else (x, torch.empty_like(x).copy_(grad))
    to_x, to_frac = torch.empty_like(x), torch.empty_like(x)
    _call("qfx_cast_backward", (x, grad, to_x, to_frac), scale, low, high)
    return to_x, to_frac


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _call(name: str, tensors: tuple[Tensor, ...], scale: float, low: int, high: int) -> None:
    library = _library()
    assert library is not None  # serves() was asked
    places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    numbers = (ctypes.c_float(number) for number in (scale, low, high))
    getattr(library, name)(*places, ctypes.c_int64(tensors[0].numel()), *numbers, torch.get_num_threads())


@cache
def _library() -> ctypes.CDLL | None:
    """The kernels, compiled once a machine; None where there is no compiler that makes them."""
    try:
        return ctypes.CDLL(str(gxx.cached_library(_SOURCE, _FLAGS)))
    except (ToolError, OSError):
        return None
