"""Files: what is read is what was written, and a damaged, edited, newer or foreign file is refused."""

import copy
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from qfx.errors import GraphError
from qfx.graph import Graph, fingerprint, load, save
from tests.conformance.cases import case_named, case_names
from tests.conformance.random_graphs import random_codes, random_graphs

GRAPH = case_named("deformconv2d_twohot").graph


def signed_off(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the hash that a careful forger would write."""
    content = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def written(folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    path = save(GRAPH, folder)
    if change:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(signed_off(content)))
    return path


def test_random_graphs_come_back_as_they_were(tmp_path: Path) -> None:
    for index, graph in enumerate(random_graphs(seed=41, count=15)):
        again = load(save(graph, tmp_path / str(index)))
        assert fingerprint(again) == fingerprint(graph)
        assert again.nodes == graph.nodes and again.outputs == graph.outputs
        codes = random_codes(graph, 5, index)
        for name, wanted in graph.evaluate_codes(codes).items():
            np.testing.assert_array_equal(again.evaluate_codes(codes)[name], wanted)


@pytest.mark.parametrize(
    "op",
    [
        "Input",
        "Conv2d",
        "DeformConv2d",
        "Dense",
        "Affine",
        "Add",
        "Multiply",
        "ChannelMax",
        "ChannelSum",
        "Concat",
        "MaxPool",
        "SumPool",
        "Select",
        "Upsample",
        "Slice",
    ],
)
def test_every_case_comes_back_as_it_was(tmp_path: Path, op: str) -> None:
    for name in case_names(op):
        graph = case_named(name).graph
        assert fingerprint(load(save(graph, tmp_path / name).parent)) == fingerprint(graph)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = save(GRAPH, tmp_path / "a"), save(GRAPH, tmp_path / "b")
    for name in ("graph.json", "graph.safetensors"):
        assert a.with_name(name).read_bytes() == b.with_name(name).read_bytes()


def test_the_fingerprint_sees_one_weight_bit() -> None:
    weight = GRAPH.constants["w"]
    codes = weight.codes.copy()
    codes.flat[0] ^= 1
    changed = Graph(GRAPH.name, GRAPH.nodes, {**GRAPH.constants, "w": type(weight)(codes, weight.fixed)}, GRAPH.outputs)
    assert fingerprint(changed) != fingerprint(GRAPH)


def test_a_graph_that_breaks_a_rule_is_not_written(tmp_path: Path) -> None:
    broken = Graph("broken", GRAPH.nodes, GRAPH.constants, ())
    with pytest.raises(GraphError, match="rule G4"):
        save(broken, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


def refused(path: Path, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        load(path)


@pytest.mark.parametrize("name", ["graph.json", "graph.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    path.with_name(name).unlink()
    refused(
        path, re.escape(f"{path.with_name(name)} must be a readable file, but No such file or directory: lower first")
    )


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    for name in ("graph.json", "graph.safetensors"):
        whole = path.with_name(name).read_bytes()
        for length in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 2):
            path.with_name(name).write_bytes(whole[:length])
            wanted = "must be whole JSON, but" if name == "graph.json" else "its hash differs: lower again"
            refused(path, wanted)
        path.with_name(name).write_bytes(whole)
    load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_a_file_nested_too_deeply_is_refused_as_damaged(tmp_path: Path, text: str) -> None:
    path = written(tmp_path)
    path.write_text(text)
    with pytest.raises(GraphError, match=r"must be whole JSON, but .*: the file is truncated or damaged, lower again"):
        load(path)


def test_an_edited_number_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace('"s5.', '"s6.', 1))
    path.write_text(path.read_text().replace('"max_dilation": 3', '"max_dilation": 2'))
    refused(path, re.escape(f"{path} must be as qfx wrote it, but it was edited: lower again"))


def test_one_flipped_weight_bit_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    tensors = path.with_name("graph.safetensors")
    raw = bytearray(tensors.read_bytes())
    raw[-1] ^= 1
    tensors.write_bytes(bytes(raw))
    refused(path, re.escape(f"{tensors} must hold the weights that graph.json was written with, but its hash differs"))


def set_key(*keys: str | int, to: object) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        part: Any = content
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to

    return change


FORGED = {
    "newer": (set_key("version", to=2), "must have version 1, not 2: install a newer qfx"),
    "older": (set_key("version", to=0), "must have version 1, not 0: lower again"),
    "no number": (set_key("version", to="1"), "must have version 1, not '1': lower again"),
    "foreign": (set_key("format", to="onnx"), "must be a qfx graph ('format': 'qfx-graph'), but is something else"),
    "unknown key": (set_key("author", to="x"), "at 'author': Extra inputs are not permitted"),
    "unknown node key": (set_key("nodes", 0, "label", to="x"), "at 'nodes.0.label': Extra inputs are not permitted"),
    "missing key": (lambda content: content.pop("outputs"), "at 'outputs': Field required"),
    "wrong type": (set_key("nodes", 1, "inputs", to="x"), "at 'nodes.1.inputs': Input should be a valid list"),
    "unknown op": (set_key("nodes", 2, "op", to="Softmax"), "node 'rounded' must be one of the operations ["),
    "unknown field": (
        set_key("nodes", 2, "fields", "axis", to=1),
        "node 'rounded' (Requantize) must have the fields ['overflow', 'rounding', 'to'], not ['axis', 'overflow', ",
    ),
    "missing field": (
        lambda content: content["nodes"][2]["fields"].pop("to"),
        "node 'rounded' (Requantize) must have the fields ['overflow', 'rounding', 'to'], not ['overflow', 'rounding']",
    ),
    "unknown mode": (
        set_key("nodes", 2, "fields", "rounding", to="STOCHASTIC"),
        "node 'rounded' (Requantize): the field 'rounding' must be one of TRN, TRN_ZERO, RND, RND_ZERO, RND_INF, "
        "RND_MIN_INF, RND_CONV, not 'STOCHASTIC'",
    ),
    "fractional field": (
        set_key("nodes", 3, "fields", "low", to=0.5),
        "node 'offset' (Clamp): the field 'low' must be an integer, not 0.5",
    ),
    "short field": (
        set_key("nodes", 1, "fields", "stride", to=[1]),
        "node 'picked' (Conv2d): the field 'stride' must be a list of 2 integers, not [1]",
    ),
    "format as number": (
        set_key("nodes", 2, "fields", "to", to=4),
        "node 'rounded' (Requantize): the field 'to' must be a format like 's8.3', not 4",
    ),
    "unreadable format": (set_key("nodes", 2, "fixed", to="8.3"), "a format must look like 's8.3' or 'u5.0'"),
    "broken rule": (set_key("outputs", to=["q"]), "rule G4: an output must name a node, not 'q'"),
    "unknown constant": (
        set_key("constants", "v", to={"fixed": "s4.1", "max_digits": None, "signed_digits": False}),
        "graph.safetensors must hold exactly the constants of graph.json, but they differ in ['v']",
    ),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_well_signed_file_that_makes_no_sense_is_refused(tmp_path: Path, forgery: str) -> None:
    change, message = FORGED[forgery]
    path = written(tmp_path, change)
    with pytest.raises(GraphError, match=re.escape(message)) as error:
        load(path)
    assert str(error.value).startswith(str(path))  # which file


def test_weights_that_are_not_integers_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    tensors = save_tensors({name: c.codes.astype(np.float32) for name, c in GRAPH.constants.items()})
    path.with_name("graph.safetensors").write_bytes(tensors)
    content = json.loads(path.read_text())
    content["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
    path.write_text(json.dumps(signed_off(content)))
    refused(path, "a constant's codes must be integers, not float32")


def test_weights_that_are_no_tensors_at_all_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.with_name("graph.safetensors").write_bytes(b"PK pickled weights")
    content = json.loads(path.read_text())
    content["tensors_sha256"] = hashlib.sha256(b"PK pickled weights").hexdigest()
    path.write_text(json.dumps(signed_off(content)))
    refused(path, "graph.safetensors must hold integer tensors, but SafetensorError")


def places(part: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every position in the JSON content."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [found for key, value in inner for found in [(*at, key), *places(value, (*at, key))]]


JUNK: list[object] = [None, True, -1, 0, 10**30, 1.5, "", "s8.3", "x", "s62.64", [], [1], [[]], {}, {"a": 1}]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_forged_value_anywhere_gets_past_the_reader_or_breaks_it(tmp_path: Path, data: st.DataObject) -> None:
    path = save(GRAPH, tmp_path)
    content = json.loads(path.read_text())
    before = copy.deepcopy(content)
    place = data.draw(st.sampled_from(places(content)))
    set_key(*place, to=data.draw(st.sampled_from(JUNK)))(content)
    path.write_text(json.dumps(signed_off(content)))
    try:
        graph = load(path)
    except GraphError:
        return
    again = json.loads(save(graph, tmp_path / "again").read_text())
    changed = {key for key in before if before[key] != again[key]} - {"sha256"}
    assert changed <= {place[0]}  # what was let through is what was written
