"""hls4ml's way in: a module of its own, because hls4ml looks for plug-ins while it is itself being imported."""

from __future__ import annotations

from collections.abc import Callable


def register(*, register_backend: Callable[..., None], register_writer: Callable[..., None]) -> None:
    """Register the plug-in; the entry point "hls4ml.backends" names this function."""
    from qfx_hls4ml import backend  # at the call, by when hls4ml can be imported from

    backend.register(register_backend=register_backend, register_writer=register_writer)
