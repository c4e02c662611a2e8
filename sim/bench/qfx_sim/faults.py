"""Plants a fault in a copy of an RTL file: the control that shows a bench can fail."""

from __future__ import annotations

from pathlib import Path

from qfx import resources


def plant(module: str, old: str, new: str, folder: Path) -> Path:
    """Write rtl/<module>.sv to ``folder`` with ``old``, which must be there once, replaced by ``new``; return its path.

    Give the path to ``runner.run`` as one of its ``sources``: it then stands for the module of rtl/.
    """
    text = (resources.path("rtl") / f"{module}.sv").read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise AssertionError(f"{module}.sv must hold {old!r} once, not {text.count(old)} times")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}.sv"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path
