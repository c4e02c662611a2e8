"""A design folder: design.yaml as a checked, frozen model, and the Python objects that it names."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from qfx import resources, yamlfile
from qfx.arguments import CLOCKS_MHZ, MOST_CYCLES, as_path
from qfx.boards import Board
from qfx.errors import DesignError, QfxError, UsageError, line_in, said
from qfx.files import atomic_folder
from qfx.fixed import Fixed, require_input_format

FILE_NAME = "design.yaml"

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


def _name(text: str) -> str:
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
    threads: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """Threads of torch in each run, by default all cores shared out; sums, and so results, depend on their number."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("widths")
    @classmethod
    def _differ(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(widths)) < len(widths):
            raise ValueError("must be different widths")
        return widths

    @field_validator("accumulate")
    @classmethod
    def _within(cls, parts: int, info: ValidationInfo) -> int:
        if parts > info.data.get("batch", parts):
            raise ValueError(f"must be at most the batch, {info.data['batch']}")
        return parts

    @model_validator(mode="after")
    def _allocated(self) -> Self:
        asked = self.allocate
        if asked and not (self.budget or asked.weight_bits or asked.bit_operations):
            raise yamlfile.KeyFault("allocate", "must have weight_bits or bit_operations, or training.budget beside it")
        if asked and len(self.widths) > 1:
            raise yamlfile.KeyFault(
                "widths", "must be one width beside training.allocate, which chooses for each layer"
            )
        return self


class AccuracySection(_Section):
    """What is to be reached on the test set; less is a warning."""

    minimum: Percent | None = None
    below_float: Percent | None = None  # points that fixed point may lose


class DesignFile(_Section):
    """The content of design.yaml."""

    name: Annotated[str, AfterValidator(_name)]
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
            raise yamlfile.KeyFault("training.budget", "must have fps, the rate, where target.cycles does not say it")
        if budget is not None and budget.fps is not None and self.target.cycles is not None:
            raise yamlfile.KeyFault("training.budget.fps", "must be left out where target.cycles says the rate")
        return self


class Design:
    """A design folder, checked."""

    def __init__(self, folder: Path, content: DesignFile, argument: str) -> None:
        self.folder = folder
        self.content = content
        self.argument = argument  # how the user named it, for the commands that we propose
        self._modules: dict[Path, ModuleType] = {}

    @classmethod
    def load(cls, where: Path | str) -> Design:
        """Read a design from its folder, or the shipped one of that name.

        Raises:
            DesignError: there is none, or its design.yaml is not as it must be (file, line and key are named).
        """
        folder = _find(where)
        return cls(folder, yamlfile.load(folder / FILE_NAME, DesignFile, DesignError), str(where))

    @property
    def name(self) -> str:
        """The design's name."""
        return self.content.name

    def place(self, key: str) -> str:
        """Where a key of design.yaml stands, for an error: the file and the line."""
        file = self.folder / FILE_NAME
        return f"{file}:{yamlfile.line_of(file, key)}"

    def with_seed(self, seed: int) -> Design:
        """Return the design with another seed of its training."""
        training = self.content.training.model_copy(update={"seed": seed})
        return Design(self.folder, self.content.model_copy(update={"training": training}), self.argument)

    @property
    def build_folder(self) -> Path:
        """Where results go: ``build`` in the design folder; for a shipped or read-only one, ``build/NAME`` here."""
        shipped = "_data" in self.folder.parts or not os.access(self.folder, os.W_OK)
        return Path("build") / self.name if shipped else self.folder / "build"

    @property
    def board(self) -> Board:
        """The design's board: a shipped one by name, or a file of the design's folder."""
        name = self.content.board
        try:
            return Board.load(self.folder / name if name.endswith((".yaml", ".yml")) else name)
        except DesignError as error:
            raise DesignError(f"{self.place('board')}: {error}") from error

    @property
    def clock_mhz(self) -> float:
        """The clock of the plan."""
        return self.content.target.clock_mhz or self.board.clock_mhz

    @property
    def cycles(self) -> int | None:
        """The cycles of a frame that the plan must keep, if any are asked for."""
        budget = self.content.training.budget
        if budget is None or budget.fps is None:
            return self.content.target.cycles
        return max(int(self.clock_mhz * 1e6 / budget.fps), 1)

    @property
    def float_checkpoint(self) -> Path | None:
        """The file that ``training.float.checkpoint`` names, if it is given.

        Raises:
            DesignError: there is no such file, or a variable in its name is not set.
        """
        text = self.content.training.float_.checkpoint
        return None if text is None else self._file(text, "training.float.checkpoint", "the network is trained here")

    @property
    def teacher_checkpoint(self) -> Path | None:
        """The file that ``training.teacher.checkpoint`` names, if it is given; raises like `float_checkpoint`."""
        teacher = self.content.training.teacher
        text = teacher.checkpoint if teacher else None
        return None if text is None else self._file(text, "training.teacher.checkpoint", "it is the float network")

    def _file(self, text: str, key: str, otherwise: str) -> Path:
        """The file that a key names."""
        unset = [name for name in re.findall(r"\$\{?(\w+)", text) if name not in os.environ]
        path = self.folder / Path(os.path.expandvars(text)).expanduser()
        if unset or not path.is_file():
            reason = f"the environment variable {unset[0]} is not set" if unset else f"there is no {path}"
            raise DesignError(
                f"{self.place(key)}: {key} must name a file, not {text!r} ({reason}): put the checkpoint "
                f"there, or leave the key out and {otherwise}"
            )
        return path

    @property
    def sources(self) -> list[Path]:
        """The Python files of the design."""
        return sorted(p for p in self.folder.rglob("*.py") if "build" not in p.relative_to(self.folder).parts)

    def object(self, reference: str, key: str) -> Any:
        """Return what ``model.py:Net`` names; ``key`` is the key in design.yaml, for the error."""
        file, name = reference.split(":")
        module = self._module(self.folder / file, key)
        if not hasattr(module, name):
            there = ", ".join(_made_here(module)) or "nothing"
            raise DesignError(
                f"{self.place(key)}: {key} must name something in {file}, which has {there}, not {name!r}"
            )
        return getattr(module, name)

    def call(self, reference: str, key: str) -> Any:
        """Return what the class or function that ``model.py:data`` names makes without arguments.

        Raises:
            DesignError: it raises something or ends Python; the file and the line are named.
        """
        made = self.object(reference, key)
        path = self.folder / reference.split(":")[0]
        try:
            return made()
        except QfxError as error:
            raise DesignError(f"{path}{line_in(error, path)}: {key} {reference}: {error}") from error
        except (Exception, SystemExit) as error:
            raise DesignError(
                f"{path}{line_in(error, path)}: {key} {reference} must work when called without arguments, but "
                f"{said(error)}"
            ) from error

    def _module(self, path: Path, key: str) -> ModuleType:
        if path in self._modules:
            return self._modules[path]
        if not path.is_file():
            raise DesignError(f"{self.place(key)}: {key} must name a file of the design, but {path} is missing")
        name = f"qfx_design_{self.name}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # a .py file always has them
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            line = line_in(error, path)
            raise DesignError(f"{path}{line}: the design's Python must load, but {said(error)}") from error
        self._modules[path] = module
        return module


def _find(where: Path | str) -> Path:
    folder = as_path(DesignError, "design", where)
    if folder.is_file() and folder.name == FILE_NAME:
        return folder.parent
    if (folder / FILE_NAME).is_file():
        return folder
    shipped = resources.path("designs")
    if folder.name == str(where) and (shipped / folder / FILE_NAME).is_file():
        return shipped / folder
    names = ", ".join(sorted(p.parent.name for p in shipped.glob(f"*/{FILE_NAME}"))) or "none"
    raise DesignError(
        f"a design must be a folder with a {FILE_NAME}, or one of the shipped designs ({names}), not {str(where)!r}: "
        "`qfx new NAME` makes one"
    )


def _made_here(module: ModuleType) -> list[str]:
    """The classes and functions that a module defines for others."""
    mine = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return [name for name in mine if not name.startswith("_")]


def create(folder: Path) -> Path:
    """Make a small design that works in ``folder``, named like it, and return the folder.

    Raises:
        UsageError: the last part of the path is no name that a design may have.
        DesignError: the folder that it is to lie in is missing, or something is there already.
    """
    try:
        _name(folder.name)
    except ValueError as error:
        raise UsageError(f"the name of a design {error}, not {folder.name!r}") from None
    if not folder.parent.is_dir():
        raise DesignError(f"{folder.parent} must be a folder, in which {folder.name} is made, but is none: make it")
    if folder.exists():
        raise DesignError(f"{folder} must not exist yet, but it does: choose another name")
    try:
        with atomic_folder(folder) as aside:
            for source in sorted((Path(__file__).parent / "templates" / "new").iterdir()):
                if source.is_file():
                    text = source.read_text(encoding="utf-8").replace("NAME", folder.name)
                    (aside / source.name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DesignError(f"{folder} must be writable, but: {error.strerror}") from error
    return folder
