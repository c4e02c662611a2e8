"""The wheel holds everything that a build needs, and finds it without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qfx import resources
from qfx.errors import QfxError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("qfx-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel, unpacked where Python would find it."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def checkout_files(folder: str, pattern: str) -> set[str]:
    found = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob(pattern))
    return {path.as_posix() for path in found if "build" not in path.parts}


@pytest.mark.parametrize(
    ("folder", "pattern", "inside"),
    [
        ("rtl", "*.sv", "qfx/_data/rtl"),
        ("hls/include", "*.hpp", "qfx/_data/hls/include"),
        ("boards", "*.yaml", "qfx/_data/boards"),
        ("designs", "design.yaml", "qfx/_data/designs"),
        ("designs", "model.py", "qfx/_data/designs"),
        ("hls/qfx_hls4ml", "*.py", "qfx_hls4ml"),
        ("sim/bench/qfx_sim", "*.py", "qfx_sim"),
        ("qfx", "*.py", "qfx"),
        ("qfx", "py.typed", "qfx"),
    ],
)
def test_the_wheel_holds_every_file_of_a_folder(installed, folder, pattern, inside):
    expected = checkout_files(folder, pattern)
    assert expected and {name for name in expected if not (installed / inside / name).is_file()} == set()


def test_the_wheel_holds_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"qfx", "qfx_hls4ml", "qfx_sim"}
    assert [name for name in names if "/build/" in name or "__pycache__" in name or "/tests/" in name] == []


def test_the_wheel_declares_the_command_and_the_hls4ml_plug_in(installed):
    entries = next(installed.glob("qfx-*.dist-info")).joinpath("entry_points.txt").read_text()
    assert "[console_scripts]\nqfx = qfx.__main__:main" in entries
    assert "[hls4ml.backends]\nqfx = qfx_hls4ml.plugin:register" in entries


def test_an_installed_package_finds_its_folders(installed, tmp_path):
    code = (
        "import qfx_sim, qfx_hls4ml; from qfx import resources; from qfx.boards import Board\n"
        "print(*[resources.path(name) for name in resources.NAMES], sep='\\n'); Board.load('ultra96v2')"
    )
    env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout  # hls4ml says so where a plug-in did not load
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert len(paths) == len(resources.NAMES) and all(path.is_relative_to(installed) for path in paths)


def test_a_checkout_finds_its_folders():
    assert resources.path("rtl") == ROOT / "rtl" and resources.path("sim/bench") == ROOT / "sim" / "bench"


def test_an_unknown_resource_is_refused():
    with pytest.raises(QfxError, match="resource must be one of boards, designs, hls, rtl, sim/bench, not 'docs'"):
        resources.path("docs")


@pytest.mark.full
def test_the_wheel_in_an_empty_environment_runs_the_demo(wheel, tmp_path):
    """What a user without a checkout does; takes minutes and the network."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    for package in ("torch", str(wheel)):
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, package], check=True)
    work = tmp_path / "work"
    work.mkdir()
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [tmp_path / "env" / "bin" / "qfx", "build", "digits"]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
