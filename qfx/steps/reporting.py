"""The step report: whatever the other steps left, as one HTML page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from qfx import doctor
from qfx.emit.report import PAGE, report
from qfx.steps.engine import Step, Work


def _report(work: Work) -> dict[str, Any]:
    content = work.design.content
    design = {
        "name": content.name,
        "arguments": work.arguments,
        "board": content.board,
        "target": content.target.model_dump(),
        "accuracy": content.accuracy.model_dump(),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "qfx": doctor.own_version(),
        "versions": doctor.versions(),
        "tested": doctor.tested(),
    }
    records = {
        name: {
            "figures": result.figures,
            "warnings": result.warnings,
            "failure": result.failure,
            "seconds": result.seconds,
            "finished": result.finished,
            "stale": name in work.stale,
        }
        for name, result in work.results.items()
    }
    report(design, records, work.folder)
    return {"page": PAGE, "steps": sorted(records), "stale": sorted(work.stale)}


def _summary(figures: Mapping[str, Any]) -> str:
    return f"{figures['page']} with the results of {', '.join(figures['steps']) or 'no step'}"


REPORT = Step(
    "report",
    _report,
    _summary,
    uses=("train", "lower", "plan", "hls", "rtl", "sim", "synth"),
    settings=lambda design: design.content.model_dump(mode="json"),
    sources=("qfx.emit.report", "qfx.steps.reporting"),
)
