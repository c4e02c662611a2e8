"""C simulation of an emitted HLS project: the compiler builds it, a child process runs it, codes in and codes out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from qfx.arguments import as_path
from qfx.errors import ToolError
from qfx.files import make_folder
from qfx.fixed import Fixed, require_codes
from qfx.tools import _cache, gxx
from qfx.tools._run import run as run_program

# -O1 compiles faster than hls4ml's -O3 and runs almost as fast. Warnings are those of the ap_fixed headers.
_FLAGS = ("-O1", "-w", '-DWEIGHTS_DIR="firmware/weights"')
_SOURCES = ("*.cpp", "*.h", "*.hpp")
_PROGRAM = "qfx_csim"


def build(project: Path, logs: Path | None = None, timeout: float = 900.0) -> Path:
    """Return the csim program of a project; compile it unless the same sources were compiled before.

    The log ``csim_build.log`` goes to the folder ``logs``, by default the one that the project lies in.
    """
    project = Path(project).resolve()
    facts(project)
    files = sorted({file for pattern in _SOURCES for file in project.rglob(pattern)})
    parts = [part for file in files for part in (file.relative_to(project).as_posix(), file.read_bytes())]
    key = _cache.digest([gxx.version(), *_FLAGS, *parts])

    def compile_into(folder: Path) -> None:
        gxx.program(
            [project / f"{_PROGRAM}.cpp"],
            folder / _PROGRAM,
            includes=[project / "firmware" / "ap_types"],
            flags=_FLAGS,
            log=(logs or project.parent) / "csim_build.log",
            timeout=timeout,
        )

    return _cache.folder("csim", key, compile_into) / _PROGRAM


def run(project: Path, codes: np.ndarray, logs: Path | None = None, timeout: float = 600.0) -> dict[str, np.ndarray]:
    """Return the codes of every node, by name, that the project computes from the input's ``codes``.

    The program runs in a process of its own, because hls4ml's kernels end the process where they find a fault.

    Args:
        project: a folder that ``qfx.emit.hls`` wrote; its weights are read at run time.
        codes: integers of shape (N, *input shape).
        logs: the folder for ``csim.log`` and ``csim_build.log``, by default the one that the project lies in.

    Returns:
        int64 arrays of shape (N, *the node's shape), the input's among them.

    Raises:
        ToolError: the project does not compile, or the program fails, or takes longer than ``timeout`` seconds.
    """
    project = as_path(ToolError, "project", project).resolve()
    known = facts(project)
    expected = Fixed.parse(known["input"]["format"])
    require_codes(ToolError, "input codes", codes, tuple(known["input"]["shape"]), expected)
    place = project.parent if logs is None else as_path(ToolError, "logs", logs).resolve()
    make_folder(place, ToolError)
    program = build(project, place)
    with tempfile.TemporaryDirectory(prefix="csim.", dir=place) as name:
        source, result = Path(name) / "input.bin", Path(name) / "output.bin"
        codes.astype(np.int64).tofile(source)
        run_program([program, source, result], log=place / "csim.log", tool="csim", cwd=project, timeout=timeout)
        found = np.fromfile(result, dtype=np.int64)
    return {known["input"]["node"]: codes.astype(np.int64), **_split(found, len(codes), known["record"], project)}


def facts(project: Path) -> dict[str, Any]:
    """Return the manifest of an emitted HLS project."""
    path = Path(project) / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ToolError(f"{project} must be a folder that qfx.emit.hls wrote, but its manifest.json: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != "hls":
        raise ToolError(f"{path} must be of kind 'hls': emit the project again")
    return content


def _split(found: np.ndarray, frames: int, record: list[dict[str, Any]], project: Path) -> dict[str, np.ndarray]:
    """Cut the program's output, frame after frame and node after node, into one array for each node."""
    sizes = [int(np.prod(entry["shape"])) for entry in record]
    if found.size != frames * sum(sizes):
        raise ToolError(f"csim of {project} must put out {frames * sum(sizes)} codes, not {found.size}")
    columns = np.split(found.reshape(frames, -1), np.cumsum(sizes)[:-1], axis=1)
    return {
        entry["node"]: column.reshape(frames, *entry["shape"]) for entry, column in zip(record, columns, strict=True)
    }
