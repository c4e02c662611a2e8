"""The steps that need torch: train and lower. torch is imported when they run, not before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from qfx.arguments import counted
from qfx.design import Design
from qfx.emit.vectors import load as load_vectors
from qfx.emit.vectors import vectors as write_vectors
from qfx.graph import Graph, save
from qfx.graph.torch_values import node_codes
from qfx.steps.compare import require_equal
from qfx.steps.engine import Progress, Step, Work
from qfx.steps.facts import RESOURCES, graph_facts
from qfx.steps.hashing import file_digest, python_digest

GRAPH = "graph"
VECTORS = "vectors"


def _train(work: Work) -> dict[str, Any]:
    """Train in float and in fixed point at each width; the first width's network is the one that goes on."""
    from qfx.train import runs
    from qfx.train.log import LOGS
    from qfx.train.preflight import preflight

    design = work.design
    _ = design.board  # refused now, not after training
    data = runs.load_data(design)
    for warning in preflight(design, data):
        work.warn(warning)
    widths = design.content.training.widths
    common = _training_settings(design)
    common["training"] = {key: value for key, value in common["training"].items() if key != "widths"}
    told = _Shares(work.progress, design)
    progress = told.run("float")
    start = work.keep("float", common, lambda to, halfway: runs.train_float(design, data, to, halfway, progress))
    places = _train_widths(work, data, start, common, told)
    (work.folder / runs.WEIGHTS).write_bytes((places[0] / runs.WEIGHTS).read_bytes())
    if (places[0] / runs.RECIPE).is_file():
        (work.folder / runs.RECIPE).write_bytes((places[0] / runs.RECIPE).read_bytes())
    (work.folder / f"float.{runs.WEIGHTS}").write_bytes((start / runs.WEIGHTS).read_bytes())
    for name, place in zip(("float", *(f"{width}bits" for width in widths)), (start, *places), strict=True):
        for log in (place / log for log in LOGS):
            if log.is_file():  # a float network from a checkpoint was not trained here
                (work.folder / f"{name}.{log.name}").write_bytes(log.read_bytes())
    figures: dict[str, Any] = {
        "images": {"train": len(data.train_x), "test": len(data.test_x)},
        "float": runs.metrics(start),
        "widths": {str(width): runs.metrics(place) for width, place in zip(widths, places, strict=True)},
        "lowered": widths[0],
    }
    _judge(work, figures)
    return figures


def _train_widths(work: Work, data: Any, start: Path, common: Mapping[str, Any], told: _Shares) -> list[Path]:
    """Train from the float network in ``start`` at each width, several at a time, and return where each run is."""
    from qfx.nn.ranks import ranks
    from qfx.train import runs
    from qfx.train.parallel import Children

    design, widths = work.design, work.design.content.training.widths
    names = [f"{width}bits" for width in widths]
    settings = [[common, "first" if number == 0 else "other"] for number in range(len(widths))]

    def run_here(number: int) -> Path:
        share = told.run(names[number])
        return work.keep(
            names[number],
            settings[number],
            lambda to, halfway: runs.train_fixed(design, data, start, widths[number], to, halfway, share),
        )

    if len(widths) == 1 or ranks() > 1:
        return [run_here(number) for number in range(len(widths))]
    side_by_side = min(len(widths), os.cpu_count() or 1)

    def run(number: int) -> Path:
        share = told.run(names[number])
        return work.keep(
            names[number],
            settings[number],
            lambda to, halfway: children.train_fixed(design, start, widths[number], to, halfway, share),
        )

    with ThreadPoolExecutor(side_by_side) as pool, Children(side_by_side) as children:
        jobs = [pool.submit(run, number) for number in range(len(widths))]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Shares:
    """The progress of a step of several runs, some of them at once: each counts by its epochs."""

    def __init__(self, progress: Progress, design: Design) -> None:
        training = design.content.training
        fixed = 2.0 * training.fixed.epochs  # quantizers cost time
        self.weights = {"float": float(training.float_.epochs), **{f"{width}bits": fixed for width in training.widths}}
        self.done = dict.fromkeys(self.weights, 0.0)
        self.progress = progress

    def run(self, name: str) -> Progress:
        """Return what the run of that name tells its progress to."""
        if name != "float":
            self.done["float"] = 1.0

        def tell(done: float, doing: str) -> None:
            self.done[name] = done
            total = sum(self.done[each] * weight for each, weight in self.weights.items())
            self.progress(total / sum(self.weights.values()), f"{name.replace('bits', ' bits')}, {doing}")

        return tell


def _judge(work: Work, figures: Mapping[str, Any]) -> None:
    """Warn where the lowered network reaches less than the design asks for."""
    asked, width = work.design.content.accuracy, counted(figures["lowered"], "bit")
    reached, full = figures["widths"][str(figures["lowered"])]["accuracy"], figures["float"]["accuracy"]
    if asked.minimum is not None and reached < asked.minimum:
        work.warn(f"accuracy at {width} must be at least {asked.minimum:g} %, not {reached:.2f} %")
    if asked.below_float is not None and full - reached > asked.below_float:
        work.warn(
            f"accuracy at {width} must be within {asked.below_float:g} points of float "
            f"({full:.2f} %), not {full - reached:.2f} below it"
        )
    _judge_digits(work, figures)
    budget = figures["widths"][str(figures["lowered"])].get("budget")
    if budget and not budget["fits"]:
        work.warn(f"the network must keep its budget, {_spent(budget)}: it will not be planned")


def _judge_digits(work: Work, figures: Mapping[str, Any]) -> None:
    """Warn where a budget of digits left whole layers without any."""
    from qfx.train.digit_budget import without_digits

    digits = figures["widths"][str(figures["lowered"])].get("digits", {})
    if work.design.content.training.digits and (empty := without_digits(digits)):
        work.warn(
            f"every layer should have non-zero digits, but training.digits left none to {', '.join(empty)}, whose "
            "weights are all 0: allow more digits"
        )


def _spent(budget: Mapping[str, Any]) -> str:
    """What a network takes of its hardware budget, in words."""
    asked, reached = budget["asked"], budget["reached"]
    shares = [f"{reached[key]:,} of {asked[key]:,} {name}" for key, name in RESOURCES]
    return f"{', '.join(shares)} at {counted(reached['cycles'], 'cycle')} of {asked['cycles']:,} a frame"


def _train_summary(figures: Mapping[str, Any]) -> str:
    widths = figures["widths"]
    best = widths[str(figures["lowered"])]
    moved = sum(a != b for move in best["moves"].values() for a, b in zip(move["before"], move["now"], strict=True))
    points = sum(len(move["now"]) for move in best["moves"].values())
    others = "".join(
        f", {counted(int(width), 'bit')} {run['accuracy']:.2f} %" for width, run in list(widths.items())[1:]
    )
    digits = f"; {sum(best['digits'].values()):,} non-zero digits" if "digits" in best else ""
    return (
        f"{counted(figures['lowered'], 'bit')} {best['accuracy']:.2f} % (float {figures['float']['accuracy']:.2f} %, "
        f"quantized after training {best['quantized']:.2f} %{others}); {moved} of {points} binary points moved{digits}"
        + (f"; budget: {_spent(best['budget'])}" if "budget" in best else "")
    )


def _training_settings(design: Design) -> dict[str, Any]:
    """What the training of a design depends on, accuracy targets and the board left out."""
    content = design.content.model_dump(
        mode="json", include={"model", "data", "augment", "input", "recipe", "training"}
    )
    if design.content.training.budget:
        content["hardware"] = [design.board.model_dump(mode="json"), design.content.target.model_dump()]
    checkpoints = {"float": design.float_checkpoint, "teacher": design.teacher_checkpoint}
    content["checkpoints"] = {name: file_digest(path) for name, path in checkpoints.items() if path}
    return {**content, "python": [python_digest(path) for path in design.sources]}


def _lower(work: Work) -> dict[str, Any]:
    """Make the graph, and show on the whole test set that it computes the integers of the trained model."""
    from qfx.graph.lower import lower as lower_graph
    from qfx.train import runs

    design = work.design
    model = runs.trained_model(design, work.results["train"].folder)
    graph = lower_graph(model, runs.example(design, 1), name=design.name)
    save(graph, work.folder / GRAPH)
    data = runs.load_data(design)
    x = data.test_x[: design.content.vectors]
    write_vectors(graph, graph.encode(x.double().numpy(), "NCHW"), work.folder / VECTORS)
    compared = require_equal(graph, _torch_codes(model, graph, x), load_vectors(work.folder / VECTORS), "interpreter")
    return {**graph_facts(graph), "exact": compared}


def _torch_codes(model: Any, graph: Graph, x: Any) -> dict[str, np.ndarray]:
    """The codes of every node that stands for a layer or a quantizer of the model, as torch computes them."""
    from qfx.nn import exact_values

    parts: dict[str, list[np.ndarray]] = {}
    for batch in x.split(256):
        values = {call: value.numpy() for call, value in exact_values(model)(batch).items()}
        for name, codes in node_codes(graph, values).items():
            parts.setdefault(name, []).append(codes)
    return {name: np.concatenate(part) for name, part in parts.items()}


def _lower_summary(figures: Mapping[str, Any]) -> str:
    compared = figures["exact"]
    return (
        f"{len(figures['nodes'])} nodes, {figures['macs']:,} MACs, {figures['parameters']:,} parameters; interpreter = "
        f"torch at {compared['nodes']} of them, {compared['frames']} images, {compared['codes']:,} codes"
    )


TRAIN = Step(
    "train",
    _train,
    _train_summary,
    settings=lambda design: [
        _training_settings(design),
        design.content.accuracy.model_dump(),
    ],
    sources=("qfx.fixed", "qfx.nn", "qfx.train", "qfx.graph", "qfx.plan", "dist:torch"),
)
LOWER = Step(
    "lower",
    _lower,
    _lower_summary,
    needs=("train",),
    settings=_training_settings,
    sources=("qfx.fixed", "qfx.nn", "qfx.train", "qfx.graph", "qfx.emit.vectors", "qfx.steps"),
)
