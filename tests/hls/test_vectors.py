"""Golden vectors hold what the interpreter computes, for every node, and say from which graph."""

import json
from pathlib import Path

import numpy as np
import pytest

from qfx.emit import manifest, vectors
from qfx.emit.vectors import load
from qfx.errors import EmitError, GraphError
from qfx.graph import fingerprint
from tests.hls.graphs import codes_for, small_graph


def test_vectors_hold_every_nodes_codes(tmp_path: Path) -> None:
    """Arrays and text say the same."""
    graph, codes = small_graph(), codes_for(small_graph())
    folder = vectors(graph, codes, tmp_path / "vectors")
    wanted, found = graph.evaluate_codes(codes, all_nodes=True), load(folder)
    assert list(found) == [node.name for node in graph.nodes]
    assert all(np.array_equal(wanted[name], found[name]) for name in wanted)
    for name in ("input", "khot"):
        text = np.loadtxt(folder / "text" / f"{name}.txt", dtype=np.int64)
        assert np.array_equal(text, wanted[name].reshape(len(codes), -1))


def test_the_manifest_names_graph_frames_and_files(tmp_path: Path) -> None:
    """A changed file shows."""
    graph, codes = small_graph(), codes_for(small_graph())
    folder = vectors(graph, codes, tmp_path / "vectors")
    content = manifest.read(folder, "vectors")
    assert content["graph"] == {"name": "small", "fingerprint": fingerprint(graph)}
    assert content["frames"] == len(codes) and content["nodes"]["khot"]["shape"] == [3, 3, 3]
    assert manifest.changed(folder, content) == []
    (folder / "text" / "khot.txt").write_text("0\n")
    assert manifest.changed(folder, content) == ["text/khot.txt"]


def test_a_folder_without_vectors_is_refused(tmp_path: Path) -> None:
    """Missing, broken, or of another kind."""
    with pytest.raises(EmitError, match="must be a folder written by the vectors emitter, but has no manifest.json"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EmitError, match="must be readable JSON"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "rtl"}))
    with pytest.raises(EmitError, match="must be of kind 'vectors', not 'rtl'"):
        load(tmp_path)


def test_wrong_input_codes_write_nothing(tmp_path: Path) -> None:
    """The graph's own check comes first."""
    with pytest.raises(GraphError, match="must have shape"):
        vectors(small_graph(), codes_for(small_graph())[..., :1], tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()
