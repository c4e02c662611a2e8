"""What a board offers: part, budgets, clocks and memory ports, read from boards/<name>.yaml."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from qfx import resources, yamlfile
from qfx.arguments import CLOCKS_MHZ, as_path
from qfx.errors import DesignError

_Clock = Annotated[float, Field(ge=CLOCKS_MHZ[0], le=CLOCKS_MHZ[1])]
_Count = Annotated[int, Field(ge=0)]
_Some = Annotated[int, Field(gt=0)]


_PART = "be a part as Vivado names it, with package and speed, such as xczu3eg-sbva484-1-i"


def _like(pattern: str, condition: str) -> AfterValidator:
    """Text of that pattern; what is refused must ``condition``."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must {condition}")
        return text

    return AfterValidator(check)


class Proof(StrEnum):
    """How designs for a board were last checked, the weakest first."""

    SIMULATION = "simulation only"
    SYNTHESIS = "vendor synthesis"
    HARDWARE = "on the board"


class _Section(BaseModel):
    """A mapping in which every key is known and no value changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Budget(_Section):
    """What the programmable logic has, under the names that qfx.tools.yosys counts."""

    lut: _Some
    ff: _Some
    bram36: _Some  # blocks of 36 Kbit; a half serves alone
    uram: _Count  # blocks of 288 Kbit, not initialised from the bitstream
    dsp: _Count


class MemoryPort(_Section):
    """A port from the logic into the processor's memory."""

    name: str
    width: _Some  # bits
    count: _Some


class Board(_Section):
    """One board as data; its file says where each number comes from."""

    name: Annotated[
        str, _like(r"[a-z][a-z0-9_]*", "start with a small letter and have small letters, digits and underscores only")
    ]
    title: str
    part: Annotated[str, _like(r"xc[a-z0-9]+-[a-z0-9]+-[123][a-z]?-[a-z]|xc7[a-z0-9]+-[123]", _PART)]
    family: Literal["xcup", "xcu", "xc7"]  # yosys' name for the device family
    budget: Budget
    clocks_mhz: Annotated[tuple[_Clock, ...], Field(min_length=1)]
    memory_ports: tuple[MemoryPort, ...]
    vivado_board: str | None = None  # Vivado's board part, where its board files are installed
    proved: Proof

    @field_validator("clocks_mhz")
    @classmethod
    def _fastest_first(cls, clocks: tuple[float, ...]) -> tuple[float, ...]:
        if list(clocks) != sorted(set(clocks), reverse=True):
            raise ValueError("must be different clocks, the fastest first")
        return clocks

    @property
    def clock_mhz(self) -> float:
        """The clock that a plan assumes when it is told none: the fastest."""
        return self.clocks_mhz[0]

    @classmethod
    def load(cls, name: str | Path) -> Board:
        """Return the board of that name, or the one that a YAML file of the user describes.

        Raises:
            DesignError: there is none, or its file is not as it must be (file, line and key are named).
        """
        path = as_path(DesignError, "board", name)
        if path.suffix not in (".yaml", ".yml"):
            path = resources.path("boards") / f"{name}.yaml"
            if str(name) not in names():
                raise DesignError(
                    f"board must be one of {', '.join(names())} or the path of a .yaml file, not {str(name)!r}"
                )
        board = yamlfile.load(path, cls)
        if board.name != path.stem:
            raise DesignError(f"{path}: name must be that of the file, {path.stem!r}, not {board.name!r}")
        return board


def names() -> tuple[str, ...]:
    """Return the names of the boards that ship with qfx."""
    return tuple(sorted(path.stem for path in resources.path("boards").glob("*.yaml")))
