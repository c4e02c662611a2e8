"""How one network is trained: every choice of the loop, checked."""

from dataclasses import dataclass
from typing import Literal

from qfx.errors import TrainError


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps: it rises in the first ``warmup`` part of them to the highest, and falls.

    ``cosine``: as a cosine to 0, Adam's first beta the other way round (Smith and Topin, 2018). ``step``: times
    ``factor`` at the end of each epoch in ``milestones``.
    """

    kind: Literal["cosine", "step"] = "cosine"
    warmup: float = 0.05
    milestones: tuple[int, ...] = ()
    factor: float = 0.1


@dataclass(frozen=True)
class Distill:
    """How much a teacher counts, and how soft its scores are taken (see qfx.train.distill)."""

    temperature: float = 4.0
    weight: float = 0.7  # of the teacher; the labels have the rest

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.weight <= 1:
            raise TrainError(
                "distillation must have a temperature above 0 and a weight above 0 and at most 1, not "
                f"{self.temperature} and {self.weight}"
            )


@dataclass(frozen=True)
class DigitLimit:
    """How many non-zero digits all K-hot constants may have at the end: in all, or on average."""

    budget: int | None = None
    mean: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.budget, self.mean) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            raise TrainError(f"digits must have either a budget or a mean, above 0, not {self.budget} and {self.mean}")

    def of(self, constants: int) -> int:
        """Return the digits that so many constants may have together."""
        return self.budget if self.budget is not None else int((self.mean or 0) * constants)


@dataclass(frozen=True)
class Freeze:
    """The last parts of the steps in which something stands still; 0: never, 1: from the first step on."""

    bn: float = 0.1  # BatchNorm's statistics: later than formats, so that they are those of the last formats
    formats: float = 0.2  # binary points and widths

    def __post_init__(self) -> None:
        if not 0 <= self.bn <= 1 or not 0 <= self.formats <= 1:
            raise TrainError(f"freeze must have parts of the steps, 0..1, not {self.bn} and {self.formats}")


@dataclass(frozen=True)
class Settings:
    """How one network is trained."""

    epochs: int
    lr: float  # the highest
    batch: int = 64  # inputs of one step of the optimizer, over all ranks
    seed: int = 0
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0  # Szegedy et al., 2016, section 7
    freeze: Freeze = Freeze()
    schedule: Schedule = Schedule()
    accumulate: int = 1  # parts in which each rank computes its share of a batch
    precision: Literal["float32", "bfloat16"] = "float32"  # of convolutions and products; quantizers keep float32
    clip: float | None = None  # the largest norm of all gradients together
    ema: float = 0.0  # decay of the averaged weights that are the result; 0: the last weights are
    checkpoint: int = 1  # epochs between checkpoints
    distill: Distill | None = None  # with a teacher, and only then
    formats: Literal["learned", "frozen"] = "learned"  # binary points and widths; frozen: they stay as calibrated
    digits: DigitLimit | None = None  # a budget that learned K keep; without one, K are learned by the loss alone
    frac_lr: float | None = None  # the highest rate of binary points and widths, bits a step; None: see param_groups
    compile: bool = False  # by torch.compile: minutes once, then shorter steps

    def __post_init__(self) -> None:
        last = self.schedule.milestones[-1:] or (0,)
        if list(self.schedule.milestones) != sorted(set(self.schedule.milestones)) or last[0] >= self.epochs:
            raise TrainError(
                f"milestones of the schedule must rise and lie before epoch {self.epochs}, the last, not "
                f"{list(self.schedule.milestones)}"
            )
        if (self.schedule.kind == "step") != bool(self.schedule.milestones):
            raise TrainError("a schedule must have milestones if it is a step schedule, and only then")
        if min(self.epochs, self.batch, self.accumulate, self.checkpoint) < 1 or self.batch < self.accumulate:
            raise TrainError(
                "epochs, batch, accumulate and checkpoint must be at least 1, and batch at least accumulate, not "
                f"{self.epochs}, {self.batch}, {self.accumulate} and {self.checkpoint}"
            )
        if self.frac_lr is not None and self.frac_lr <= 0:
            raise TrainError(f"frac_lr must lie above 0, not {self.frac_lr}: to learn no binary points freeze formats")
        if not 0 <= self.ema < 1 or not 0 <= self.schedule.warmup < 1 or (self.clip is not None and self.clip <= 0):
            raise TrainError(
                "ema and warmup must lie in 0..1, 1 not included, and clip above 0, not "
                f"{self.ema}, {self.schedule.warmup} and {self.clip}"
            )
