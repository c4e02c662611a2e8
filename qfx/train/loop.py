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
from qfx.nn.inputs import home, taken
from qfx.nn.ranks import gather, rank, ranks
from qfx.nn.table import require_fixed
from qfx.nn.trace import unlike_results
from qfx.train.augment import Augment, augmented
from qfx.train.budget import Budget
from qfx.train.compiled import runnable
from qfx.train.data import Data, ends, require_classes
from qfx.train.detection import Detection
from qfx.train.device import repeatable
from qfx.train.distill import distilled, require_scores, taught
from qfx.train.interrupts import Interrupts
from qfx.train.memory import keep_freed_memory
from qfx.train.pace import Pace
from qfx.train.pictures import in_turn
from qfx.train.record import Record
from qfx.train.settings import Settings
from qfx.train.state import State
from qfx.train.together import leaves_out, same_buffers, synchronous, without_averaging
from qfx.train.watchdog import first_diverged

Judge = Callable[[Any, Tensor], Tensor]  # from the network's result for a batch, and the targets
Progress = Callable[[float, str], None]


def fit(
    model: nn.Module,
    data: Data | Detection,
    settings: Settings,
    progress: Progress = lambda done, doing: None,
    augment: Augment | None = None,
    folder: Path | str | None = None,
    teacher: nn.Module | None = None,
    budget: Budget | None = None,
    loss: Judge | None = None,
    metric: Judge | None = None,
) -> nn.Module:
    """Train ``model``, by default as a classifier, on the training set and return it in evaluation mode.

    Everything random depends on the seed alone. Fixed-point layers learn their binary points at their own rate. Where
    several ranks train together, all are given the same data and each computes its share of every batch. The network is
    trained on the device where it is, to which inputs and targets go a batch at a time.

    Args:
        augment: from a batch of inputs to another one, where the data is; of a Detection, from inputs and targets to
            both.
        folder: where checkpoints and logs go. Training that was stopped carries on from the checkpoint there and ends
            in the same bits as if it had not been; SIGINT and SIGTERM leave one.
        teacher: a float network with the same classes, whose scores are targets too where ``settings.distill`` says
            how much; it sees the same augmented inputs, on the network's
            device, and stays as it is.
        budget: of hardware, which learned widths pay for; they fit it when formats are frozen, and in the end.
        loss: what is to become small, one number: the mean over the batch of what the network's result (in float32; a
            tensor, or a tuple of several) costs beside the targets. Without it, cross entropy.
        metric: a figure for the log, likewise a mean over the batch; without it, a classifier's accuracy in percent.

    Raises:
        TrainError: the loss is no longer finite, and the layer where that began is named; or the folder has a
            checkpoint of another training; or a batch is too small for its parts; or a label is none of the classes.
    """
    _require_fitting(data, settings, teacher, loss, metric)
    require_fixed(model)
    shown = teacher.eval() if teacher else None
    labels = ends(data.train_y) if loss is None else None
    device = home(model)
    learn = _Lesson(model, settings, device, augment, isinstance(data, Detection), shown, loss, metric, labels)
    batch = _batch(settings, data)
    per_epoch = len(data.train_x) // batch
    steps = per_epoch * settings.epochs
    keep_freed_memory()
    state, record = State.start(model, settings, per_epoch), Record(folder, settings, data, teacher, budget)
    state.budget = budget
    record.resume(state, per_epoch)
    network, pace = _network(model.train(), settings, data.train_x[:2]), Pace()
    with repeatable(device), Interrupts(folder is not None) as interrupts:
        while state.step < steps:
            order = torch.Generator()
            order.set_state(state.order)
            shuffled = torch.randperm(len(data.train_x), generator=order)[: per_epoch * batch]
            batches = shuffled.split(batch)[state.step % per_epoch :]
            mine = [chosen.tensor_split(ranks())[rank()] for chosen in batches]
            for chosen, x in in_turn(data.train_x, mine):
                if state.freeze():
                    network = _network(model, settings, data.train_x[:2])
                _step(network, state, (x, data.train_y[chosen]), batch, settings, learn)
                if state.step % per_epoch and interrupts.agreed():
                    record.save(state)
                    interrupts.obey()
                if state.step % per_epoch and pace.is_due():
                    _tell(progress, state.step, steps, per_epoch)
            epoch = state.step // per_epoch
            row = _row(state, epoch, per_epoch, batch, "accuracy" if loss is None else "metric" if metric else None)
            record.log(row)
            state.order, state.loss, state.score = order.get_state(), 0.0, 0.0
            stop = interrupts.agreed()
            if stop or epoch % settings.checkpoint == 0 or epoch == settings.epochs:
                record.save(state)
            if stop:
                interrupts.obey()
            _tell(progress, state.step, steps, per_epoch, f", loss {row['loss']:.3f}")
    if state.average:
        state.average.give(model)
    if budget:
        budget.settle()  # later weights may need wider accumulators
    state.settle()
    return same_buffers(model.eval())


def _require_fitting(
    data: Data | Detection, settings: Settings, teacher: nn.Module | None, loss: Judge | None, metric: Judge | None
) -> None:
    """Refuse choices that do not go together."""
    if (teacher is None) != (settings.distill is None):
        raise TrainError("a teacher must come with settings.distill, and only with it")
    if loss is None and (metric is not None or isinstance(data, Detection)):
        raise TrainError(
            f"{'a metric' if metric else 'a Detection'} must come with a loss, a function (result, targets) -> number"
        )
    if loss is not None and (teacher is not None or settings.label_smoothing):
        raise TrainError("a loss must stand without teacher and label_smoothing, which belong to cross entropy")


def _network(model: nn.Module, settings: Settings, x: Tensor) -> nn.Module:
    """Return what is to be called in training as long as the same parameters are learned; ``x`` are some inputs."""
    return synchronous(runnable(model, settings), leaves_out(model, x.to(home(model))))


def _batch(settings: Settings, data: Data | Detection) -> int:
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
    settings: Settings
    device: torch.device  # of the network
    augment: Augment | None
    moves_targets: bool  # whether augment takes and gives targets too
    teacher: nn.Module | None
    loss: Judge | None
    metric: Judge | None
    labels: tuple[int, int] | None  # the smallest and the largest of a classifier's

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """The mean loss of inputs, and the sum over them of the figure that is logged."""
        if self.augment:
            x, y = augmented(self.augment, x, y, self.moves_targets)
        x, y = x.to(self.device), y.to(self.device)
        with taken(x), torch.autocast(x.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            result = network(x)
        if reason := unlike_results(result, Tensor):
            raise TrainError(f"the network's result: {reason}")
        result = result.float() if isinstance(result, Tensor) else tuple(each.float() for each in result)
        loss = self._classified(result, x, y) if self.loss is None else self._own(self.loss, result, y)
        if not torch.isfinite(loss):
            raise TrainError(
                f"the loss must stay finite, not {loss.item()}; {first_diverged(self.model, x, self.teacher)}"
            )
        return loss, self._figure(result, y)

    def _classified(self, scores: Any, x: Tensor, y: Tensor) -> Tensor:
        require_scores("the network", scores, remedy=": give fit a loss of your own for other results")
        assert self.labels is not None  # there, since there is no loss of one's own
        require_classes(self.labels, scores.shape[1], model="the network")
        loss = F.cross_entropy(scores, y, label_smoothing=self.settings.label_smoothing)
        if self.teacher is not None and self.settings.distill is not None:
            loss = distilled(loss, scores, taught(self.teacher, x, scores.shape[1]), self.settings.distill)
        return loss

    @staticmethod
    def _own(judge: Judge, result: Any, y: Tensor) -> Tensor:
        loss = judge(result, y)
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            found = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TrainError(f"loss must return one number that depends on the network, not {found}")
        return loss

    @torch.no_grad()
    def _figure(self, result: Any, y: Tensor) -> float:
        if self.metric is not None:
            return float(self.metric(result, y)) * len(y)
        return 100.0 * int((result.argmax(1) == y).sum()) if self.loss is None else 0.0


def _step(
    network: nn.Module, state: State, mine: tuple[Tensor, Tensor], batch: int, settings: Settings, learn: _Lesson
) -> None:
    """One step of the optimizer on a ``batch``, of which this rank has the inputs and targets ``mine``."""
    parts = list(zip(*(each.tensor_split(settings.accumulate) for each in mine), strict=True))
    state.optimizer.zero_grad()
    for number, (x, y) in enumerate(parts):
        with nullcontext() if number == len(parts) - 1 else without_averaging(network):
            loss, score = learn(network, x, y)
            share = len(y) * ranks() / batch
            (loss * share).backward()
        state.loss += loss.item() * share
        state.score += score
    scale_format_gradients(state.model, len(parts) * ranks())
    if state.budget and state.step < state.freeze_formats_at:
        state.budget.charge()
    if settings.clip is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip)
    if state.digits:
        state.digits.press(state.model)
    state.optimizer.step()
    state.schedule.step()
    state.step += 1
    if state.budget and state.step <= state.freeze_formats_at:
        state.budget.step(state.step)
    if state.average:
        state.average.update(state.model, state.step)
    if state.step > state.freeze_formats_at:
        state.settle()


def _row(state: State, epoch: int, per_epoch: int, batch: int, figure: str | None) -> dict[str, Any]:
    """The figures of an epoch that ended: means over its training batches, and binary points that moved so far."""
    loss, score = (sum(each) for each in zip(*gather((state.loss, state.score)), strict=True))
    moved = {name: move.moved for name, move in moves(state.model).items()}
    return {
        "epoch": epoch,
        "step": state.step,
        "loss": loss / ranks() / per_epoch,
        **({figure: score / (per_epoch * batch)} if figure else {}),
        "lr": state.schedule.get_last_lr()[0],
        "moved": sum(moved.values()),
        "moves": moved,
        **({"digits": int(nonzero_digits(state.model))} if digit_moves(state.model) else {}),
    }


def _tell(progress: Progress, step: int, steps: int, per_epoch: int, more: str = "") -> None:
    epoch = -(-step // per_epoch)
    progress(step / steps, f"epoch {epoch}/{steps // per_epoch}{more}")


@torch.no_grad()
def accuracy(
    evaluate: Callable[[Tensor], Any], x: Tensor, y: Tensor, device: torch.device | str | None = None
) -> float:
    """Return how many inputs, in percent, get the highest score at their label; ties go to the first.

    Inputs go to ``device``, where what evaluates them is, by default to where they are already.
    Parts of 128: the values between layers of larger ones are memory that the system hands out anew each time.
    """
    parts = zip(x.split(128), y.split(128), strict=True)
    right = sum(int((evaluate(a.to(device or a.device)).argmax(1).to(b.device) == b).sum()) for a, b in parts)
    return 100.0 * right / len(x)
