"""The recipe: which format each quantization point of each layer gets."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qfx.arguments import require_kind
from qfx.errors import QfxError, RecipeError, TrainError
from qfx.fixed import Fixed, Overflow, Rounding
from qfx.nn.quantizer import ACTIVATION, CONSTANT, ELEMENTWISE, WEIGHT, Digits, Spec
from qfx.yamlfile import line_of, read

POINTS: dict[str, Spec] = {
    "input": Spec(),
    "weight": WEIGHT,
    "constant": CONSTANT,
    "elementwise": ELEMENTWISE,
    "activation": ACTIVATION,
    "output": Spec(),
}
_VECTORS = ("weight", "constant")  # the points that may have one binary point per channel
_SHOWN = 8  # paths in a message
_KEYS = ("width", "frac", "signed", "granularity", "rounding", "overflow", "digits", "levels", "learn_width")


class Recipe:
    """Formats by quantization point: defaults, and patterns over module paths of which the last match wins.

    Args:
        source: ``{"default": {point: spec}, "layers": {pattern: {point: spec}}}``, a YAML file of that, or None. A spec
            is a width, a format such as ``u5.0``, or a mapping of ``width``, ``frac`` (``learn`` or an integer),
            ``signed``, ``granularity`` (``tensor`` or ``channel``), ``rounding``, ``overflow``, ``digits``
            (``{k, signed, learn}``), ``levels`` (``binary``: codes -1 and 1, ``ternary``: 0 too) and ``learn_width``
            (true: the width is where training starts from); what a mapping leaves out is the point's default. Beside
            the points, ``fold: true`` folds a BatchNorm into the convolution before it, and ``table: learned`` lets
            training move each entry of a table (``function``: they are those of its function).

    Raises:
        RecipeError: an unknown key or an impossible value, with the key's path.
    """

    def __init__(self, source: Mapping[str, Any] | Path | None = None) -> None:
        require_kind(TrainError, "recipe", source, (Mapping, Path, type(None)), "a mapping, or the Path of a YAML file")
        content = read(source, TrainError) if isinstance(source, Path) else source or {}
        if not isinstance(content, Mapping):
            raise TrainError(f"a recipe must be a mapping, not {content!r}")
        _known(content, ("default", "layers"), "")
        self._default = _layer(_mapping(content.get("default") or {}, "default"), "default")
        layers = _mapping(content.get("layers") or {}, "layers")
        self._layers = {
            str(pattern): _layer(_mapping(points, f"layers.{pattern}"), f"layers.{pattern}")
            for pattern, points in layers.items()
        }
        self._unused = {(pattern, point) for pattern, points in self._layers.items() for point in points}
        self._unused |= {(pattern, "") for pattern in self._layers}
        self._asked: dict[str, list[str]] = {}  # the layers that there are, with their points

    def spec(self, path: str, point: str) -> Spec:
        """Return the format of one point of the layer at ``path``."""
        found = self._find(path, point)
        return found if isinstance(found, Spec) else POINTS[point]

    def fold(self, path: str) -> bool:
        """Return whether the BatchNorm at ``path`` is to be folded."""
        return self._find(path, "fold") is True

    def learns_table(self, path: str) -> bool:
        """Return whether the entries of the table at ``path`` are learned."""
        return self._find(path, "table") == "learned"

    def names(self, path: str, point: str) -> bool:
        """Return whether a pattern, not only the default, speaks of this point of this layer."""
        return any(fnmatchcase(path, pattern) and point in points for pattern, points in self._layers.items())

    def check_used(self, others: Iterable[str] = ()) -> None:
        """Refuse patterns, and points of patterns, that no layer has asked for; ``others`` are layers without any."""
        for pattern, point in sorted(self._unused):
            if not point:
                raise RecipeError(
                    f"recipe pattern 'layers.{pattern}' must match a layer of the model that has quantization points, "
                    f"but matches {self._instead(pattern, others)}",
                    f"layers.{pattern}",
                )
            if (pattern, "") not in self._unused:
                path = next(path for path in self._asked if fnmatchcase(path, pattern))
                has = ", ".join(self._asked[path])
                raise _wrong(f"layers.{pattern}.{point}", f"must match a layer that has this point; '{path}' has {has}")

    def _instead(self, pattern: str, others: Iterable[str]) -> str:
        """What a pattern matches that no layer with a point does, and which paths there are."""
        if pointless := next((path for path in others if fnmatchcase(path, pattern)), None):
            return f"'{pointless}' alone, which has none: what reads or gives its values has the format"
        near = get_close_matches(pattern, self._asked, 1, cutoff=0.75)
        if near:
            return f"none; the nearest is '{near[0]}'"
        paths = [f"'{path}'" for path in self._asked]
        return f"none; there are {', '.join(paths[:_SHOWN])}{', ...' if len(paths) > _SHOWN else ''}"

    def _find(self, path: str, point: str) -> Spec | bool | str | None:
        found = self._default.get(point)
        asked = self._asked.setdefault(path, [])
        asked += [] if point in asked else [point]
        for pattern, points in self._layers.items():
            if fnmatchcase(path, pattern):
                self._unused.discard((pattern, ""))
                if point in points:
                    self._unused.discard((pattern, point))
                    found = points[point]
        return found


@contextmanager
def placed(path: Path | None, under: str = "") -> Iterator[None]:
    """Name file and line where a recipe that stands in the file ``path``, below a key, is refused in the block."""
    try:
        yield
    except RecipeError as error:
        if path is None:
            raise
        line = line_of(path, f"{under}.{error.key}".lstrip("."))
        raise RecipeError(f"{path}:{line}: {error}", error.key) from None


def _wrong(where: str, condition: str) -> RecipeError:
    return RecipeError(f"recipe key '{where}' {condition}", where)


def _layer(points: Mapping[str, Any], where: str) -> dict[str, Spec | bool | str]:
    if "bias" in points:
        raise _wrong(f"{where}.bias", "must be left out: a bias follows its input and weight formats")
    _known(points, (*POINTS, "fold", "table"), where)
    return {point: _point(given, point, f"{where}.{point}") for point, given in points.items()}


def _point(given: Any, point: str, where: str) -> Spec | bool | str:
    if point == "fold":
        return _boolean(given, where)
    return _choice(given, ["function", "learned"], where) if point == "table" else _spec(given, point, where)


def _spec(given: Any, point: str, where: str) -> Spec:
    base = POINTS[point]
    try:
        if isinstance(given, str):
            fixed = Fixed.parse(given)
            spec = replace(base, width=fixed.width, frac=fixed.scalar_frac, signed=fixed.signed)
        elif isinstance(given, int) and not isinstance(given, bool):
            spec = replace(base, width=given)
        elif isinstance(given, Mapping):
            spec = replace(base, **_fields(given, point, where))
        else:
            raise _wrong(where, f"must be a width, a format such as 's8.3', or a mapping, not {given!r}")
    except RecipeError:
        raise
    except QfxError as error:
        raise RecipeError(f"{error}, in recipe key '{where}'", where) from None
    if spec.width == 0 and point not in _VECTORS:
        raise _wrong(where, "must be at least one bit wide, not 0")
    if point == "input":
        _require_sent(spec, where)
    return spec


def _require_sent(spec: Spec, where: str) -> None:
    """Refuse an input that is not what the host sends: codes that it rounds RND and saturates."""
    for key, usual in (("rounding", Rounding.RND), ("overflow", Overflow.SAT)):
        if (found := getattr(spec, key)) != usual:
            raise _wrong(f"{where}.{key}", f"must be {usual}, by which the host's codes are made, not {found}")


def _fields(given: Mapping[str, Any], point: str, where: str) -> dict[str, Any]:
    _known(given, _KEYS, where)
    fields: dict[str, Any] = {}
    for key, value in given.items():
        place = f"{where}.{key}"
        match key:
            case "width":
                fields["width"] = _integer(value, place)
            case "frac":
                fields["frac"] = None if value == "learn" else _integer(value, place, "learn or an integer")
            case "signed":
                fields["signed"] = _boolean(value, place)
            case "rounding":
                fields["rounding"] = Rounding(_choice(value, [*Rounding], place))
            case "overflow":
                fields["overflow"] = Overflow(_choice(value, [*Overflow], place))
            case "granularity":
                fields["per_channel"] = _choice(value, ["tensor", "channel"], place) == "channel"
                if fields["per_channel"] and point not in _VECTORS:
                    raise _wrong(
                        place,
                        "must be 'tensor', not 'channel', except for weights and constants: leave it out; to give each "
                        "channel its range, scale it in the BatchNorm before this layer",
                    )
            case "digits":
                fields["digits"] = _digits(value, point, place)
            case "levels":
                fields |= _levels(value, point, place, given)
            case "learn_width":
                fields["learn_width"] = _boolean(value, place)
    if isinstance(fields.get("frac"), int) and point in _VECTORS:
        fields.setdefault("per_channel", False)
    return fields


def _digits(value: Any, point: str, where: str) -> Digits:
    if point not in _VECTORS:
        raise _wrong(where, f"must stand at one of {', '.join(_VECTORS)}, not at {point}")
    given = _mapping(value, where)
    _known(given, ("k", "signed", "learn"), where)
    signed, learn = (_boolean(given.get(key, False), f"{where}.{key}") for key in ("signed", "learn"))
    return Digits(_k(given.get("k"), f"{where}.k"), signed, learn=learn)


def _k(value: Any, where: str) -> int | tuple[int, ...]:
    if isinstance(value, list | tuple):
        each = tuple(_integer(k, where, "an integer, or a list of one for each channel") for k in value)
        if min(each, default=0) < 0 or max(each, default=0) < 1:
            raise _wrong(where, f"must be at least 0 for each channel, and above 0 for one of them, not {list(each)}")
        return each
    if value is None or _integer(value, where, "an integer, or a list of one for each channel") < 1:
        raise _wrong(where, f"must be at least 1, not {value}")
    return int(value)


def _levels(value: Any, point: str, where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Words of two bits with one digit: its sign, and for ternary ones whether it is there."""
    if point not in _VECTORS:
        raise _wrong(where, f"must stand at one of {', '.join(_VECTORS)}, not at {point}")
    kind = _choice(value, ["binary", "ternary"], where)
    if other := [key for key in ("width", "digits", "learn_width", "overflow", "rounding", "signed") if key in given]:
        raise _wrong(where, f"must stand without {other[0]}: {kind} weights are signed words of two bits")
    return {"width": 2, "digits": Digits(1, zero=kind == "ternary")}


def _known(given: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in keys:
            raise _wrong(f"{where}.{key}".lstrip("."), f"must be one of {', '.join(keys)}")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, f"must be a mapping, not {value!r}")
    return value


def _integer(value: Any, where: str, kind: str = "an integer") -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(where, f"must be {kind}, not {value!r}")
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, f"must be true or false, not {value!r}")
    return value


def _choice(value: Any, choices: list[str], where: str) -> str:
    if value not in choices:
        raise _wrong(where, f"must be one of {', '.join(choices)}, not {value!r}")
    return str(value)
