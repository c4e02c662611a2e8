"""What can be known to be wrong with a design before anything is trained for minutes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from qfx.arguments import counted
from qfx.design import Design
from qfx.errors import PlanError, TrainError
from qfx.fixed import Fixed, count_digits
from qfx.fixed.khot import magnitudes
from qfx.nn import calibrate, quantizers
from qfx.nn.allocate import require_possible as require_allocatable
from qfx.nn.inputs import taken
from qfx.nn.ranks import alone
from qfx.train import runs
from qfx.train.budget import require_possible
from qfx.train.cost import HardwareCost
from qfx.train.data import Data, ends, require_classes
from qfx.train.digit_budget import require_possible as require_possible_digits
from qfx.train.distill import require_scores, taught
from qfx.train.sizes import learned_sizes

_LOOKED_AT = 256  # training inputs, where not all are


@alone()  # of several ranks the one that leads; the others wait for its first run
def preflight(design: Design, data: Data) -> list[str]:
    """Refuse a design whose network, recipe, labels or data cannot work, and return warnings about the others.

    The network is made, run on two training inputs, and converted at each width, and calibrated where its weights are
    those of a checkpoint; nothing of that is kept.

    Raises:
        QfxError: what is wrong, with its place.
    """
    model = runs.float_model(design).eval()
    runs.load_given(design, model)
    runs.augmentation(design)
    with runs.at(design, "data"):
        _require_reals(design, data)
    with runs.at(design, "model"):
        scores = _scores(design, model, data)
    with runs.at(design, "data"):
        _require_labels(design, data, scores.shape[1])
    _require_teacher(design, data, scores)
    _require_different_budgets(design)
    warnings = [*_large_batch(design, data), *_off_grid(design, data)]
    for width in design.content.training.widths:
        fixed = runs.fixed_model(design, model, width)
        if design.float_checkpoint:
            with runs.at(design, "recipe"), runs.heard() as lossy:
                calibrate(fixed.eval(), [data.train_x[:_LOOKED_AT]])
            warnings += lossy
        _require_learned_digits(design, fixed)
        warnings += _idle_digits(fixed)
        for each in design.along_front:
            _require_budget(each, data, fixed)
    return list(dict.fromkeys(warnings))


@torch.no_grad()
def _require_teacher(design: Design, data: Data, scores: torch.Tensor) -> None:
    """Refuse a teacher that does not give the scores of the same classes."""
    teacher = runs.teacher_of(design)
    if teacher is None:
        return
    with runs.at(design, "training.teacher"):
        taught(teacher, data.train_x[:2], scores.shape[1])


def _require_budget(design: Design, data: Data, model: nn.Module) -> None:
    """Refuse a hardware budget that cannot be kept; an untrained network needs about what a trained one does."""
    training = design.content.training
    if training.budget is not None:
        with runs.heard():  # of a trained network it has been said, and of another one it need not be so
            calibrate(model.eval(), [data.train_x[:_LOOKED_AT]])
        cost = _cost_at_rate(design, model)
    if training.allocate is not None:
        task = runs.allocation_task(design)
        with runs.at_budget(design, "training.allocate"), runs.heard():
            require_allocatable(runs.float_model(design), [data.train_x[:_LOOKED_AT]], **task)
    if training.budget is None or (training.allocate is not None and not learned_sizes(model)):
        return
    with runs.at_budget(design):
        require_possible(cost)


def _cost_at_rate(design: Design, model: nn.Module) -> HardwareCost:
    """What a calibrated model takes; a rate that no plan reaches is refused with the one that is reached."""
    budget, clock = design.content.training.budget, design.clock_mhz
    assert budget is not None  # callers have one
    try:
        return runs.hardware_cost(design, model)
    except TrainError as error:
        if budget.fps is None or not isinstance(error.__cause__, PlanError):
            raise
        least = int(HardwareCost(model, runs.example(design, 1), design.board).local.values["cycles"])
        most = int(clock * 1e6 / least) or clock * 1e6 / least  # whole frames: rounded up, they would not be reached
        if budget.fps <= most:
            raise
        raise TrainError(
            f"{design.place('training.budget.fps')}: training.budget.fps must be at most {most:,.10g}, what the plan "
            f"reaches on {design.board.name} at {clock:g} MHz in {counted(least, 'cycle')} a frame, not "
            f"{budget.fps:,.10g}: ask for less, or raise target.clock_mhz"
        ) from error


def _require_different_budgets(design: Design) -> None:
    """Refuse a front on which two networks would be one."""
    names: dict[object, str] = {}
    for each in design.along_front if design.content.training.front else ():
        with runs.at_budget(each):
            counts = runs.budget_of(each)
            if counts in names:
                raise TrainError(f"a budget of the front must differ from the others, not be that of {names[counts]}")
        names[counts] = each.budget_name


def _require_reals(design: Design, data: Data) -> None:
    for part, x in (("train", data.train_x), ("test", data.test_x)):
        if isinstance(x, torch.Tensor) and not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise TrainError(f"{part} data of {design.content.data} must be float32, not {kind}: use .float()")


@torch.no_grad()
def _scores(design: Design, model: nn.Module, data: Data) -> torch.Tensor:
    """Return what the network makes of two training inputs."""
    name = f"model {design.content.model}"
    x = data.train_x[:2]
    with taken(x, name=name):
        scores: torch.Tensor = model(x)
    require_scores(name, scores)
    return scores


def _require_labels(design: Design, data: Data, classes: int) -> None:
    for part, labels in (("train", data.train_y), ("test", data.test_y)):
        named = f"{part} labels of {design.content.data}"
        require_classes(ends(labels), classes, named, f"model {design.content.model}")


def _large_batch(design: Design, data: Data) -> list[str]:
    batch, inputs = design.content.training.batch, len(data.train_x)
    if batch <= inputs:
        return []
    return [
        f"training.batch should be at most the {inputs:,} training inputs, not {batch:,}: each step takes all of them"
    ]


def _require_learned_digits(design: Design, model: nn.Module) -> None:
    """Refuse a budget of digits that nothing can keep."""
    asked = runs.settings(design, design.content.training.fixed).digits
    if asked:
        with runs.at(design, "training.digits"):
            require_possible_digits(model, asked)


def _idle_digits(model: nn.Module) -> list[str]:
    """Warn of K-hot words that leave out no code of their width."""
    warnings = []
    for name, quantizer in quantizers(model).items():
        width, digits = quantizer.width, quantizer.spec.digits
        free = digits is None or digits.learn or width <= 2
        if digits and not free and len(magnitudes(width, digits.most, digits.signed)) == 1 << (width - 1):
            most = count_digits(np.arange(1 << (width - 1)), width, digits.signed)
            warnings.append(
                f"digits of {name} should leave out some codes of {counted(width, 'bit')}, but none has more than "
                f"{counted(most, 'digit')}: {f'state k below {most}, or ' if most > 1 else ''}leave digits out"
            )
    return warnings


def _off_grid(design: Design, data: Data) -> list[str]:
    """Warn of inputs that the host could not send as codes."""
    fixed = Fixed.parse(design.content.input.format)
    x = data.train_x if isinstance(data.train_x, torch.Tensor) else data.train_x[:_LOOKED_AT]
    codes = x.double() * 2.0**fixed.scalar_frac
    wrong = (codes != codes.round()) | (codes < fixed.min_code) | (codes > fixed.max_code)
    if not wrong.any():
        return []
    low, high = (code * 2.0**-fixed.scalar_frac for code in (fixed.min_code, fixed.max_code))
    return [
        f"training data should be values of input.format {fixed} ({low:g} to {high:g} in steps of "
        f"{2.0**-fixed.scalar_frac:g}), but {100 * wrong.double().mean():.1f} % of them are not, and are rounded or "
        "clipped: scale the data, or state another format"
    ]
