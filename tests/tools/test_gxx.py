"""The C++ compiler builds programs and libraries, and says what is wrong with a source."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qfx.errors import ToolError
from qfx.tools import gxx


def test_a_program_runs(tmp_path):
    source = tmp_path / "main.cpp"
    source.write_text('#include <cstdio>\n#include "n.h"\nint main() { std::printf("%d", N); }\n')
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "n.h").write_text("constexpr int N = 42;\n")
    gxx.program([source], tmp_path / "main", includes=[tmp_path / "include"])
    assert subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout == "42"


def test_a_shared_library_loads(tmp_path):
    source = tmp_path / "lib.cpp"
    source.write_text('extern "C" int twice(int x) { return 2 * x; }\n')
    gxx.shared_library([source], tmp_path / "lib.so")
    assert ctypes.CDLL(str(tmp_path / "lib.so")).twice(21) == 42


def test_a_wrong_source_is_named_with_its_line_and_leaves_the_old_program(tmp_path):
    source = tmp_path / "main.cpp"
    source.write_text("int main() {\n  return nothing;\n}\n")
    (tmp_path / "main").write_text("old")
    with pytest.raises(
        ToolError, match=r"g\+\+ [\d.]+ failed with exit code 1: .*main\.cpp:2:10: error: .nothing. was"
    ):
        gxx.program([source], tmp_path / "main")
    assert (tmp_path / "main").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main", "main.cpp", "main.log"]


def test_the_log_names_no_place_that_is_gone(tmp_path):
    (tmp_path / "main.cpp").write_text("int main() {}\n")
    for _ in range(2):
        gxx.program([tmp_path / "main.cpp"], tmp_path / "main")
        command = (tmp_path / "main.log").read_text().splitlines()[0].split()
        assert command == ["$", str(gxx.executable()), "-std=c++17", str(tmp_path / "main.cpp"), "-o", "main"]


@pytest.mark.parametrize("process", [7, 31_999])
def test_what_is_kept_of_a_library_does_not_depend_on_the_process(tmp_path, monkeypatch, process):
    monkeypatch.setattr(os, "getpid", lambda: process)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "lib.cpp").write_text('extern "C" int twice(int x) { return 2 * x; }\n')
    library = gxx.cached_library(tmp_path / "lib.cpp", ["-O1"])
    assert [path.name for path in library.parent.iterdir()] == ["library.so"]
    assert ctypes.CDLL(str(library)).twice(21) == 42
    logs = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path != library]
    assert [path.name for path in logs] == ["lib.g++.log"]
    assert ".part" not in logs[0].read_text()


def test_the_log_of_a_library_that_does_not_compile_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "lib.cpp").write_text("int twice(int x) { return nothing; }\n")
    with pytest.raises(ToolError) as caught:
        gxx.cached_library(tmp_path / "lib.cpp", [])
    assert "nothing" in Path(str(caught.value).rpartition("log: ")[2]).read_text()


def test_a_missing_compiler_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "g++" else f"/bin/{name}")
    with pytest.raises(ToolError) as caught:
        gxx.version()
    expected = (
        "g++ must be installed, but no `g++` is on the PATH: install it, on Debian or Ubuntu with `apt install g++`"
    )
    assert str(caught.value) == expected
