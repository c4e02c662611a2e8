"""Widths allocated within what uniform widths of designs/resnet20 take of the board: accuracy without training.

    python bench/bench_allocate.py [W3A3] [B] [--bound lut ff bram18]

A row of uniform widths is planned without DSPs at a rate. What its plan takes of the resources that are bound, by
default LUTs alone, is the budget within which `qfx.allocate` chooses the widths of all layers at all points. Formats
and corrected statistics come from 256 training images, noise from the first 64. The test images are run once a row, of
uniform ones by bench_resnet20.py.
Needs QFX_CIFAR10 and QFX_CHECKPOINTS (designs/resnet20/README.md).
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from bench_resnet20 import with_input
from harness import RESULTS, publish
from resnet20_rows import recipes
from torch import Tensor, nn

import qfx
from qfx.design import Design
from qfx.graph import Graph
from qfx.plan import Resources, limits, plan
from qfx.plan.limits import excess
from qfx.train import Data, Hardware, accuracy, runs
from qfx.train.float_checkpoint import load_float

CYCLES = 100_000  # of a frame: 2,500 frames/s at the design's clock
CALIBRATION, LOOKED_AT = 256, 64  # images
POINTS = ("weight", "activation", "elementwise", "constant")


def main() -> None:
    """Measure the rows that the command line asks for, and publish them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=["W3A3", "B"], help="rows of uniform widths")
    parser.add_argument("--bound", nargs="+", default=["lut"], choices=["lut", "ff", "bram18"], help="resources")
    asked = parser.parse_args()
    design = Design.load("resnet20")
    data = runs.load_data(design)
    model = load_float(runs.float_model(design), design.float_checkpoint).eval()
    batches = list(data.train_x[:CALIBRATION].split(256))
    hardware, given = Hardware(design.board, CYCLES), {"default": {"input": design.content.input.format}}
    rows, measured = [], None
    for name in asked.rows:
        graph = qfx.lower(network(model, with_input(design, recipes()[name]), batches), batches[0][:1])
        needs = plan(graph, design.board, CYCLES, budget=limits(design.board, {"dsp": 0})).resources
        rows.append(
            {"widths": f"uniform, row {name}", **asdict(needs), "test accuracy, %": known(name), "minutes": 0.0}
        )
        budget = {**{resource: getattr(needs, resource) for resource in asked.bound}, "dsp": 0}
        start = time.monotonic()
        task: dict[str, Any] = {"hardware": hardware, "looked_at": LOOKED_AT, "points": POINTS, "measured": measured}
        found = qfx.allocate(model, batches, budget, given, **task)
        minutes, measured = (time.monotonic() - start) / 60, found.measured
        print(f"{name}: {found.widths}, {found.cost}, noise {found.noise}", flush=True)
        rows.append({**allocated(design, model, found, budget, batches, data), "minutes": minutes})
        title = f"designs/resnet20 at {CYCLES:,} cycles a frame on {design.board.name}: allocated and uniform widths"
        table = "_".join(["allocate", *asked.bound]) if asked.bound != ["lut"] else "allocate"
        publish(table, title, rows, calibration_images=CALIBRATION, noise_images=LOOKED_AT, bound=asked.bound)


def allocated(
    design: Design,
    model: nn.Module,
    found: qfx.nn.Allocation,
    budget: Mapping[str, int],
    batches: list[Tensor],
    data: Data,
) -> dict[str, Any]:
    """Return what allocated widths take, as their network is planned within the budget, and what they reach."""
    fixed = network(model, found.recipe, batches)
    graph = qfx.lower(fixed, batches[0][:1])
    kept = limits(design.board, budget)
    needs = plan(graph, design.board, CYCLES, budget=kept).resources
    require_kept(needs, found.cost, kept)
    require_exact(graph, fixed, data.test_x[:2])
    with torch.no_grad():
        reached = accuracy(fixed, data.test_x, data.test_y)
    return {"widths": "allocated", **asdict(needs), "test accuracy, %": reached}


def require_kept(needs: Resources, cost: Mapping[str, float], budget: Resources) -> None:
    """Stop where a plan takes other resources than `qfx.allocate` says, or more than the budget."""
    if asdict(needs) != {name: int(cost[name]) for name in asdict(needs)}:
        raise SystemExit(f"the plan must take what allocate says, {dict(cost)}, not {needs}")
    if over := excess(needs, budget):
        raise SystemExit(f"the plan must keep the budget, but takes {', '.join(over.values())}")


def require_exact(graph: Graph, fixed: nn.Module, images: Tensor) -> None:
    """Stop where the interpreter and exact arithmetic give different values."""
    if not (graph.evaluate(images.numpy(), layout="NCHW") == qfx.exact(fixed)(images).numpy()).all():
        raise SystemExit("the interpreter must give the values of exact arithmetic, but does not")


def network(model: nn.Module, recipe: Mapping[str, Any], batches: list[Tensor]) -> nn.Module:
    """Return ``model`` in the formats of ``recipe``, without training."""
    return qfx.correct(qfx.calibrate(qfx.convert(model, recipe).eval(), batches), batches)


def known(name: str) -> float:
    """Return the accuracy of a row that bench_resnet20.py has measured."""
    rows = json.loads((RESULTS / "resnet20.json").read_text())["rows"]
    return next(row["test accuracy, %"] for row in rows if row["row"] == f"{name}, quantized after training")


if __name__ == "__main__":
    main()
