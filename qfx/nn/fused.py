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
    """Return whether the kernel of the cast can take ``x``, outside of a compiler: in float64 without gradients."""
    wide = x.dtype == torch.float64 and not torch.is_grad_enabled()
    known = takes(x, torch.float64 if wide else torch.float32)
    return not torch.compiler.is_compiling() and known and available(_SOURCE)


def takes(x: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether ``x`` is what kernels read: dense, of that dtype, on the CPU."""
    plain = type(x) in (Tensor, torch.nn.Parameter)
    return plain and x.dtype == dtype and x.device.type == "cpu" and _dense(x)


@torch.compiler.assume_constant_result
def available(source: Path) -> bool:
    """Return whether there is a compiler that makes the kernels of a source."""
    return compiled(source) is not None


def cast(x: Tensor, frac: Tensor, low: int, high: int) -> Tensor:
    """Return ``clamp(round(x * 2**frac), low, high) * 2**-frac``, rounding RND.

    There is one ``frac``, or one for each entry of axis 0.
    """
    y = torch.empty_like(x)
    _call("qfx_cast" if x.dtype == torch.float32 else "qfx_cast_double", (x, frac, y), frac.numel(), low, high)
    return y


def cast_backward(x: Tensor, frac: Tensor, grad: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``x`` and, without the factor ln2, of ``frac``."""
    grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
    to_x, to_frac = torch.empty_like(x), torch.empty_like(frac)
    _call("qfx_cast_backward", (x, frac, grad, to_x, to_frac), frac.numel(), low, high)
    return to_x, to_frac


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def addresses(tensors: tuple[Tensor, ...]) -> list[ctypes.c_void_p]:
    """Return where the values of tensors lie; those of another device, which kernels cannot read, are refused."""
    if not all(tensor.is_cpu for tensor in tensors):
        found = sorted({str(tensor.device) for tensor in tensors})
        raise RuntimeError(f"input and network must be on one device, not on {' and '.join(found)}: move them with .to")
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _call(name: str, tensors: tuple[Tensor, ...], rows: int, low: int, high: int) -> None:
    kernels = compiled(_SOURCE)
    assert kernels is not None  # serves() was asked
    places = addresses(tensors)
    shape = ctypes.c_int64(rows), ctypes.c_int64(tensors[0].numel() // rows)
    bound = ctypes.c_float if tensors[0].dtype == torch.float32 else ctypes.c_double
    getattr(kernels, name)(*places, *shape, bound(low), bound(high), torch.get_num_threads())


@cache
def compiled(source: Path) -> ctypes.CDLL | None:
    """Return the kernels of a source, compiled once a machine; None where there is no compiler that makes them."""
    try:
        return ctypes.CDLL(str(gxx.cached_library(source, _FLAGS)))
    except (ToolError, OSError):
        return None
