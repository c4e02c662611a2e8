"""Accuracy of designs/digits against the LUTs that it may take: trained to budgets, and at equal widths.

Each budget is a run of the loop from the same float network: widths start where the plan fits, pay for hardware in
training, and end within the budget. Beside it stand networks of one width everywhere, trained as long.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from harness import RESULTS, publish
from rich.console import Console

from qfx.design import Design, DesignFile
from qfx.graph.lower import lower
from qfx.plan import limits, plan
from qfx.train import runs

mpl.use("Agg")
LUTS = (16_000, 12_000, 10_000, 9_000)
WIDTHS = (4, 3, 2)
NO_DSP = {"dsp": 0}  # in any row: LUTs are the one axis
LEARNED = {"width": 8, "learn_width": True}


def main() -> None:
    """Train every row, print it, and draw accuracy against LUTs."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        start = _folder(scratch, "float")
        design = Design.load("digits")
        data = runs.load_data(design)
        runs.train_float(design, data, start, _folder(scratch, "halfway"), _quiet)
        for row, given, width in _rows(design):
            made = _changed(design, given)
            folder = _folder(scratch, row)
            runs.train_fixed(made, data, start, width, folder, _folder(scratch, f"{row} halfway"), _quiet)
            found = runs.metrics(folder)
            model = runs.load_weights(runs.fixed_model(made, runs.float_model(made), width), folder)
            graph = lower(model.eval(), runs.example(made, 1))
            needs = plan(graph, made.board, made.cycles, budget=limits(made.board, NO_DSP)).resources
            rows.append(
                {
                    "row": row,
                    "LUT": needs.lut,
                    "FF": needs.ff,
                    "BRAM18": needs.bram18,
                    "DSP": needs.dsp,
                    "after training": found["quantized"],
                    "trained": found["accuracy"],
                }
            )
            Console().print(rows[-1])
    publish("pareto", "designs/digits at 1,152 cycles a frame: accuracy against LUTs", rows)
    _draw(rows)


def _rows(design: Design) -> list[tuple[str, Mapping[str, Any], int]]:
    """The name of each run, what it changes in design.yaml, and the width that it starts from."""
    recipe = design.content.recipe
    learned = {**recipe, "default": {"weight": LEARNED, "activation": LEARNED, "elementwise": LEARNED}}
    found: list[tuple[str, Mapping[str, Any], int]] = []
    for most in LUTS:
        training = {"budget": {"lut": most, **NO_DSP}, "widths": [8]}
        found.append((f"budget {most:,}", {"recipe": learned, "training": training}, 8))
    return found + [(f"{width} bits", {"training": {"widths": [width]}}, width) for width in WIDTHS]


def _changed(design: Design, given: Mapping[str, Any]) -> Design:
    content = design.content.model_dump(by_alias=True, exclude_unset=True)
    content["training"] |= given.get("training", {})
    content |= {key: value for key, value in given.items() if key != "training"}
    return Design(design.folder, DesignFile.model_validate(content), design.argument)


def _draw(rows: list[dict[str, Any]]) -> None:
    """Write results/pareto.png."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for name, mark in (("budget", "o-"), ("bits", "s--")):
        some = sorted((row for row in rows if name in row["row"]), key=lambda row: row["LUT"])
        label = "trained to a budget of LUTs" if name == "budget" else "one width everywhere, trained"
        axes.plot([row["LUT"] for row in some], [row["trained"] for row in some], mark, label=label)
    axes.set(xlabel="LUTs of the plan", ylabel="test accuracy, %", title="digits, 1,152 cycles a frame")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "pareto.png", dpi=110)


def _folder(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    return path


def _quiet(done: float, doing: str) -> None:
    """Training shows no progress here."""


if __name__ == "__main__":
    main()
