"""The hls4ml plug-in of qfx: a Vitis backend that calls qfx's kernels and never changes a type."""

from __future__ import annotations

from collections.abc import Callable

from qfx_hls4ml.table import Table as Table

BACKEND = "QfxVitis"

# hls4ml imports this module while it is being imported itself, so what needs hls4ml is imported on demand.


def register(*, register_backend: Callable[..., None], register_writer: Callable[..., None]) -> None:
    """Register layer, writer and backend; hls4ml calls this through the entry point "hls4ml.backends"."""
    from qfx_hls4ml import backend

    backend.register(register_backend, register_writer)


def require_registered() -> None:
    """Register the plug-in where hls4ml did not find its entry point, as in a checkout that is not installed.

    hls4ml's loader turns a failing registration into a printed warning; here the failure is raised.
    """
    from hls4ml.backends import get_available_backends, register_backend
    from hls4ml.writer.writers import register_writer

    if BACKEND.lower() not in get_available_backends():
        register(register_backend=register_backend, register_writer=register_writer)
