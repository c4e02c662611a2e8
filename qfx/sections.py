"""The content of design.yaml: its sections as checked, frozen models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from qfx.arguments import CLOCKS_MHZ, MOST_CYCLES
from qfx.fixed import Fixed, require_input_format
from qfx.yamlfile import KeyFault

Positive = Annotated[int, Field(gt=0, strict=True)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Bits = Annotated[int, Field(ge=1, le=16, strict=True)]
Part = Annotated[float, Field(ge=0, lt=1)]
Whole = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]


def _reference(text: str) -> str:
    if not re.fullmatch(r"[\w/]+\.py:[A-Za-z_]\w*", text):
        raise ValueError("must name something in a Python file of the design, such as model.py:Net")
    return text


def require_name(text: str) -> str:
    """Return what a design may be called."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", text):
        raise ValueError("must start with a small letter and have at most 40 small letters, digits and underscores")
    return text


def _input_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (1, 2, 3):
        raise ValueError("must be three numbers (height, width, channels), two (length, channels) or one (features)")
    return shape


def _most(asked: Any) -> Any:
    share = isinstance(asked, float)
    if isinstance(asked, bool) or not isinstance(asked, int | float) or asked < 0 or (share and asked > 1):
        raise ValueError("must be a share of the board such as 0.7, at most 1.0, or a count")
    return asked


Most = Annotated[Any, AfterValidator(_most)]
Reference = Annotated[str, AfterValidator(_reference)]


class _Section(BaseModel):
    """A mapping in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSection(_Section):
    """What the host sends: one frame of integer codes."""

    format: Annotated[str, AfterValidator(require_input_format)]  # such as u8.0
    shape: Annotated[tuple[Positive, ...], AfterValidator(_input_shape)]  # channels last

    @property
    def fixed(self) -> Fixed:
        """The format of a code."""
        return Fixed.parse(self.format)


class TargetSection(_Section):
    """What the plan has to reach."""

    cycles: Annotated[Positive, Field(le=MOST_CYCLES)] | None = None  # per frame; None: as few as fit the board
    clock_mhz: Annotated[float, Field(ge=CLOCKS_MHZ[0], le=CLOCKS_MHZ[1])] | None = None  # None: the board's


class ScheduleSection(_Section):
    """The learning rate over the steps of a run (see qfx.train.Schedule)."""

    kind: Literal["cosine", "step"] = "cosine"
    warmup: Part = 0.05
    milestones: tuple[Positive, ...] = ()  # epochs after which a step schedule falls
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @field_validator("milestones")
    @classmethod
    def _rise(cls, milestones: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if milestones and info.data.get("kind") == "cosine":
            raise ValueError("must be left out where kind is cosine")
        if list(milestones) != sorted(set(milestones)):
            raise ValueError("must rise")
        return milestones

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.kind == "step" and not self.milestones:
            raise ValueError("must have milestones where kind is step")
        return self


class PhaseSection(_Section):
    """One run of the training loop."""

    epochs: Positive
    lr: Rate
    schedule: ScheduleSection = ScheduleSection()

    @field_validator("schedule")
    @classmethod
    def _within(cls, schedule: ScheduleSection, info: ValidationInfo) -> ScheduleSection:
        if schedule.milestones and "epochs" in info.data and schedule.milestones[-1] >= info.data["epochs"]:
            raise ValueError(
                f"must have milestones before the last epoch, {info.data['epochs']}, not {schedule.milestones[-1]}"
            )
        return schedule


class FloatSection(PhaseSection):
    """Training of the float network, or the checkpoint that stands for it."""

    epochs: Positive = 60
    lr: Rate = 3e-3
    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    """A file: relative to the design's folder, $VARIABLES filled in. Where it is given, nothing is trained in float."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        others = [name for name in ("epochs", "lr", "schedule") if name in self.model_fields_set]
        if self.checkpoint is not None and others:
            raise ValueError(f"must have either checkpoint or {' and '.join(others)}")
        return self


class TeacherSection(_Section):
    """A float network whose scores are targets of the training in fixed point, beside the labels."""

    model: Reference | None = None  # by default the design's own float network, as it was trained
    checkpoint: Annotated[str, Field(min_length=1)] | None = None  # its weights, a file like training.float.checkpoint
    temperature: Annotated[float, Field(gt=0)] = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.7  # of the teacher; the labels have the rest

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if self.model is not None and self.checkpoint is None:
            raise ValueError("must have a checkpoint where it has a model")
        return self


class DigitsSection(_Section):
    """How many non-zero digits all K-hot constants may have at the end of training: in all, or on average."""

    budget: Positive | None = None
    mean: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.budget is None) == (self.mean is None):
            raise ValueError("must have either a budget, the digits of all constants, or their mean")
        return self


class BudgetSection(_Section):
    """What the hardware may take: a share of the board, or a count (see qfx.plan.limits)."""

    fps: Annotated[float, Field(gt=0)] | None = None  # at the plan's clock; None: target.cycles says it
    lut: Most | None = None
    ff: Most | None = None
    bram18: Most | None = None
    dsp: Most | None = None

    @property
    def counts(self) -> dict[str, float]:
        """What it says of resources."""
        found = {"lut": self.lut, "ff": self.ff, "bram18": self.bram18, "dsp": self.dsp}
        return {name: most for name, most in found.items() if most is not None}


class AllocateSection(_Section):
    """Widths of layers chosen without training, where training starts from (see qfx.allocate)."""

    widths: Annotated[tuple[Bits, ...], Field(min_length=1)] = (2, 3, 4, 5, 6, 8)  # to choose from
    images: Positive = 256  # training inputs on which the noise of each is measured, the first ones
    weight_bits: Positive | None = None  # of all weights, at most
    bit_operations: Positive | None = None  # MACs x weight bits x activation bits, at most
    points: Annotated[tuple[Literal["weight", "activation", "elementwise", "constant"], ...], Field(min_length=1)] = (
        "weight",
        "activation",
    )  # whose widths are chosen; elementwise and constant beside training.budget alone, which counts them


class CalibrationSection(_Section):
    """How initial formats are taken from training inputs (see qfx.calibrate)."""

    method: Literal["error", "max", "percentile"] = "error"
    percentile: Annotated[float, Field(gt=0, le=100)] = 99.9  # of the values, that method percentile does not clip
    images: Positive = 1024  # training inputs, the first ones

    @field_validator("percentile")
    @classmethod
    def _used(cls, percentile: float, info: ValidationInfo) -> float:
        if info.data.get("method", "percentile") != "percentile":
            raise ValueError("must be left out where method is not percentile")
        return percentile


class FreezeSection(_Section):
    """The last parts of the steps in which something stands still (see qfx.train.Freeze)."""

    bn: Whole = 0.1
    formats: Whole = 0.2


class TrainingSection(_Section):
    """How the step train works."""

    float_: FloatSection = Field(FloatSection(), alias="float")
    fixed: PhaseSection = PhaseSection(epochs=30, lr=1e-3)
    teacher: TeacherSection | None = None
    budget: BudgetSection | None = None  # of the hardware, which learned widths keep
    front: tuple[BudgetSection, ...] = ()  # what other budgets change in it, a run each
    allocate: AllocateSection | None = None  # widths within the budget, in place of the recipe's
    batch: Positive = 64  # inputs of one step of the optimizer
    accumulate: Positive = 1  # parts in which a batch is computed
    precision: Literal["float32", "bfloat16"] = "float32"  # of convolutions and products; quantizers keep float32
    clip: Annotated[float, Field(gt=0)] | None = None  # the largest norm of the gradient
    ema: Part = 0.0  # decay of the averaged weights; 0: the last weights count
    checkpoint: Positive = 1  # epochs between checkpoints
    label_smoothing: Part = 0.0
    widths: Annotated[tuple[Bits, ...], Field(min_length=1)] = (4,)
    """Bits of weights and activations, one run each; the first is the one that is lowered."""
    seed: Annotated[int, Field(ge=0, lt=1 << 32, strict=True)] = 0
    formats: Literal["learned", "frozen"] = "learned"  # binary points and widths; frozen: they stay as calibrated
    digits: DigitsSection | None = None  # where the recipe has constants whose K is learned
    calibration: CalibrationSection = CalibrationSection()
    freeze: FreezeSection = FreezeSection()
    frac_lr: Rate | None = None  # of binary points and widths, bits a step; None: see qfx.param_groups
    compile: bool = False  # by torch.compile: minutes once, then shorter steps
    device: Annotated[str, Field(pattern=r"^[a-z]+(:\d+)?$")] = "auto"  # cpu, cuda, cuda:1; auto: a GPU if there is one
    threads: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """Threads of torch in each run, by default all cores shared out; sums, and so results, depend on their number."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("widths")
    @classmethod
    def _differ(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(widths)) < len(widths):
            raise ValueError("must be different widths")
        return widths

    @field_validator("front")
    @classmethod
    def _one_rate(cls, front: tuple[BudgetSection, ...]) -> tuple[BudgetSection, ...]:
        if any(entry.fps is not None for entry in front):
            raise ValueError("must leave fps to training.budget, whose rate holds along the front")
        return front

    @field_validator("accumulate")
    @classmethod
    def _within(cls, parts: int, info: ValidationInfo) -> int:
        if parts > info.data.get("batch", parts):
            raise ValueError(f"must be at most the batch, {info.data['batch']}")
        return parts

    @model_validator(mode="after")
    def _along_front(self) -> Self:
        if self.front and self.budget is None:
            raise KeyFault("front", "must have training.budget beside it, which its entries change")
        if self.front and len(self.widths) > 1:
            raise KeyFault("widths", "must be one width beside training.front, whose runs differ in budgets alone")
        return self

    @model_validator(mode="after")
    def _allocated(self) -> Self:
        asked = self.allocate
        if asked and not (self.budget or asked.weight_bits or asked.bit_operations):
            raise KeyFault("allocate", "must have weight_bits or bit_operations, or training.budget beside it")
        if asked and self.budget is None and (more := set(asked.points) - {"weight", "activation"}):
            raise KeyFault(
                "allocate.points", f"must have training.budget beside it for {max(more)}, which alone counts it"
            )
        if asked and len(self.widths) > 1:
            raise KeyFault("widths", "must be one width beside training.allocate, which chooses for each layer")
        return self


class AccuracySection(_Section):
    """What is to be reached on the test set; less is a warning."""

    minimum: Percent | None = None
    below_float: Percent | None = None  # points that fixed point may lose


class DesignFile(_Section):
    """The content of design.yaml."""

    name: Annotated[str, AfterValidator(require_name)]
    model: Reference  # a class or function that makes the float network when called without arguments
    data: Reference  # a function without arguments that returns qfx.train.Data
    augment: Reference | None = None  # a function from a batch of training inputs to another one
    input: InputSection
    board: str
    target: TargetSection = TargetSection()
    recipe: dict[str, Any] = {}  # checked by qfx.convert (TRAINING: quantization points)
    training: TrainingSection = TrainingSection()
    accuracy: AccuracySection = AccuracySection()
    vectors: Positive = 1000  # test inputs, at most, that go through every engine

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        budget = self.training.budget
        if budget is not None and budget.fps is None and self.target.cycles is None:
            raise KeyFault("training.budget", "must have fps, the rate, where target.cycles does not say it")
        if budget is not None and budget.fps is not None and self.target.cycles is not None:
            raise KeyFault("training.budget.fps", "must be left out where target.cycles says the rate")
        return self
