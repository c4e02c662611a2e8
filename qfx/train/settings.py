"""How one network is trained: every choice of the loop, checked."""

from dataclasses import dataclass
from typing import Literal, get_args

from qfx.arguments import require_choice, require_kind, require_number, require_whole
from qfx.errors import TrainError

Kind = Literal["cosine", "step"]
Precision = Literal["float32", "bfloat16"]
Formats = Literal["learned", "frozen"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps: it rises in the first ``warmup`` part of them to the highest, and falls.

    ``cosine``: as a cosine to 0, Adam's first beta the other way round (Smith and Topin, 2018). ``step``: times
    ``factor`` at the end of each epoch in ``milestones``.
    """

    kind: Kind = "cosine"
    warmup: float = 0.05
    milestones: tuple[int, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        require_choice(TrainError, "kind of a schedule", self.kind, get_args(Kind))
        require_number(TrainError, "warmup", self.warmup, 0, 1, below=True)
        require_number(TrainError, "factor", self.factor, 0, 1, above=True)
        require_kind(TrainError, "milestones", self.milestones, (tuple, list), "a tuple of epochs")
        for milestone in self.milestones:
            require_whole(TrainError, "milestone", milestone)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise TrainError(f"milestones must rise, not {list(self.milestones)}")
        if (self.kind == "step") != bool(self.milestones):
            raise TrainError("a schedule must have milestones if it is a step schedule, and only then")


@dataclass(frozen=True)
class Distill:
    """How much a teacher counts, and how soft its scores are taken (see qfx.train.distill)."""

    temperature: float = 4.0
    weight: float = 0.7  # of the teacher; the labels have the rest

    def __post_init__(self) -> None:
        require_number(TrainError, "temperature", self.temperature, above=True)
        require_number(TrainError, "weight of a teacher", self.weight, 0, 1, above=True)


@dataclass(frozen=True)
class DigitLimit:
    """How many non-zero digits all K-hot constants may have at the end: in all, or on average."""

    budget: int | None = None
    mean: float | None = None

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.mean is None):
            raise TrainError(f"digits must have either a budget or a mean, not {self.budget} and {self.mean}")
        if self.budget is not None:
            require_whole(TrainError, "budget of digits", self.budget)
        else:
            require_number(TrainError, "mean of digits", self.mean, above=True)

    def of(self, constants: int) -> int:
        """Return the digits that so many constants may have together."""
        return self.budget if self.budget is not None else int((self.mean or 0) * constants)


@dataclass(frozen=True)
class Freeze:
    """The last parts of the steps in which something stands still; 0: never, 1: from the first step on."""

    bn: float = 0.1  # BatchNorm's statistics: later than formats, so that they are those of the last formats
    formats: float = 0.2  # binary points and widths

    def __post_init__(self) -> None:
        for name, part in (("bn", self.bn), ("formats", self.formats)):
            require_number(TrainError, f"freeze.{name}", part, 0, 1, "a part of the steps")


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
    precision: Precision = "float32"  # of convolutions and products; quantizers keep float32
    clip: float | None = None  # the largest norm of all gradients together
    ema: float = 0.0  # decay of the averaged weights that are the result; 0: the last weights are
    checkpoint: int = 1  # epochs between checkpoints
    distill: Distill | None = None  # with a teacher, and only then
    formats: Formats = "learned"  # binary points and widths; frozen: they stay as calibrated
    digits: DigitLimit | None = None  # a budget that learned K keep; without one, K are learned by the loss alone
    frac_lr: float | None = None  # the highest rate of binary points and widths, bits a step; None: see param_groups
    compile: bool = False  # by torch.compile: minutes once, then shorter steps

    def __post_init__(self) -> None:
        self._require_parts()
        for name in ("epochs", "batch", "accumulate", "checkpoint"):
            require_whole(TrainError, name, getattr(self, name))
        require_whole(TrainError, "seed", self.seed, 0)
        for name in ("lr", "weight_decay"):
            require_number(TrainError, name, getattr(self, name))
        for name in ("ema", "label_smoothing"):
            require_number(TrainError, name, getattr(self, name), 0, 1, below=True)
        if self.clip is not None:
            require_number(TrainError, "clip", self.clip, above=True)
        if self.frac_lr is not None:
            require_number(TrainError, "frac_lr", self.frac_lr, above=True)
        require_choice(TrainError, "precision", self.precision, get_args(Precision))
        require_choice(TrainError, "formats", self.formats, get_args(Formats))
        if self.batch < self.accumulate:
            raise TrainError(f"accumulate must be at most the batch, {self.batch}, not {self.accumulate}")
        if self.schedule.milestones and self.schedule.milestones[-1] >= self.epochs:
            raise TrainError(
                f"milestones must lie before epoch {self.epochs}, the last, not {list(self.schedule.milestones)}"
            )

    def _require_parts(self) -> None:
        """Refuse what is none of the classes above."""
        for name, kind in (("freeze", Freeze), ("schedule", Schedule), ("compile", bool)):
            require_kind(TrainError, name, getattr(self, name), kind, f"a {kind.__name__}")
        for name, optional in (("distill", Distill), ("digits", DigitLimit)):
            require_kind(TrainError, name, getattr(self, name), (optional, type(None)), f"a {optional.__name__}")
