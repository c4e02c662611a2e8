"""A design folder: design.yaml, checked, and the Python objects that it names."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any

from qfx import resources, yamlfile
from qfx.arguments import as_path
from qfx.boards import Board
from qfx.errors import DesignError, QfxError, UsageError, line_in, said
from qfx.files import atomic_folder
from qfx.sections import DesignFile, require_name

FILE_NAME = "design.yaml"


class Design:
    """A design folder, checked."""

    def __init__(self, folder: Path, content: DesignFile, argument: str) -> None:
        self.folder = folder
        self.content = content
        self.argument = argument  # how the user named it, for the commands that we propose
        self.entry = 0  # of training.front, which has changed its budget; 0: none
        self._modules: dict[Path, ModuleType] = {}

    @classmethod
    def load(cls, where: Path | str) -> Design:
        """Read a design from its folder, or the shipped one of that name.

        Raises:
            DesignError: there is none, or its design.yaml is not as it must be (file, line and key are named).
        """
        folder = _find(where)
        return cls(folder, yamlfile.load(folder / FILE_NAME, DesignFile, DesignError), str(where))

    @classmethod
    def of(cls, folder: Path, content: str, entry: int = 0) -> Design:
        """Return the design of a folder whose content and ``entry`` are those of the one that gave the `dump`.

        Raises:
            DesignError: the content was changed into what design.yaml may not say.
        """
        made = cls(folder, yamlfile.of_json(content, f"the content of {folder.name}", DesignFile), str(folder))
        made.entry = entry
        return made

    def dump(self) -> str:
        """Return the content as JSON: what it is now, whatever design.yaml says."""
        return self.content.model_dump_json(by_alias=True, exclude_unset=True)

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
        return self._changed(seed=seed)

    def on_front(self, entry: int) -> Design:
        """Return the design with its budget as that entry of ``training.front``, from 1, changes it; 0: as it is."""
        training = self.content.training
        if not entry:
            return self
        assert training.budget is not None  # a front has it
        made = self._changed(budget=training.budget.model_copy(update=training.front[entry - 1].counts))
        made.entry = entry
        return made

    @property
    def along_front(self) -> list[Design]:
        """The design, and after it with the budget of each entry of ``training.front``."""
        return [self.on_front(entry) for entry in range(len(self.content.training.front) + 1)]

    @property
    def budget_name(self) -> str:
        """What its budget is called; that of an entry of ``training.front`` like its run, such as front1."""
        return f"front{self.entry}" if self.entry else "training.budget"

    def _changed(self, **training: Any) -> Design:
        made = copy(self)
        made.content = self.content.model_copy(update={"training": self.content.training.model_copy(update=training)})
        return made

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
        require_name(folder.name)
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
