"""Graphs on disk: ``graph.json`` (structure, formats) beside ``graph.safetensors`` (integer weights)."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from qfx.arguments import as_path
from qfx.errors import GraphError, QfxError
from qfx.files import make_folder, write_bytes, write_text
from qfx.fixed import Fixed
from qfx.graph.graph import Graph, Node
from qfx.graph.ops import OPS, Op
from qfx.graph.tensor import Constant, TensorType
from qfx.graph.verify import verify

VERSION = 1  # of the file format; a change bumps it and adds an old file to tests/legacy
JSON_NAME = "graph.json"
TENSORS_NAME = "graph.safetensors"
_SMALLEST = (np.int8, np.int16, np.int32, np.int64)


class _Strict(BaseModel):
    """Part of the file: exactly these keys, exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _NodeEntry(_Strict):
    name: str
    op: str
    fields: dict[str, Any]
    inputs: list[str]
    shape: list[int]
    fixed: str


class _ConstantEntry(_Strict):
    fixed: str
    max_digits: int | None
    signed_digits: bool


class _File(_Strict):
    format: str
    version: int
    name: str
    nodes: list[_NodeEntry]
    constants: dict[str, _ConstantEntry]
    outputs: list[str]
    tensors_sha256: str


def save(graph: Graph, folder: Path) -> Path:
    """Write the graph's two files into ``folder`` and return the path of ``graph.json``.

    Each file is replaced whole, the weights first. An interrupt between the two leaves a pair that ``load`` refuses; a
    build step therefore writes a fresh folder and exchanges it (``qfx.files.atomic_folder``).
    """
    verify(graph)
    tensors = save_tensors({name: _narrowed(constant.codes) for name, constant in sorted(graph.constants.items())})
    folder = as_path(GraphError, "folder", folder)
    make_folder(folder, GraphError)
    write_bytes(folder / TENSORS_NAME, tensors)
    content = {"format": "qfx-graph", "version": VERSION, **_graph_to_json(graph), "tensors_sha256": _sha256(tensors)}
    path = folder / JSON_NAME
    write_text(path, json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n")
    return path


def load(path: Path) -> Graph:
    """Read a graph from its folder or its ``graph.json``, and verify it.

    Raises:
        GraphError: a file is missing, truncated, edited, from a newer version of qfx, or breaks a rule of SPEC.md.
    """
    path = as_path(GraphError, "the place of a graph", path)
    path = path / JSON_NAME if path.is_dir() else path
    content = _read_json(path)
    tensors = path.with_name(TENSORS_NAME)
    raw = _read(tensors)
    if _sha256(raw) != content.get("tensors_sha256"):
        raise GraphError(
            f"{tensors} must hold the weights that {path.name} was written with, but its hash differs: lower again"
        )
    try:
        graph = _graph_from_file(_File.model_validate(content), load_tensors(raw))
        verify(graph)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GraphError(f"{path} must be a whole qfx graph, but at {where!r}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise GraphError(f"{tensors} must hold integer tensors, but {type(error).__name__}: {error}") from error
    except QfxError as error:
        raise GraphError(f"{path}: {error}") from error
    return graph


def fingerprint(graph: Graph) -> str:
    """A sha256 of everything in the graph, for up-to-date checks and manifests."""
    digest = hashlib.sha256(_digest(_graph_to_json(graph)).encode())
    for name in sorted(graph.constants):
        codes = graph.constants[name].codes
        digest.update(f"{codes.shape}".encode() + codes.tobytes())
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise GraphError(
            f"{path} must be whole JSON, but {error}: the file is truncated or damaged, lower again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != "qfx-graph":
        raise GraphError(f"{path} must be a qfx graph ('format': 'qfx-graph'), but is something else")
    if content.get("version") != VERSION:
        newer = isinstance(content.get("version"), int) and content["version"] > VERSION
        remedy = "install a newer qfx" if newer else "lower again"
        raise GraphError(f"{path} must have version {VERSION}, not {content.get('version')!r}: {remedy}")
    if content.pop("sha256", None) != _digest(content):
        raise GraphError(f"{path} must be as qfx wrote it, but it was edited: lower again")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path} must be a readable file, but {error.strerror}: lower first") from error


def _graph_to_json(graph: Graph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "nodes": [
            {
                "name": node.name,
                "op": type(node.op).__name__,
                "fields": {field.name: _field_to_json(getattr(node.op, field.name)) for field in fields(node.op)},  # type: ignore[arg-type]
                "inputs": list(node.inputs),
                "shape": list(node.type.shape),
                "fixed": str(node.type.fixed),
            }
            for node in graph.nodes
        ],
        "constants": {
            name: {"fixed": str(c.fixed), "max_digits": c.max_digits, "signed_digits": c.signed_digits}
            for name, c in sorted(graph.constants.items())
        },
        "outputs": list(graph.outputs),
    }


def _graph_from_file(file: _File, tensors: dict[str, np.ndarray]) -> Graph:
    if set(tensors) != set(file.constants):
        differing = sorted(set(tensors) ^ set(file.constants))
        raise GraphError(
            f"{TENSORS_NAME} must hold exactly the constants of {JSON_NAME}, but they differ in {differing}"
        )
    constants = {
        name: Constant(tensors[name], Fixed.parse(entry.fixed), entry.max_digits, entry.signed_digits)
        for name, entry in file.constants.items()
    }
    nodes = tuple(
        Node(
            entry.name,
            _op_from_json(entry.name, entry.op, entry.fields),
            tuple(entry.inputs),
            TensorType(tuple(entry.shape), Fixed.parse(entry.fixed)),
        )
        for entry in file.nodes
    )
    return Graph(file.name, nodes, constants, tuple(file.outputs))


def _op_from_json(name: str, kind: str, values: dict[str, Any]) -> Op:
    if kind not in OPS:
        raise GraphError(f"node {name!r} must be one of the operations {sorted(OPS)}, not {kind!r}")
    hints = get_type_hints(OPS[kind])
    wanted = {field.name for field in fields(OPS[kind])}  # type: ignore[arg-type]
    if set(values) != wanted:
        raise GraphError(f"node {name!r} ({kind}) must have the fields {sorted(wanted)}, not {sorted(values)}")
    where = f"node {name!r} ({kind}): the field"
    return OPS[kind](**{f: _field_from_json(f"{where} {f!r}", hints[f], value) for f, value in values.items()})


def _field_to_json(value: Any) -> Any:
    return str(value) if isinstance(value, (Fixed, str)) else list(value) if isinstance(value, tuple) else value


def _field_from_json(where: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        lengths = () if get_args(hint)[-1] is Ellipsis else (len(get_args(hint)),)
        whole = isinstance(value, list) and all(type(item) is int for item in value)
        if whole and (not lengths or len(value) in lengths):
            return tuple(value)
        wanted = f"a list of {lengths[0] if lengths else 'any number of'} integers"
    elif hint is int:
        if type(value) is int:
            return value
        wanted = "an integer"
    elif hint is Fixed:
        if isinstance(value, str):
            return Fixed.parse(value)
        wanted = "a format like 's8.3'"
    else:
        if value in list(hint):
            return hint(value)
        wanted = f"one of {', '.join(hint)}"
    raise GraphError(f"{where} must be {wanted}, not {value!r}")


def _narrowed(codes: np.ndarray) -> np.ndarray:
    """The codes in the smallest integer type that holds them."""
    for dtype in _SMALLEST:
        info = np.iinfo(dtype)
        if codes.size == 0 or (codes.min() >= info.min and codes.max() <= info.max):
            return np.ascontiguousarray(codes.astype(dtype))
    raise GraphError("codes must fit 64 bits")


def _digest(content: dict[str, Any]) -> str:
    return _sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
