"""The C++ compiler: shared libraries and programs from C++17 sources."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from qfx.tools import _cache
from qfx.tools._run import ToolResult, find_program, run


def executable() -> Path:
    """Return the compiler on the PATH."""
    return find_program("g++")


def version() -> str:
    """Return the compiler's version, such as ``12.2.0``."""
    return _version(str(executable()))


@cache
def _version(program: str) -> str:
    return subprocess.run([program, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()


def shared_library(
    sources: Sequence[Path],
    target: Path,
    *,
    includes: Sequence[Path] = (),
    flags: Sequence[str] = (),
    log: Path | None = None,
    timeout: float = 900.0,
) -> ToolResult:
    """Compile ``sources`` into the shared library ``target``."""
    return _compile(sources, target, ["-shared", "-fPIC", *flags], includes, log, timeout)


def cached_library(source: Path, flags: Sequence[str]) -> Path:
    """Return the shared library of one source; compile it unless it was, with the same headers beside it."""
    contents = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.hpp")))]
    key = _cache.digest([version(), platform.machine(), *flags, *contents])

    def compile_into(folder: Path) -> None:
        log = _cache.writable("logs") / f"{source.stem}.g++.log"  # stays where the folder of a failure goes
        shared_library([source], folder / "library.so", flags=flags, log=log)

    return _cache.folder("libraries", key, compile_into) / "library.so"


def program(
    sources: Sequence[Path],
    target: Path,
    *,
    includes: Sequence[Path] = (),
    flags: Sequence[str] = (),
    log: Path | None = None,
    timeout: float = 900.0,
) -> ToolResult:
    """Compile ``sources`` into the program ``target``."""
    return _compile(sources, target, list(flags), includes, log, timeout)


def _compile(
    sources: Sequence[Path],
    target: Path,
    flags: Sequence[str],
    includes: Sequence[Path],
    log: Path | None,
    timeout: float,
) -> ToolResult:
    """Compile in a folder beside ``target``, which takes its place when the compiler ended well.

    The log names the file alone: where it was for a moment means nothing afterwards.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    log = (log or target.with_name(f"{target.name}.log")).resolve()
    command: list[str | Path] = [
        executable(),
        "-std=c++17",
        *(f"-I{folder.resolve()}" for folder in includes),
        *flags,
        *(source.resolve() for source in sources),
        "-o",
        target.name,
    ]
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".part", dir=target.parent) as aside:
        result = run(command, log=log, tool="g++", version=version(), cwd=Path(aside), timeout=timeout)
        Path(aside, target.name).replace(target)
    return result
