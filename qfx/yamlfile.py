"""Reading a YAML file into a checked model: every complaint names the file, the line and the key's path."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from qfx.errors import DesignError, QfxError

_Model = TypeVar("_Model", bound=BaseModel)
_MERGE = "tag:yaml.org,2002:merge"  # of the key <<
_SHOWN = 60  # characters of a wrong value that an error repeats


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which 1e-3 is a number, as in YAML 1.2, and not text, as in YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class KeyFault(ValueError):
    """What a validator of a mapping finds wrong with one key in it: ``condition`` begins with ``must``."""

    def __init__(self, key: str, condition: str) -> None:
        super().__init__(condition)
        self.key = key  # with dots


def load(path: Path, model: type[_Model], error: type[QfxError] = DesignError) -> _Model:
    """Return the content of ``path`` as a ``model``, or raise ``error``: <file>:<line>: <key> must ..., not ...

    Text is checked as JSON would be: a list fills a tuple, a name fills an enumeration, but no text becomes a number.
    """
    node, data = _content(path, error)
    try:
        return model.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as invalid:
        found = _worst(invalid, node, data)
        raise error(f"{path}:{_line(node, found['loc'])}: {_sentence(found, model)}") from None


def of_json(text: str, name: str, model: type[_Model], error: type[QfxError] = DesignError) -> _Model:
    """Return what a ``model`` was dumped as, or raise ``error`` where that breaks its rules: <name>: <key> must ..."""
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as invalid:
        first = {**invalid.errors()[0]}
        raise error(f"{name}: {_sentence({**first, 'loc': _place(first)}, model)}") from None


def read(path: Path, error: type[QfxError] = DesignError) -> dict[str, Any]:
    """Return the content of ``path``, a mapping that someone else checks."""
    return _content(path, error)[1]


def line_of(path: Path, key: str) -> int:
    """Return the line of a key with dots in its path, such as ``layers.conv.*.weight``, or of what of it is there.

    A number stands for a place in a list, from 0.
    """
    root = node = _parse(path, DesignError)
    parts: list[int | str] = []
    while key and isinstance(node, yaml.CollectionNode):
        mapped = isinstance(node, yaml.MappingNode)
        pairs = ((name.value, value) for name, value in node.value) if mapped else enumerate(node.value)
        names = {str(name): value for name, value in pairs}
        part = max((name for name in names if f"{key}.".startswith(f"{name}.")), key=len, default=None)
        if part is None:
            break
        parts.append(part if mapped else int(part))
        node, key = names[part], key[len(part) + 1 :]
    return _line(root, parts)


def _content(path: Path, error: type[QfxError]) -> tuple[yaml.Node, dict[str, Any]]:
    node = _parse(path, error)
    _take_keys(node, path, (), error)
    data = _construct(node, path, error)
    if not isinstance(data, dict):
        raise error(f"{path}:1: the file must be a mapping of keys to values, not {_show(data)}")
    return node, data


def _worst(invalid: ValidationError, node: yaml.Node, data: object) -> dict[str, Any]:
    """Return the complaint to show, its location in the file's own terms.

    That is the first in the file, but an unknown key before all others (a misspelt key gives two complaints, and this
    one explains the other), and of a union's branches the one that went deepest.
    """
    errors: list[dict[str, Any]] = [
        {**e, "loc": _real(_place(e), data, e["type"] == "missing")} for e in invalid.errors()
    ]
    places = [e["loc"] for e in errors]
    deepest = [e for e in errors if not any(place[: len(e["loc"])] == e["loc"] != place for place in places)]
    return min(deepest, key=lambda e: (e["type"] != "extra_forbidden", _line(node, e["loc"])))


def _place(error: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where pydantic, or a validator that knows it better, says that an error is."""
    reason = error.get("ctx", {}).get("error")
    return (*error["loc"], *(reason.key.split(".") if isinstance(reason, KeyFault) else ()))


def _parse(path: Path, error: type[QfxError]) -> yaml.Node:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path} must exist, but there is no such file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path} must be readable as UTF-8 text: {problem}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise error(f"{path}:1: the file must be nested less deeply than it is") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        raise error(f"{path}:{line}: the file must be YAML: {getattr(problem, 'problem', problem)}") from None
    if node is None:
        raise error(f"{path}:1: the file must be a mapping of keys to values, but is empty")
    _refuse_endless(node, path, error)
    return node


def _refuse_endless(node: yaml.Node, path: Path, error: type[QfxError], around: tuple[yaml.Node, ...] = ()) -> None:
    """Refuse a list or a mapping that an alias puts into itself."""
    if any(node is outer for outer in around):
        raise error(
            f"{path}:{node.start_mark.line + 1}: the list or mapping that begins here must not contain itself: write "
            "out what the alias in it shall stand for"
        )
    parts = node.value if isinstance(node, yaml.CollectionNode) else ()
    for part in parts:
        for inner in part if isinstance(part, tuple) else (part,):
            _refuse_endless(inner, path, error, (*around, node))


def _construct(node: yaml.Node, path: Path, error: type[QfxError]) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None) or node.start_mark
        raise error(
            f"{path}:{mark.line + 1}: the file must be plain YAML: {getattr(problem, 'problem', problem)}"
        ) from None
    finally:
        loader.dispose()


def _take_keys(node: yaml.Node, path: Path, where: Sequence[str], error: type[QfxError]) -> None:
    """Take each key as the text that stands there (0, 1.10, on), and refuse one that stands twice in its mapping."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _take_keys(item, path, (*where, str(index)), error)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise error(
                f"{path}:{line}: {_dotted(where) or 'the file'} must have keys of text, not a list or a mapping"
            )
        if key.value in seen:
            raise error(f"{path}:{line}: {_dotted((*where, key.value))} must stand once, not twice")
        seen.add(key.value)
        if key.tag != _MERGE:
            key.tag = "tag:yaml.org,2002:str"
        _take_keys(value, path, (*where, key.value), error)


def _line(node: yaml.Node, location: Sequence[int | str]) -> int:
    """Return the line of the value at ``location``, or of the innermost part of it that is there."""
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if str(key.value) == str(part)]
            if not found:
                break
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _sentence(found: dict[str, Any], model: type[BaseModel]) -> str:
    """Return what is wrong, in the form ``<key.path> must ..., not ...``."""
    location, kind, message = found["loc"], str(found["type"]), str(found["msg"])
    name = _dotted(location) or "the file"
    if kind == "missing":
        return f"{name} must be given, but is missing"
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return f"{name} must be one of the known keys ({', '.join(known)}), not {str(location[-1])!r}{hint}"
    for start in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(start)
    condition = re.sub(r"^\w+ should", "must", message).partition(" after validation")[0]
    condition = (
        condition.replace("an object", "a mapping")
        .replace("a valid integer", "an integer")
        .replace("a valid array", "a list")
        .replace("a valid ", "a ")
    )
    if condition.startswith("must ") and kind == "value_error" and isinstance(found["input"], Mapping):
        return f"{name} {condition}"
    if condition.startswith("must "):
        return f"{name} {condition}, not {_show(found['input'])}"
    return f"{name} must be legal, not {_show(found['input'])}: {condition}"


def _known_keys(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys of the mapping at ``location`` in ``model``, as a file spells them."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {field.alias or name: field for name, field in current.model_fields.items()}
            if str(part) in fields:
                current = _inner_model(fields[str(part)].annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return [field.alias or name for name, field in current.model_fields.items()]
    return []


def _inner_model(annotation: Any) -> Any:
    """Return the model inside an annotation such as ``dict[str, Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None


def _real(location: Sequence[int | str], data: object, missing: bool) -> tuple[int | str, ...]:
    """Return ``location`` without what is not in the file: the names of union branches, which pydantic adds.

    The last part of a ``missing`` key's location stays.
    """
    real: list[int | str] = []
    for index, part in enumerate(location):
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif not (missing and index == len(location) - 1):
            continue
        real.append(part)
    return tuple(real)


def _dotted(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location))


def _show(value: object) -> str:
    text = "a mapping" if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
