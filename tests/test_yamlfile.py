"""A YAML file with a mistake is refused with file, line and key path, in one form of words."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from qfx import yamlfile
from qfx.errors import DesignError, PlanError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(gt=0)
    names: tuple[str, ...] = ()
    short: float = Field(1.0, alias="long-name")


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner
    parts: dict[str, Inner] = {}
    either: int | Inner = 0


GOOD = """\
inner:
  width: 3
  names: [a, b]
parts:
  p:
    width: 4
    long-name: 2
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_becomes_the_model(tmp_path):
    outer = yamlfile.load(write(tmp_path, GOOD), Outer)
    assert outer.inner.names == ("a", "b") and outer.parts["p"].short == 2.0


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("width: 3", "width: wide", ":2: inner.width must be an integer, not 'wide'"),
        ("width: 3", "width: 3.5", ":2: inner.width must be an integer, not 3.5"),
        ("width: 3", "width: '3'", ":2: inner.width must be an integer, not '3'"),
        ("width: 3", "width: yes", ":2: inner.width must be an integer, not True"),
        ("width: 3", "width: 0", ":2: inner.width must be greater than 0, not 0"),
        ("width: 3", "widht: 3", ":2: inner.widht must be one of the known keys (width, names, long-name), not 'widht'"
         ": did you mean 'width'?"),
        ("    width: 4\n", "", ":5: parts.p.width must be given, but is missing"),
        ("[a, b]", "[a, 1]", ":3: inner.names.1 must be a string, not 1"),
        ("[a, b]", "a", ":3: inner.names must be a list, not 'a'"),
        ("long-name: 2", "long: 2", ":7: parts.p.long must be one of the known keys (width, names, long-name), "
         "not 'long'"),
        ("  names", "  width: 4\n  names", ":3: inner.width must stand once, not twice"),
        ("[a, b]", "[a, b", ":4: the file must be YAML: expected ',' or ']', but got ':'"),
        ("parts:", "either:\n  width: x\nparts:", ":5: either.width must be an integer, not 'x'"),
        ("[a, b]", "!!python/object/apply:os.getcwd []", ":3: the file must be plain YAML: could not determine a"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_line_key_and_value(tmp_path, old, new, complaint):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(DesignError) as caught:
        yamlfile.load(path, Outer)
    assert str(caught.value).startswith(f"{path}{complaint}")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+.1e-2", "1.e-3", "0.001", "1.0e-3"])
def test_a_number_may_be_written_with_an_exponent(tmp_path, text):
    path = write(tmp_path, GOOD.replace("long-name: 2", f"long-name: {text}"))
    assert yamlfile.load(path, Outer).parts["p"].short == 0.001


@pytest.mark.parametrize("text", ["'1e-3'", '"1e-3"', "e-3", "1e-3x", "1e"])
def test_text_never_becomes_a_number(tmp_path, text):
    path = write(tmp_path, GOOD.replace("long-name: 2", f"long-name: {text}"))
    with pytest.raises(DesignError, match=r":7: parts\.p\.long-name must be a number, not '"):
        yamlfile.load(path, Outer)


def test_the_line_of_a_key_is_found_though_names_hold_dots(tmp_path):
    path = write(tmp_path, "layers:\n  a: {b: 1}\n  a.b.*:\n    weight: 4\n    c.d: 5\n")
    keys = ("layers", "layers.a.b", "layers.a.b.*", "layers.a.b.*.weight", "layers.a.b.*.c.d", "layers.a.b.*.no", "no")
    assert [yamlfile.line_of(path, key) for key in keys] == [1, 2, 3, 4, 5, 3, 1]


def test_the_line_of_an_item_of_a_list_is_found(tmp_path):
    path = write(tmp_path, "a:\n  front:\n  - {lut: 1}\n  -\n    dsp: 2\n  flat: [1, 2]\n")
    keys = ("a.front", "a.front.0", "a.front.1", "a.front.1.dsp", "a.front.2", "a.front.x", "a.flat.1.b")
    assert [yamlfile.line_of(path, key) for key in keys] == [2, 3, 5, 5, 2, 2, 6]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ":1: the file must be a mapping of keys to values, but is empty"),
        ("- 1\n", ":1: the file must be a mapping of keys to values, not [1]"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, complaint):
    path = write(tmp_path, text)
    with pytest.raises(PlanError) as caught:
        yamlfile.load(path, Outer, PlanError)
    assert str(caught.value) == f"{path}{complaint}"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: &a [*a]\n", 1), ("b: 1\nparts: &p\n  q: {width: 4}\n  r: *p\n", 2), ("&a {*a : 1}\n", 1)],
)
def test_an_alias_inside_of_what_it_names_is_refused(tmp_path, text, line):
    path = write(tmp_path, text)
    for reading in (lambda: yamlfile.load(path, Outer), lambda: yamlfile.read(path)):
        with pytest.raises(DesignError) as caught:
            reading()
        assert str(caught.value) == (
            f"{path}:{line}: the list or mapping that begins here must not contain itself: write out what the alias in "
            "it shall stand for"
        )
    path = write(tmp_path, "inner: &i {width: 3}\nparts: {p: *i, q: *i}\n")  # an alias beside what it names is none
    assert yamlfile.load(path, Outer).parts["q"].width == 3


def test_a_file_nested_too_deeply_is_refused(tmp_path):
    path = write(tmp_path, "a: " + "[" * 100_000)
    with pytest.raises(DesignError, match="the file must be nested less deeply than it is"):
        yamlfile.read(path)


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path):
    with pytest.raises(DesignError, match=r"none\.yaml must exist, but there is no such file"):
        yamlfile.load(tmp_path / "none.yaml", Outer)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DesignError, match=r"bytes\.yaml must be readable as UTF-8 text"):
        yamlfile.load(tmp_path / "bytes.yaml", Outer)
