"""The manifest of an emitted folder: what was written, from which graph, with the hash of each file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from qfx.errors import EmitError
from qfx.graph import Graph, fingerprint

NAME = "manifest.json"


def write(folder: Path, kind: str, graph: Graph, **facts: Any) -> None:
    """Write the manifest of everything that lies in ``folder``; ``facts`` are what a reader of this kind needs."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    content = {"kind": kind, "graph": {"name": graph.name, "fingerprint": fingerprint(graph)}, **facts, "files": files}
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, kind: str) -> dict[str, Any]:
    """Return the manifest of a folder that an emitter wrote; raise EmitError if it is another's, or missing."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EmitError(f"{folder} must be a folder written by the {kind} emitter, but has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise EmitError(f"{path} must be readable JSON, but is not: {error}: emit it again") from None
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise EmitError(
            f"{path} must be of kind {kind!r}, not {content.get('kind') if isinstance(content, dict) else content!r}"
        )
    return content


def changed(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Return the files of a manifest that are missing or no longer what the emitter wrote."""
    return [name for name, digest in manifest["files"].items() if _digest(folder / name) != digest]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
