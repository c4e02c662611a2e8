"""Golden vectors: the codes of the input and of every node, as arrays and as text for test benches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qfx.arguments import as_path
from qfx.emit import manifest
from qfx.errors import EmitError
from qfx.files import atomic_folder
from qfx.graph import Graph, require_graph


def vectors(graph: Graph, codes: np.ndarray, folder: Path | str) -> Path:
    """Write what the interpreter computes from input ``codes`` of shape (N, *input shape) and return the folder.

    ``vectors.npz`` holds one int64 array (N, *shape) for each node, by name. ``text/<node>.txt`` is for benches: one
    frame a line, the codes in decimal, channels last, separated by blanks; written for the input and the outputs.
    """
    require_graph(graph, EmitError)
    known = graph.evaluate_codes(codes, all_nodes=True)
    folder = as_path(EmitError, "folder", folder)
    with atomic_folder(folder, manifest.NAME, EmitError) as new:
        np.savez_compressed(new / "vectors.npz", **known)  # type: ignore[arg-type]  # numpy takes any name
        (new / "text").mkdir()
        for name in (graph.input.name, *graph.outputs):
            frames = known[name].reshape(len(known[name]), -1)
            np.savetxt(new / "text" / f"{name}.txt", frames, fmt="%d")
        nodes = {node.name: {"shape": list(node.type.shape), "format": str(node.type.fixed)} for node in graph.nodes}
        facts = {"frames": len(known[graph.input.name]), "input": graph.input.name, "outputs": list(graph.outputs)}
        manifest.write(new, "vectors", graph, **facts, nodes=nodes)
    return folder


def load(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of golden vectors by node name; raise EmitError if the folder holds none."""
    folder = as_path(EmitError, "folder", folder)
    manifest.read(folder, "vectors")
    with np.load(folder / "vectors.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
