"""The heap in training: freed memory stays with the process."""

import ctypes
import sys

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_LARGEST = 1 << 30  # bytes of a tensor that comes from the heap


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step, and return whether it does; the process stays at its peak.

    Every step allocates the same tensors. By default glibc returns large ones to the kernel, which hands them out anew
    page by page and cleared: up to a third of a step on a CPU. Elsewhere than in glibc nothing is changed.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP, _LARGEST)) and bool(mallopt(_TRIM, -1))
