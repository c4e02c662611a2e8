"""What an up-to-date check compares: hashes of files, sources and settings."""

import ast
import hashlib
import importlib.util
import json
import threading
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from qfx import resources

_PACKAGE = Path(__file__).resolve().parents[1]
_PARSING = threading.Lock()  # CPython 3.11 counts the depth of all threads' parsing in one place (its issue 106905)
_SOURCE_SUFFIXES = {".py", ".sv", ".v", ".hpp", ".h", ".cpp", ".md", ".j2", ".yaml", ".css"}


def digest(content: Any) -> str:
    """Return the hash of anything that JSON can write, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, leave_out: Iterable[str] = ()) -> str:
    """Return the hash of all files below ``folder``, names and bytes, but for the names in ``leave_out``."""
    left_out = set(leave_out)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() not in left_out)
    return digest([(path.relative_to(folder).as_posix(), file_digest(path)) for path in files])


def python_digest(path: Path) -> str:
    """Return the hash of what a Python file says: comments and layout do not count."""
    try:
        with _PARSING:
            tree = ast.parse(path.read_bytes())
        return digest(ast.dump(tree))
    except SyntaxError:
        return file_digest(path)


def sources_digest(names: Iterable[str]) -> str:
    """Return the hash of sources that a step's result depends on.

    A name is a package or module (``qfx.graph``, ``qfx_sim``), a folder of `qfx.resources` (``rtl``), or an installed
    distribution with its version (``dist:hls4ml``).
    """
    return digest([(name, _source(name)) for name in sorted(names)])


@cache  # sources stay as they are while we run, and an up-to-date check asks for the same ones again and again
def _source(name: str) -> Any:
    if name.startswith("dist:"):
        return _version(name.removeprefix("dist:"))
    if name in resources.NAMES:
        return _files(resources.path(name))
    if "." not in name:
        spec = importlib.util.find_spec(name)
        return _files(Path(spec.origin).parent) if spec and spec.origin else "missing"
    place = _PACKAGE.parent.joinpath(*name.split("."))
    return _files(place) if place.is_dir() else _files(place.with_suffix(".py"))


def _files(place: Path) -> list[tuple[str, str]]:
    if place.is_file():
        return [(place.name, python_digest(place))]
    files = sorted(p for p in place.rglob("*") if p.is_file() and p.suffix in _SOURCE_SUFFIXES)
    return [(p.relative_to(place).as_posix(), python_digest(p) if p.suffix == ".py" else file_digest(p)) for p in files]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
