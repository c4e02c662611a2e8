"""doctor: what is here, what is missing, what is broken; it starts where everything else is missing."""

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from qfx import cli, doctor
from qfx.doctor import Check

ROOT = Path(__file__).resolve().parents[2]


def by_name(text: str) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in json.loads(text)}


def run(python: str | Path, *arguments: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([python, "-m", "qfx", *arguments], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def test_doctor_lists_tools_and_fails_where_one_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    found = by_name(capsys.readouterr().out)
    assert all(found[name]["version"] for name in ("torch", "hls4ml", "g++", "verilator", "cocotb", "yosys"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.run(["doctor", "--json"]) == 1
    found = by_name(capsys.readouterr().out)
    assert found["g++"]["state"] == "missing" and "apt install g++" in str(found["g++"]["remedy"])


def test_doctor_starts_without_any_package_and_says_what_to_install(bare: Path) -> None:
    done = run(bare, "doctor", "--json")
    assert done.returncode == 1, done.stderr
    found = by_name(done.stdout)
    packages = [name for name, _, _, _ in doctor.PACKAGES]
    assert {found[name]["state"] for name in packages} == {"missing"}
    assert str(found["numpy"]["remedy"]).startswith("pip install numpy==2.")
    assert "missing   numpy" in run(bare, "doctor").stdout


def test_another_command_without_packages_points_to_doctor(bare: Path) -> None:
    done = run(bare, "build", "digits")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: qfx must be able to import ")
    assert done.stderr.endswith("`qfx doctor` says what to install\n")


def test_a_package_whose_import_fails_is_broken(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('libblas.so.3: no such file\\nand more')")
    (tmp_path / "safetensors.py").write_text("import os; os.abort()")
    done = run(sys.executable, "doctor", "--json", path=f"{tmp_path}{os.pathsep}{ROOT}")
    found = by_name(done.stdout)
    assert done.returncode == 1
    assert (found["numpy"]["state"], found["numpy"]["fault"]) == ("broken", "ImportError: libblas.so.3: no such file")
    assert str(found["numpy"]["remedy"]).startswith("pip install --force-reinstall numpy==")
    assert found["safetensors"]["fault"] == "its import ends Python with exit code -6"
    assert found["rich"]["state"] == "ok"


def test_an_import_that_does_not_end_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleepy_module.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    faults = doctor.import_faults(["sleepy_module", "json"], seconds=2)
    assert faults == {"sleepy_module": "its import must end within 2 s, but did not", "json": ""}


def test_another_version_than_the_tested_one_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_faults", lambda modules: dict.fromkeys(modules, ""))
    monkeypatch.setattr(doctor, "_pinned", lambda: {"numpy": "1.0"})
    found = {check.name: check for check in doctor.checks()}
    assert found["numpy"].remark == "qfx is tested with 1.0" and found["numpy"].ok and not found["rich"].remark


def test_a_tool_cache_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_faults", lambda modules: dict.fromkeys(modules, ""))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc")
    found = {check.name: check for check in doctor.checks()}["tool cache"]
    assert found.state == "broken" and found.fault.endswith("set XDG_CACHE_HOME to a folder that is")


def test_the_table_has_fault_remedy_and_remark_below_the_line() -> None:
    found = [Check("a", "all", "1", "get a", remark="old"), Check("bc", "few", "2", "get b", fault="E: no")]
    assert doctor.table(found) == "ok      a   1  all\n        old\nbroken  bc  2  few\n        E: no\n        get b\n"


def test_every_package_that_qfx_needs_is_looked_for_and_pinned() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {requirement.split(">")[0] for requirement in needed}
    assert names == {distribution for _, distribution, _, _ in doctor.PACKAGES}
    assert names <= doctor._pinned().keys()
