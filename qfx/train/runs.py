"""The runs of a design's training: float, then fixed point at each width, each saved with what it reached."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from qfx.design import FILE_NAME, Design
from qfx.errors import PlanError, RecipeError, TrainError
from qfx.nn import allocate, calibrate, convert, correct, digits_by_constant, exact, moves, quantizers
from qfx.nn.inputs import home
from qfx.nn.ranks import rank, ranks
from qfx.nn.recipe import Recipe, placed
from qfx.plan import Resources, limits
from qfx.sections import PhaseSection
from qfx.train.budget import Budget
from qfx.train.budget import reached as reached_within
from qfx.train.budget import start as start_within
from qfx.train.cost import HardwareCost
from qfx.train.data import Data
from qfx.train.device import choose
from qfx.train.float_checkpoint import load_float
from qfx.train.hardware import Hardware
from qfx.train.log import LOGS, TENSORBOARD
from qfx.train.loop import accuracy, fit
from qfx.train.settings import DigitLimit, Distill, Freeze, Schedule, Settings
from qfx.train.sizes import learned_sizes
from qfx.train.together import Run, call

WEIGHTS = "weights.safetensors"
METRICS = "metrics.json"
RECIPE = "recipe.json"  # of a network whose widths were allocated

Progress = Callable[[float, str], None]


@contextmanager
def at(design: Design, key: str, name: str = "") -> Iterator[None]:
    """Name the place of a key of design.yaml where what it stands for is refused in the block."""
    try:
        yield
    except (TrainError, PlanError) as error:
        raise TrainError(f"{design.place(key)}: {name}{error}") from error


def at_budget(design: Design, key: str = "training.budget") -> AbstractContextManager[None]:
    """The same for what depends on the budget: of an entry of ``training.front``, that entry and its name."""
    if not design.entry:
        return at(design, key)
    return at(design, f"training.front.{design.entry - 1}", f"{design.budget_name}: ")


def load_data(design: Design) -> Data:
    """Return the design's data, checked."""
    data = design.call(design.content.data, "data")
    if not isinstance(data, Data):
        raise TrainError(
            f"{design.place('data')}: data {design.content.data} must return a qfx.train.Data, not "
            f"{type(data).__name__}"
        )
    with at(design, "data"):
        data.check_shape(design.content.input.shape)
    return data


def float_model(design: Design) -> nn.Module:
    """Return the design's float network, freshly initialised from its seed."""
    torch.manual_seed(design.content.training.seed)
    model = design.call(design.content.model, "model")
    if not isinstance(model, nn.Module):
        raise TrainError(
            f"{design.place('model')}: model {design.content.model} must make a torch.nn.Module, not "
            f"{type(model).__name__}"
        )
    return model


def fixed_model(design: Design, model: nn.Module, width: int, recipe: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the fixed-point copy of a float network by a recipe, or else by the design's at a ``width``."""
    given = recipe or recipe_at(design, width)
    with placed(design.folder / FILE_NAME, "recipe"):
        return convert(model, given, example(design).to(home(model)))


def recipe_at(design: Design, width: int) -> dict[str, Any]:
    """Return the design's recipe with ``width`` as its default.

    Its patterns hold at every width: they name what is to stay as it is.
    """
    recipe, first = design.content.recipe, design.content.training.widths[0]
    with placed(design.folder / FILE_NAME, "recipe"):
        Recipe(recipe)
        default = {"input": design.content.input.format, **(recipe.get("default") or {})}
        for point in ("weight", "activation"):
            default[point] = _at_width(default.get(point), point, width, first)
        return {**recipe, "default": default}


def example(design: Design, batch: int = 2) -> torch.Tensor:
    """Return a batch of zeros in the shape of the design's input."""
    shape = design.content.input.shape
    return torch.zeros(batch, shape[-1], *shape[:-1])


def train_float(design: Design, data: Data, folder: Path, halfway: Path, progress: Progress) -> None:
    """Train the float network, or take it from the design's checkpoint, and save it.

    Checkpoints of the training go to the folder ``halfway``.
    """
    call((0, 0, folder, halfway))
    device = device_of(design)
    model = float_model(design).to(device)
    if not load_given(design, model):
        _fit(design, model, data, design.content.training.float_, halfway, progress)
        _keep_logs(halfway, folder)
    _save(folder, model, {"accuracy": accuracy(model, data.test_x, data.test_y, device)})


def load_given(design: Design, model: nn.Module) -> bool:
    """Load the float network from the design's checkpoint and return True, if it has one."""
    place = design.float_checkpoint
    if place is not None:
        with at(design, "training.float.checkpoint"):
            load_float(model, place).eval()
    return place is not None


def train_fixed(
    design: Design, data: Data, start: Path, width: int, folder: Path, halfway: Path, progress: Progress
) -> None:
    """Convert the float network saved in ``start``, calibrate it, train it on in fixed point and save it."""
    call((width, design.entry, start, halfway))
    model, budget, recipe = _calibrated(design, data, start, width)
    device = home(model)
    quantized = accuracy(exact(model), data.test_x, data.test_y, device)
    _fit(design, model, data, design.content.training.fixed, halfway, progress, teacher_of(design, start), budget)
    _keep_logs(halfway, folder)
    reached = accuracy(exact(model), data.test_x, data.test_y, device)
    points = {name: {"before": move.before, "now": move.now} for name, move in moves(model).items()}
    formats = {name: str(quantizer.format()) for name, quantizer in quantizers(model).items()}
    found: dict[str, Any] = {"quantized": quantized, "accuracy": reached, "moves": points, "formats": formats}
    if digits := digits_by_constant(model):
        found["digits"] = digits
    if design.content.training.budget:
        found["budget"] = reached_within(budget.cost if budget else hardware_cost(design, model))
    if recipe is not None:
        (folder / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    _save(folder, model, found)


def join(design: Design, data: Data, run: Run) -> None:
    """Do this rank's share of a run that the first rank leads."""
    width, entry, start, halfway = run
    design = design.on_front(entry)
    if width:
        model, budget, _ = _calibrated(design, data, start, width)
        _fit(design, model, data, design.content.training.fixed, halfway, _silent, teacher_of(design, start), budget)
    elif not design.float_checkpoint:
        _fit(design, float_model(design).to(device_of(design)), data, design.content.training.float_, halfway, _silent)


def teacher_of(design: Design, start: Path | None = None) -> nn.Module | None:
    """Return the design's teacher, if it has one; the float network is that saved in ``start``, or else untrained."""
    asked = design.content.training.teacher
    if asked is None:
        return None
    model = design.call(asked.model, "training.teacher.model") if asked.model else float_model(design)
    if not isinstance(model, nn.Module):
        raise TrainError(
            f"{design.place('training.teacher.model')}: training.teacher.model {asked.model} must make a "
            f"torch.nn.Module, not {type(model).__name__}"
        )
    if place := design.teacher_checkpoint:
        with at(design, "training.teacher.checkpoint"):
            load_float(model, place)
    elif start:
        load_weights(model, start)
    return model.eval().requires_grad_(False)


def device_of(design: Design) -> torch.device:
    """Return where the design is trained."""
    with at(design, "training.device"):
        return choose(design.content.training.device)


def hardware_cost(design: Design, model: nn.Module) -> HardwareCost:
    """Return what a calibrated model takes, for the design's board, rate and budget."""
    with at_budget(design):
        x = example(design, 1).to(home(model))
        return HardwareCost(model, x, design.board, design.cycles, budget_of(design))


def budget_of(design: Design) -> Resources:
    """Return the design's hardware budget in counts."""
    asked = design.content.training.budget
    assert asked is not None  # callers have a budget
    return limits(design.board, asked.counts)


def allocation_task(design: Design) -> dict[str, Any]:
    """Return what ``training.allocate`` asks of `qfx.allocate`: recipe, budget, widths, points and hardware."""
    training = design.content.training
    asked = training.allocate
    assert asked is not None  # callers have it
    bits = {"weight_bits": asked.weight_bits, "bit_operations": asked.bit_operations}
    budget: dict[str, float] = {name: most for name, most in bits.items() if most is not None}
    hardware = None
    if training.budget is not None:
        assert design.cycles is not None  # the design says the rate where it has a budget
        budget, hardware = {**budget, **training.budget.counts}, Hardware(design.board, design.cycles)
    recipe = recipe_at(design, training.widths[0])
    return {
        "recipe": recipe,
        "budget": budget,
        "widths": asked.widths,
        "points": asked.points,
        "hardware": hardware,
    }


def _allocated(design: Design, model: nn.Module, batches: list[torch.Tensor]) -> dict[str, Any] | None:
    """The recipe with the widths that ``training.allocate`` asks for, if it does."""
    training = design.content.training
    if training.allocate is None:
        return None
    looked_at = -(-training.allocate.images // ranks())
    method, percentile = training.calibration.method, training.calibration.percentile
    task = allocation_task(design)
    with at_budget(design, "training.allocate"):
        return allocate(model, batches, **task, looked_at=looked_at, method=method, percentile=percentile).recipe


def _calibrated(
    design: Design, data: Data, start: Path, width: int
) -> tuple[nn.Module, Budget | None, dict[str, Any] | None]:
    """The float network quantized after training, within its budget if there is one: where fixed point starts.

    With it the prices of the budget, where widths are learned, and the recipe, where its widths were allocated.
    """
    training = design.content.training
    asked = training.calibration
    device = device_of(design)
    images = data.train_x[: asked.images].to(device)
    mine = list(images.split(min(256, -(-len(images) // ranks())))[rank() :: ranks()])  # each rank has some
    net = load_weights(float_model(design), start).to(device)
    with _threads(design):
        recipe = _allocated(design, net, mine)
        model = fixed_model(design, net, width, recipe)
        correct(calibrate(model.eval(), mine, asked.method, asked.percentile), mine)
        if training.budget is None or (recipe is not None and not learned_sizes(model)):
            return model, None, recipe
        steps = training.fixed.epochs * (len(data.train_x) // training.batch)
        cost = hardware_cost(design, model)
        with at_budget(design):
            return model, start_within(cost, mine, max(steps, 1)), recipe


def trained_model(design: Design, folder: Path) -> nn.Module:
    """Return the trained fixed-point network of the design's first width from its checkpoint."""
    path = folder / RECIPE
    recipe = json.loads(path.read_text("utf-8")) if path.is_file() else None
    model = fixed_model(design, float_model(design), design.content.training.widths[0], recipe)
    return load_weights(model, folder).eval()


def load_weights(model: nn.Module, folder: Path) -> nn.Module:
    """Load a checkpoint; every key must be there, and no other."""
    path = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainError(f"{path} must hold the weights of this network: {error}: train again") from error
    return model


def metrics(folder: Path) -> dict[str, Any]:
    """Return what a run reached."""
    found: dict[str, Any] = json.loads((folder / METRICS).read_text("utf-8"))
    return found


def _save(folder: Path, model: nn.Module, reached: Mapping[str, Any]) -> None:
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(state))  # not save_file, which hides a full disk in an error of its own
    (folder / METRICS).write_text(json.dumps(reached, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _threads(design: Design) -> Iterator[None]:
    """Give torch the threads that the design asks for."""
    before = torch.get_num_threads()
    torch.set_num_threads(design.content.training.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _silent(done: float, doing: str) -> None:
    """Tell nobody: the first rank does."""


def _fit(
    design: Design,
    model: nn.Module,
    data: Data,
    phase: PhaseSection,
    halfway: Path,
    progress: Progress,
    teacher: nn.Module | None = None,
    budget: Budget | None = None,
) -> None:
    teacher = teacher and teacher.to(home(model))
    with _threads(design):
        fit(model, data, settings(design, phase), progress, augmentation(design), halfway, teacher, budget)


def settings(design: Design, phase: PhaseSection) -> Settings:
    """Return what the loop is told for a phase of a design's training."""
    training = design.content.training
    names = {"batch", "seed", "label_smoothing", "accumulate", "precision", "clip", "ema"}
    names |= {"checkpoint", "formats", "frac_lr", "compile"}
    common = {name: getattr(training, name) for name in names}
    asked = training.teacher if phase is training.fixed else None
    distill = Distill(asked.temperature, asked.weight) if asked else None
    budget = training.digits if phase is training.fixed else None
    return Settings(
        phase.epochs,
        phase.lr,
        schedule=Schedule(**phase.schedule.model_dump()),
        freeze=Freeze(**training.freeze.model_dump()),
        distill=distill,
        digits=DigitLimit(**budget.model_dump()) if budget else None,
        **common,
    )


def _keep_logs(halfway: Path, folder: Path) -> None:
    for name in LOGS:
        shutil.copyfile(halfway / name, folder / name)
    if (halfway / TENSORBOARD).is_dir():
        shutil.copytree(halfway / TENSORBOARD, folder / TENSORBOARD)


def augmentation(design: Design) -> Any:
    """Return the design's function from a batch of training inputs to another one, or None."""
    reference = design.content.augment
    found = design.object(reference, "augment") if reference else None
    if reference and not callable(found):
        raise TrainError(
            f"{design.place('augment')}: augment must name a function, not {reference}, a {type(found).__name__}"
        )
    return found


def _at_width(spec: Any, point: str, width: int, first: int) -> Any:
    """Return the default of a point in the run of that width.

    Raises:
        RecipeError: it states another width than the ``first`` one, so that run would not be what it is called.
    """
    rest = spec if isinstance(spec, Mapping) else {}
    whole = spec if isinstance(spec, str | int) else {"width": first, **rest}
    stated = Recipe({"default": {point: whole}}).spec("", point).width
    if stated != first:
        raise RecipeError(
            f"recipe key 'default.{point}' must have the first width of training.widths, {first}, not {stated}: "
            f"begin widths with {stated}, or state the width in layers, at '*', where it holds in every run",
            f"default.{point}",
        )
    return whole if width == first else {**rest, "width": width}
