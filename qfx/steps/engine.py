"""The engine of a build: which results are up to date, how a step runs, and where what it made is kept.

A step fills an empty folder beside its place, which takes that place only when the step ended well (or found unequal
integers, which is a result too). So whatever stops a step, earlier results stay whole and the next run carries on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qfx.design import Design
from qfx.errors import DesignError, MismatchError, QfxError
from qfx.files import FULL, atomic_folder, recover, write_text
from qfx.steps.hashing import digest, folder_digest, sources_digest
from qfx.steps.room import full_disk_named

RECORD = "result.json"
_RECORD_VERSION = 1

Progress = Callable[[float, str], None]
"""Told how much of a step is done (0 to 1) and what it is doing."""


def silent(done: float, doing: str) -> None:
    """Show no progress."""


def unheard(sentence: str) -> None:
    """Tell nobody of a warning."""


@dataclass(frozen=True)
class Result:
    """What one step left behind: its folder and the record in it."""

    step: str
    folder: Path
    figures: Mapping[str, Any]  # the step's numbers, as JSON holds them
    key: str  # hash of everything that the step read
    content: str  # hash of the files that it wrote
    warnings: tuple[str, ...] = ()
    failure: str | None = None  # the sentence of a MismatchError
    seconds: float = 0.0
    finished: str = ""  # local time, ISO 8601
    skipped: bool = False  # taken up from an earlier run


@dataclass(frozen=True)
class Work:
    """What a step's function is given."""

    design: Design
    folder: Path  # empty; to be filled
    results: Mapping[str, Result]  # of the earlier steps that it needs or uses
    progress: Progress
    kept: Path  # parts of this step's work that outlive an interrupt
    sources: str  # hash of the sources that the step depends on
    arguments: str  # of every command for this build: the design, and --out where it was given
    stale: frozenset[str] = frozenset()  # which of the results were made from something older than what lies there now
    told: Callable[[str], None] = unheard  # what each warning is said to at once
    warnings: list[str] = field(default_factory=list)
    warning: threading.Lock = field(default_factory=threading.Lock)  # held where one is noted: parts may run at once
    used: set[str] = field(default_factory=set)

    def warn(self, sentence: str) -> None:
        """Note something that the user must know and that does not stop the build, and say it now: once."""
        with self.warning:
            if sentence in self.warnings:
                return
            self.warnings.append(sentence)
        self.told(sentence)

    def keep(self, name: str, settings: Any, make: Callable[[Path, Path], None]) -> Path:
        """Return the folder of a part of the work; where an earlier run has not left it, let ``make`` fill it.

        ``settings`` is everything that the part depends on beyond its name. ``make`` is given the empty folder, and
        one that stays when it is interrupted: what it left there, it finds there the next time.
        """
        place = self.kept / f"{name}-{digest([name, settings, self.sources])[:16]}"
        self.used.add(place.name)
        if not place.is_dir():
            halfway = place.with_name(f"{place.name}.halfway")
            halfway.mkdir(parents=True, exist_ok=True)
            with atomic_folder(place) as aside:
                make(aside, halfway)
            shutil.rmtree(halfway, ignore_errors=True)
        return place


@dataclass(frozen=True)
class Step:
    """One step: a function that fills a folder, and what its result depends on."""

    name: str
    run: Callable[[Work], Mapping[str, Any]]  # returns the figures
    summary: Callable[[Mapping[str, Any]], str]  # the figures in one line, and one for each part below it
    needs: tuple[str, ...] = ()  # earlier steps without which it cannot run
    uses: tuple[str, ...] = ()  # earlier steps that it takes up where they are there
    settings: Callable[[Design], Any] = lambda design: None  # the part of the design that it reads
    sources: tuple[str, ...] = ()  # see `hashing.sources_digest`


class Build:
    """The results of one design in one folder, and the steps that make them."""

    def __init__(self, design: Design, steps: tuple[Step, ...], folder: Path | None = None) -> None:
        self.design = design
        self.folder = folder or design.build_folder
        out = ["--out", str(folder)] if folder else []
        self._arguments = shlex.join([design.argument, *out])
        self.steps = {step.name: step for step in steps}
        self.told: Callable[[str], None] = unheard  # what warnings are said to while a step runs

    def run(self, name: str, progress: Progress = silent, force: bool = False) -> Result:
        """Return the step's result, from an earlier run where that is up to date.

        Raises:
            DesignError: an earlier result that it needs is missing; the sentence names the command to run.
            MismatchError: engines computed different integers; the result is kept for the report.
        """
        if name not in self.steps:
            raise DesignError(f"step must be one of {', '.join(self.steps)}, not {name!r}")
        step = self.steps[name]
        with self._locked():
            results = self._gather(step)
            key = self._key(step, results)
            found = self.find(name)
            if found and not force and not found.failure and found.key == key and self._is_whole(found):
                return replace(found, skipped=True)
            result = self._make(step, key, results, progress)
        if result.failure:
            raise MismatchError(result.failure)
        return result

    def find(self, name: str) -> Result | None:
        """Return what an earlier run left, current or not; None where that is missing or its record is damaged."""
        try:
            record = json.loads((self.folder / name / RECORD).read_text("utf-8"))
            if record.pop("version") != _RECORD_VERSION:
                return None
            record["warnings"] = tuple(record["warnings"])
            return Result(folder=self.folder / name, **record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def is_current(self, name: str) -> bool:
        """Whether the step's result is there, whole, and made from what lies there now."""
        found = self.find(name)
        return found is not None and not found.failure and self._is_fresh(name)

    def _is_fresh(self, name: str) -> bool:
        """Whether a result, of equal or unequal integers, was made from what lies there now."""
        found, step = self.find(name), self.steps[name]
        if found is None or not all(self.is_current(need) for need in step.needs):
            return False
        return found.key == self._key(step, self._present(step)) and self._is_whole(found)

    def command(self, name: str) -> str:
        """The command that runs a step, as a shell takes it."""
        return f"qfx {name} {self._arguments}"

    def _gather(self, step: Step) -> dict[str, Result]:
        """Return the earlier results, or say which command makes the first one that is missing."""
        for name in self._ancestors(step):
            found = self.find(name)
            if found is None or found.failure:
                there = (self.folder / name).exists()
                damaged = f"is damaged: its {RECORD} cannot be read" if there else "is missing"
                state = damaged if found is None else "holds unequal integers"
                raise DesignError(
                    f"qfx {step.name} needs the result of {name}, but {self.folder / name} {state}: "
                    f"run `{self.command(name)}`, or `{self.command('build')}` for everything"
                )
        return self._present(step)

    def _present(self, step: Step) -> dict[str, Result]:
        found = {name: self.find(name) for name in (*step.needs, *step.uses)}
        return {name: result for name, result in found.items() if result is not None}

    def _ancestors(self, step: Step) -> list[str]:
        """All steps that this one needs, directly or not, in the order of the build."""
        wanted: set[str] = set()
        waiting = list(step.needs)
        while waiting:
            name = waiting.pop()
            wanted.add(name)
            waiting += self.steps[name].needs
        return [name for name in self.steps if name in wanted]

    def stale(self, name: str) -> dict[str, str]:
        """The earlier results that a step would take up though they should be made again, and why."""
        found = {need: self.find(need) for need in self._ancestors(self.steps[name])}
        return {
            need: "out of date" if self._is_whole(result) else "not as it was made: its files were changed since"
            for need, result in found.items()
            if result is not None and not result.failure and not self.is_current(need)
        }

    def _key(self, step: Step, results: Mapping[str, Result]) -> str:
        """Return the hash of everything that the step reads."""
        read: dict[str, Any] = {
            name: folder_digest(results[name].folder, [RECORD]) for name in step.needs if name in results
        }
        for name in step.uses:
            if name in results:
                used = results[name]
                read[name] = [used.key, used.content, used.figures, used.warnings, used.failure, self._is_fresh(name)]
        return digest([step.name, step.settings(self.design), sources_digest(step.sources), read])

    def _is_whole(self, result: Result) -> bool:
        """Whether the step's files are still those that it wrote."""
        try:
            return folder_digest(result.folder, [RECORD]) == result.content
        except OSError:
            return False

    def _make(self, step: Step, key: str, results: Mapping[str, Result], progress: Progress) -> Result:
        place = self.folder / step.name
        start = time.monotonic()
        explained = _explained(step.name, self.command(step.name))
        with explained, atomic_folder(place, RECORD) as aside, full_disk_named(aside):
            kept = self.folder / ".kept" / step.name
            stale = frozenset(used for used in step.uses if used in results and not self._is_fresh(used))
            sources = sources_digest(step.sources)
            work = Work(self.design, aside, results, progress, kept, sources, self._arguments, stale, self.told)
            failure, figures = None, {}
            with _logs_kept(aside, self.folder / "logs" / step.name):
                try:
                    figures = dict(step.run(work))
                except MismatchError as error:
                    failure, figures = str(error), dict(getattr(error, "figures", {}))
            record = {
                "version": _RECORD_VERSION,
                "step": step.name,
                "figures": _plain(figures),
                "key": key,
                "content": folder_digest(aside, [RECORD]),
                "warnings": work.warnings,
                "failure": failure,
                "seconds": round(time.monotonic() - start, 3),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
            write_text(aside / RECORD, json.dumps(record, indent=1) + "\n")
        if not failure:
            _forget(work.kept, work.used)
        made = self.find(step.name)
        assert made is not None  # just written
        return made

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep a second qfx out of the folder meanwhile; leave no folder behind in which nothing was made."""
        lock = self.folder / ".lock"
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = lock.open("w")
        except OSError as error:
            raise DesignError(
                f"the build folder {self.folder} must be writable, but: {error.strerror}: mend it, or build elsewhere "
                "with --out"
            ) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(handle.fileno()).st_nlink:
                    raise BlockingIOError  # whoever was here has just removed it
            except BlockingIOError:
                raise DesignError(
                    f"{self.folder} must be used by one qfx at a time, but another one is working there: "
                    "wait for it, or build elsewhere with --out"
                ) from None
            for name in self.steps:
                recover(self.folder / name)
            try:
                yield
            finally:
                with suppress(OSError):
                    if [*self.folder.iterdir()] == [lock]:
                        lock.unlink()
                        for folder in made:
                            folder.rmdir()


@contextmanager
def _explained(step: str, command: str) -> Iterator[None]:
    """Turn what the operating system says about files into a sentence."""
    try:
        yield
    except ImportError as error:
        raise QfxError(
            f"step {step} must be able to import {error.name or 'a package'}, but: {error}; `qfx doctor` says what to "
            f"install; then run `{command}` again"
        ) from error
    except OSError as error:
        where = error.filename or "the disk"
        if error.errno in FULL:
            said = f"step {step} needs room on the disk, but {where} is full"
        else:
            said = f"step {step} must be able to use {where}, but: {error.strerror or error}"
        raise QfxError(f"{said}; earlier results are kept: mend it and run `{command}` again") from error


@contextmanager
def _logs_kept(aside: Path, place: Path) -> Iterator[None]:
    """Save the logs of a step that fails, and let its error say where they are."""
    try:
        yield
    except QfxError as error:
        logs = list(aside.rglob("*.log"))
        if logs:
            with suppress(OSError):
                shutil.rmtree(place, ignore_errors=True)
                for log in logs:
                    target = place / log.relative_to(aside)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(log, target)
        if logs and str(aside) in str(error):
            raise type(error)(str(error).replace(str(aside), str(place))) from error
        raise


def _forget(kept: Path, used: set[str]) -> None:
    """Drop kept parts that the finished step did not use."""
    if kept.is_dir():
        for place in kept.iterdir():
            if place.name not in used:
                shutil.rmtree(place, ignore_errors=True)


def _plain(value: Any) -> Any:
    """Return figures as JSON holds them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value
