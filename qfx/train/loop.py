"""The training loop: one for the float network and for the fixed-point one."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import digit_moves, moves, nonzero_digits
from qfx.nn.control import scale_format_gradients
from qfx.nn.ranks import gather, rank, ranks
from qfx.train.budget import Budget
from qfx.train.compiled import runnable
from qfx.train.data import Data
from qfx.train.distill import distilled, taught
from qfx.train.interrupts import Interrupts
from qfx.train.pace import Pace
from qfx.train.record import Record
from qfx.train.settings import Settings
from qfx.train.state import State
from qfx.train.together import same_buffers, synchronous, without_averaging
from qfx.train.watchdog import first_diverged

Augment = Callable[[Tensor], Tensor]
Progress = Callable[[float, str], None]


def fit(
    model: nn.Module,
    data: Data,
    settings: Settings,
    progress: Progress = lambda done, doing: None,
    augment: Augment | None = None,
    folder: Path | None = None,
    teacher: nn.Module | None = None,
    budget: Budget | None = None,
) -> nn.Module:
    """Train ``model`` as a classifier on the training set and return it in evaluation mode.

    Everything random depends on the seed alone. Fixed-point layers learn their binary points at their own rate. Where
    several ranks train together, all are given the same data and each computes its share of every batch.

    Args:
        folder: where checkpoints and logs go. Training that was stopped carries on from the checkpoint there and ends
            in the same bits as if it had not been; SIGINT and SIGTERM leave one.
        teacher: a float network with the same classes, whose scores are targets too where ``settings.distill`` says
            how much; it sees the same augmented inputs, and stays as it is.
        budget: of hardware, which learned widths pay for; they fit it when formats are frozen, and in the end.

    Raises:
        TrainError: the loss is no longer finite, and the layer where that began is named; or the folder has a
            checkpoint of another training; or a batch is too small for its parts.
    """
    if (teacher is None) != (settings.distill is None):
        raise TrainError("a teacher must come with settings.distill, and only with it")
    learn = _Lesson(model, data, settings, augment, teacher.eval() if teacher else None)
    batch = _batch(settings, data)
    per_epoch = len(data.train_x) // batch
    steps = per_epoch * settings.epochs
    state, record = State.start(model, settings, per_epoch), Record(folder, settings, data, teacher)
    state.budget = budget
    record.resume(state, per_epoch)
    network, pace = synchronous(runnable(model.train(), settings)), Pace(state.step, steps)
    with Interrupts(folder is not None) as interrupts:
        while state.step < steps:
            order = torch.Generator()
            order.set_state(state.order)
            shuffled = torch.randperm(len(data.train_x), generator=order)[: per_epoch * batch]
            for chosen in shuffled.split(batch)[state.step % per_epoch :]:
                if state.step == state.freeze_at:
                    state.freeze()
                    network = synchronous(runnable(model, settings))
                _step(network, state, chosen, settings, learn)
                if state.step % per_epoch and interrupts.agreed():
                    record.save(state)
                    interrupts.obey()
                if state.step % per_epoch and pace.is_due():
                    _tell(progress, state.step, steps, per_epoch, pace)
            epoch = state.step // per_epoch
            row = _row(state, epoch, per_epoch, batch)
            record.log(row)
            state.order, state.loss, state.right = order.get_state(), 0.0, 0
            stop = interrupts.agreed()
            if stop or epoch % settings.checkpoint == 0 or epoch == settings.epochs:
                record.save(state)
            if stop:
                interrupts.obey()
            _tell(progress, state.step, steps, per_epoch, pace, f", loss {row['loss']:.3f}")
    if state.average:
        state.average.give(model)
    if budget:
        budget.settle()  # later weights may need wider accumulators
    state.settle()
    return same_buffers(model.eval())


def _batch(settings: Settings, data: Data) -> int:
    batch, parts = min(settings.batch, len(data.train_x)), settings.accumulate * ranks()
    if batch < parts:
        raise TrainError(
            f"a batch must have an input for each of its {parts} parts (accumulate times ranks), not {batch} inputs: "
            "accumulate less, or enlarge the batch"
        )
    return batch


@dataclass(frozen=True)
class _Lesson:
    """What a network is to learn from inputs."""

    model: nn.Module
    data: Data
    settings: Settings
    augment: Augment | None
    teacher: nn.Module | None

    def __call__(self, network: nn.Module, part: Tensor) -> tuple[Tensor, int]:
        """The mean loss of the inputs with the indices ``part``, and how many of them are classified rightly."""
        x, y, settings = self.data.train_x[part], self.data.train_y[part], self.settings
        x = self.augment(x) if self.augment else x
        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            scores = network(x).float()
        loss = F.cross_entropy(scores, y, label_smoothing=settings.label_smoothing)
        if self.teacher is not None and settings.distill is not None:
            loss = distilled(loss, scores, taught(self.teacher, x), settings.distill)
        if not torch.isfinite(loss):
            raise TrainError(f"the loss must stay finite, not {loss.item()}; {first_diverged(self.model, x)}")
        return loss, int((scores.argmax(1) == y).sum())


def _step(network: nn.Module, state: State, chosen: Tensor, settings: Settings, learn: _Lesson) -> None:
    """One step of the optimizer on the inputs with the indices ``chosen``, of which each rank takes its share."""
    parts = chosen.tensor_split(ranks())[rank()].tensor_split(settings.accumulate)
    state.optimizer.zero_grad()
    for number, part in enumerate(parts):
        with nullcontext() if number == len(parts) - 1 else without_averaging(network):
            loss, right = learn(network, part)
            share = len(part) * ranks() / len(chosen)
            (loss * share).backward()
        state.loss += loss.item() * share
        state.right += right
    scale_format_gradients(state.model, len(parts) * ranks())
    if state.budget and state.step < state.freeze_at:
        state.budget.charge()
    if settings.clip is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    if state.digits:
        state.digits.press(state.model)
    state.optimizer.step()
    state.schedule.step()
    state.step += 1
    if state.budget and state.step <= state.freeze_at:
        state.budget.step(state.step)
    if state.average:
        state.average.update(state.model, state.step)
    if state.step > state.freeze_at:
        state.settle()


def _row(state: State, epoch: int, per_epoch: int, batch: int) -> dict[str, Any]:
    """The figures of an epoch that ended: means over its training batches, and binary points that moved so far."""
    loss, right = (sum(each) for each in zip(*gather((state.loss, state.right)), strict=True))
    moved = {name: move.moved for name, move in moves(state.model).items()}
    return {
        "epoch": epoch,
        "step": state.step,
        "loss": loss / ranks() / per_epoch,
        "accuracy": 100.0 * right / (per_epoch * batch),
        "lr": state.schedule.get_last_lr()[0],
        "moved": sum(moved.values()),
        "moves": moved,
        **({"digits": int(nonzero_digits(state.model))} if digit_moves(state.model) else {}),
    }


def _tell(progress: Progress, step: int, steps: int, per_epoch: int, pace: Pace, more: str = "") -> None:
    epoch = -(-step // per_epoch)
    progress(step / steps, f"epoch {epoch}/{steps // per_epoch}{more}, {pace.left(step)}")


@torch.no_grad()
def accuracy(evaluate: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> float:
    """Return how many inputs, in percent, get the highest score at their label; ties go to the first."""
    right = sum(int((evaluate(a).argmax(1) == b).sum()) for a, b in zip(x.split(512), y.split(512), strict=True))
    return 100.0 * right / len(x)
