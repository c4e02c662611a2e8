"""qfx: fixed-point networks for small FPGAs, from PyTorch to bit-exact hardware."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qfx.graph.lower import lower as lower
    from qfx.nn import allocate as allocate
    from qfx.nn import calibrate as calibrate
    from qfx.nn import check_optimizer as check_optimizer
    from qfx.nn import convert as convert
    from qfx.nn import correct as correct
    from qfx.nn import describe as describe
    from qfx.nn import exact as exact
    from qfx.nn import freeze_bn as freeze_bn
    from qfx.nn import freeze_formats as freeze_formats
    from qfx.nn import load as load
    from qfx.nn import param_groups as param_groups

_HOMES = {  # imported on first use, so that whatever needs no torch does not load it
    "allocate": "qfx.nn",
    "calibrate": "qfx.nn",
    "check_optimizer": "qfx.nn",
    "convert": "qfx.nn",
    "correct": "qfx.nn",
    "describe": "qfx.nn",
    "exact": "qfx.nn",
    "freeze_bn": "qfx.nn",
    "freeze_formats": "qfx.nn",
    "load": "qfx.nn",
    "lower": "qfx.graph.lower",
    "param_groups": "qfx.nn",
}


_PACKAGES = ("emit", "fixed", "graph", "interop", "nn", "plan", "train")


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"qfx.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'qfx' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
