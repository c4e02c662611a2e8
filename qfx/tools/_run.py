"""How every outside program is run: one log, one time limit, and its first real error when it fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qfx.errors import ToolError

# The first line that matches the first of these patterns found anywhere in the log is the error to show.
_ERROR_PATTERNS = (
    re.compile(r"No space left on device|Disk quota exceeded"),
    re.compile(r"^%(Error|Warning)\b|\bERROR:|\b(fatal )?error(\[[\w-]+\])?:", re.MULTILINE),
    re.compile(r"undefined reference|No such file|[Cc]annot |Traceback|Assertion .* failed|Aborted|terminate called"),
    re.compile(r"\b(error|Error|ERROR)\b"),
)
_NOT_ERRORS = re.compile(r"^\s*(make(\[\d+\])?:|%Error: Exiting due to|collect2:|In file included from)")


PROGRAMS = ("g++", "make", "perl")
"""What builds of C++ and of simulations call, and no Python package brings."""

_running: set[subprocess.Popen[bytes]] = set()


def find_program(name: str) -> Path:
    """Return one of PROGRAMS on the PATH; where it is missing, name all that are, so that one installation does."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    missing = [each for each in PROGRAMS if shutil.which(each) is None]
    remedy = f"on Debian or Ubuntu with `apt install {' '.join(missing)}`"
    if len(missing) == 1:
        raise ToolError(f"{name} must be installed, but no `{name}` is on the PATH: install it, {remedy}")
    names = f"{', '.join(missing[:-1])} and {missing[-1]}"
    raise ToolError(f"{names} must be installed, but none of them is on the PATH: install them, {remedy}")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a program that ended well left behind."""

    returncode: int
    log: Path  # stdout and stderr together, the command in the first line
    seconds: float


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    tool: str,
    version: str = "",
    cwd: Path | None = None,
    timeout: float = 600.0,
    env: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
) -> ToolResult:
    """Run ``command`` to its end and return its result.

    ``tool`` and ``version`` name the program in errors; ``env`` is the whole environment (default: ours); ``accept``
    lists the exit codes that are no failure. Raise ToolError for a program that is missing, fails or runs past
    ``timeout`` seconds. Whatever ends the wait early, an interrupt included, ends the program and its children too.
    """
    words = [str(word) for word in command]
    name = f"{tool} {version}".strip()
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("w", encoding="utf-8", errors="replace") as out:
        out.write(f"$ {' '.join(words)}\n")
        out.flush()
        try:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**(os.environ if env is None else env), "LC_ALL": "C.UTF-8"},  # errors in English
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ToolError(f"{tool} must be installed, but {words[0]!r} was not found ({error.strerror})") from None
        except OSError as error:
            raise ToolError(f"{name} must be runnable, but {words[0]!r} gave: {error.strerror}") from None
        _running.add(process)
        try:
            returncode = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise ToolError(f"{name} must end within {timeout:g} s, but was still running; log: {log}") from None
        except BaseException:
            _kill_group(process)
            raise
        finally:
            _running.discard(process)
    if returncode not in accept:
        raise ToolError(f"{name} failed with {_exit(returncode)}: {first_error(log)}; log: {log}")
    return ToolResult(returncode, log, time.monotonic() - start)


def end_all() -> None:
    """End every program that `run` waits for, in whatever thread."""
    for process in tuple(_running):
        _kill_group(process)


def first_error(log: Path) -> str:
    """Return the line of ``log`` that tells best what went wrong: the first real error, else the last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    lines = [line.strip() for line in lines if line.strip() and not _NOT_ERRORS.match(line)]
    for pattern in _ERROR_PATTERNS:
        for line in lines:
            if pattern.search(line):
                return line[:400]
    return lines[-1][:400] if lines else "it printed nothing"


def _exit(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and every process of its session that stayed in its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2.0 if number == signal.SIGTERM else None)
