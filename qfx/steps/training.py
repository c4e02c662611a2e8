"""The steps that need torch: train and lower. torch is imported when they run, not before."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from qfx.steps.front import front_facts, front_lines
from qfx.steps.hashing import file_digest, python_digest

GRAPH = "graph"
VECTORS = "vectors"


@dataclass(frozen=True)
class _Run:
    """A run in fixed point: how its files are called, at which width, and the design with its budget."""

    name: str
    width: int
    design: Design

    @property
    def settings(self) -> Any:
        """What it depends on: neither the other runs nor its name, so that what becomes another one stays valid."""
        first = self.width == self.design.content.training.widths[0]
        return [_training_settings(self.design, "widths", "front"), "first" if first else "other"]


def _fixed_runs(design: Design) -> list[_Run]:
    """The runs in fixed point: one for each width, and one for each entry of a front; the first one goes on."""
    runs = [_Run(f"{width}bits", width, design) for width in design.content.training.widths]
    return runs + [_Run(each.budget_name, runs[0].width, each) for each in design.along_front[1:]]


def _train(work: Work) -> dict[str, Any]:
    """Train in float, and in fixed point at each width and budget; the first one's network is the one that goes on."""
    from qfx.train import runs
    from qfx.train.device import described
    from qfx.train.preflight import preflight

    design = work.design
    _ = design.board  # refused now, not after training
    device = runs.device_of(design)
    data = runs.load_data(design)
    for warning in preflight(design, data):
        work.warn(warning)
    fixed = _fixed_runs(design)
    told = _Shares(work.progress, design, fixed)
    progress = told.run("float")
    common = _training_settings(design, "widths", "front", "budget")
    start = work.keep("float", common, lambda to, halfway: runs.train_float(design, data, to, halfway, progress))
    places = {run.name: place for run, place in zip(fixed, _train_fixed(work, data, start, fixed, told), strict=True)}
    _leave(work.folder, start, places)
    found = {name: runs.metrics(place) for name, place in places.items()}
    for sentence in (each for run in found.values() for each in run["warnings"]):  # of runs that were done already
        work.warn(sentence)
    figures: dict[str, Any] = {
        "images": {"train": len(data.train_x), "test": len(data.test_x)},
        "device": described(device),
        "float": runs.metrics(start),
        "widths": {str(run.width): found[run.name] for run in fixed if not run.design.entry},
        "lowered": fixed[0].width,
    }
    if design.content.training.front:
        figures["front"] = front_facts(design, found)
    _judge(work, figures)
    return figures


def _leave(folder: Path, start: Path, places: Mapping[str, Path]) -> None:
    """Copy weights and logs of every run into the step's folder; the weights that go on, of the first one, unnamed."""
    from qfx.train import runs
    from qfx.train.log import LOGS

    first = next(iter(places))
    for name, place in {"float": start, **places}.items():
        for file in (place / file for file in (runs.WEIGHTS, runs.RECIPE, *LOGS)):
            if (
                file.is_file()
            ):  # a float network from a checkpoint has no log, and one whose widths are stated no recipe
                unnamed = name == first and file.name not in LOGS
                (folder / (file.name if unnamed else f"{name}.{file.name}")).write_bytes(file.read_bytes())


def _train_fixed(work: Work, data: Any, start: Path, fixed: list[_Run], told: _Shares) -> list[Path]:
    """Train from the float network in ``start`` in each run, several at a time, and return where each is."""
    from qfx.nn.ranks import ranks
    from qfx.train import runs
    from qfx.train.parallel import Children

    def keep(run: _Run, train: Callable[..., None]) -> Path:
        share = told.run(run.name)
        return work.keep(
            f"{run.width}bits",
            run.settings,
            lambda to, halfway: train(run.design, start, run.width, to, halfway, share, work.warn),
        )

    def train_here(design: Design, *rest: Any) -> None:
        runs.train_fixed(design, data, *rest)

    if len(fixed) == 1 or ranks() > 1:
        return [keep(run, train_here) for run in fixed]
    side_by_side = min(len(fixed), os.cpu_count() or 1)
    with ThreadPoolExecutor(side_by_side) as pool, Children(side_by_side) as children:
        jobs = [pool.submit(keep, run, children.train_fixed) for run in fixed]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Shares:
    """The progress of a step of several runs, some of them at once: each counts by its epochs."""

    def __init__(self, progress: Progress, design: Design, runs: list[_Run]) -> None:
        training = design.content.training
        fixed = 2.0 * training.fixed.epochs  # quantizers cost time
        self.weights = {"float": float(training.float_.epochs), **dict.fromkeys((run.name for run in runs), fixed)}
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
    for network in figures["front"]["networks"][1:] if "front" in figures else ():
        if not network["budget"]["fits"]:
            work.warn(f"{network['name']} must keep its budget, {_spent(network['budget'])}: it could not be planned")


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
        + "".join(f"\n{line}" for line in (front_lines(figures["front"]) if "front" in figures else ()))
    )


def _training_settings(design: Design, *without: str) -> dict[str, Any]:
    """What the training of a design depends on, accuracy targets and some keys of ``training`` left out."""
    content = design.content.model_dump(
        mode="json", include={"model", "data", "augment", "input", "recipe", "training"}
    )
    content["training"] = {key: value for key, value in content["training"].items() if key not in without}
    if content["training"].get("budget"):
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
        f"torch at {compared['nodes']} of them, {compared['frames']} inputs, {compared['codes']:,} codes"
    )


TRAIN = Step(
    "train",
    _train,
    _train_summary,
    settings=lambda design: [_training_settings(design), design.content.accuracy.model_dump()],
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
