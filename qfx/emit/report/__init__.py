"""The report of a build: one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qfx.emit.report import view
from qfx.files import write_text

PAGE = "report.html"


def report(design: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], folder: Path) -> Path:
    """Write the page and return its path.

    Args:
        design: name, folder, board, target and accuracy of the design, as design.yaml has them, ``qfx`` with its own
            version, ``versions`` of tools by name, and ``tested`` with those that qfx is tested with.
        records: by step, ``figures``, ``warnings``, ``failure``, ``seconds``, ``finished``, ``stale``; a step that has
            none is shown as not run.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # late: not every command needs it

    environment = Environment(
        loader=PackageLoader("qfx.emit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(view.page(design, records))
    path = folder / PAGE
    write_text(path, page)
    return path
