"""Graph files of every version so far are still read, and still compute the integers that they computed then."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from qfx.graph import Graph, load
from qfx.graph.store import VERSION

HERE = Path(__file__).parent

# The files were written by the qfx of that version; nothing may rewrite them.
HASHES = {
    "version_1/graph.json": "aa8ae7491725304c12fa7b644d8fafc99b7738aaf1a5c0986453f679bb0918df",
    "version_1/graph.safetensors": "51eede6457b5841bda1dc4439f54d2f9cf082a82bdabb80211fc59ed9248c3ce",
    "version_1/codes.safetensors": "084fb2ce6d73fa0a66a8989fbb1eed1680b52818525585d94797ed21f7afb709",
}
OPERATIONS_OF_VERSION_1 = set(
    "Input Conv2d DeformConv2d Dense Affine Add MaxPool SumPool Requantize Clamp Flatten".split()
)


@pytest.mark.parametrize("name", HASHES)
def test_an_old_file_is_the_one_that_was_written_then(name: str) -> None:
    assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == HASHES[name]


def test_every_version_has_a_file() -> None:
    assert {path.name for path in HERE.glob("version_*")} == {f"version_{number}" for number in range(1, VERSION + 1)}


def test_the_file_of_version_1_has_every_operation_of_that_time() -> None:
    found = {type(node.op).__name__ for node in load(HERE / "version_1").nodes}
    assert found == OPERATIONS_OF_VERSION_1


def test_an_old_file_computes_what_it_computed_then() -> None:
    graph, codes = load(HERE / "version_1"), load_file(HERE / "version_1/codes.safetensors")
    np.testing.assert_array_equal(graph.evaluate_codes(codes["x"])["logits"], codes["logits"])


def test_the_comparison_sees_one_weight_bit() -> None:
    graph, codes = load(HERE / "version_1"), load_file(HERE / "version_1/codes.safetensors")
    weight = graph.constants["down.weight"]
    flipped = weight.codes.copy()
    flipped[0, 1, 0, 0] ^= 1
    changed = Graph(
        graph.name,
        graph.nodes,
        {**graph.constants, "down.weight": type(weight)(flipped, weight.fixed)},
        graph.outputs,
    )
    assert not np.array_equal(changed.evaluate_codes(codes["x"])["logits"], codes["logits"])
