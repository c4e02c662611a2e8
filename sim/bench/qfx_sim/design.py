"""Runs frames through a generated design under Verilator and says what came out, when, and where it first differs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qfx.arguments import as_path, require_kind
from qfx.emit import manifest
from qfx.files import make_folder
from qfx.fixed import Fixed, decode, require_codes
from qfx.plan.model import steady_interval
from qfx_sim import runner
from qfx_sim.lanes import Lanes
from qfx_sim.runner import BenchFailure

BENCH = Path(__file__).with_name("design_bench.py")
JOB, RESULT = "job.json", "result.json"

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first code of the first node, in the order of the data, that is not what it must be."""

    node: str
    frame: int
    position: tuple[int, ...]  # row, column, channel; or the element
    expected: int
    found: int
    expected_value: float
    found_value: float
    format: str
    time_ns: int  # when the word with that code was there

    def __str__(self) -> str:
        where = f"element {self.position[0]}"
        if len(self.position) == 3:
            where = f"pixel ({self.position[0]}, {self.position[1]}), channel {self.position[2]}"
        return (
            f"RTL: node {self.node!r} must give code {self.expected} ({self.expected_value:g}) at frame {self.frame}, "
            f"{where}, not {self.found} ({self.found_value:g}), in {self.format}, at {self.time_ns} ns"
        )


@dataclass(frozen=True)
class Simulation:
    """What a design did."""

    codes: Mapping[str, Codes]  # (N, *shape) of each output, and of each node where all were watched
    ends: tuple[int, ...]  # cycle of each frame's last output word, from the first input word
    difference: Difference | None

    @property
    def interval(self) -> int | None:
        """Cycles a frame in steady state; None for fewer than two frames."""
        return steady_interval(self.ends) if len(self.ends) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Figures for a record."""
        difference = None
        if self.difference is not None:
            difference = {**asdict(self.difference), "sentence": str(self.difference)}
        return {
            "frames": len(self.ends),
            "cycles": self.ends[-1] + 1 if self.ends else 0,
            "latency": self.ends[0] + 1 if self.ends else None,
            "interval": self.interval,
            "difference": difference,
        }


def simulate(
    folder: Path,
    codes: Codes,
    expected: Mapping[str, Codes] | None = None,
    *,
    stalls: bool = False,
    seed: int = 1,
    every_node: bool = False,
    work: Path | None = None,
) -> Simulation:
    """Send input ``codes`` (N, *shape) through the design in ``folder``, which `qfx.emit.rtl` wrote.

    Where ``expected`` gives other codes for an output than the design does, the frames up to the first wrong one run
    again with every node watched, and ``difference`` names the first node that differs from what ``expected`` holds.
    ``stalls`` lets source and sinks stall at random; ``every_node`` watches every node's stream in the first run too,
    which takes longer. The files of the run are left in ``work`` if given. Raise BenchFailure where words do not come
    at all or a port breaks the stream contract.
    """
    folder = as_path(BenchFailure, "folder", folder)
    facts = manifest.read(folder, "rtl")
    shape, fixed = tuple(facts["input"]["shape"]), Fixed.parse(facts["input"]["format"])
    require_codes(BenchFailure, "input codes", codes, shape, fixed)
    if expected is not None:
        _require_outputs(expected, facts, len(codes))
    place = Path(tempfile.mkdtemp(prefix="qfx_design.")) if work is None else as_path(BenchFailure, "work", work)
    codes, place = codes.astype(np.int64), place.resolve()
    make_folder(place, BenchFailure)
    outputs = list(facts["outputs"].values())
    watched = [*facts["nodes"].values(), *outputs]
    first = _run(folder, facts, codes, watched if every_node else outputs, stalls, seed, place)
    difference = _first_difference(first, expected or {})
    if difference is not None and expected is not None and not every_node:
        some = codes[: difference.frame + 1]
        again = _run(folder, facts, some, watched, stalls, seed, place)
        difference = (
            _first_difference(again, {name: known[: len(some)] for name, known in expected.items()}) or difference
        )
    if work is None:
        shutil.rmtree(place, ignore_errors=True)
    ends = _ends({entry["node"]: first[entry["node"]] for entry in outputs})
    return Simulation({node: seen.codes for node, seen in first.items()}, ends, difference)


def _require_outputs(expected: Mapping[str, Codes], facts: dict[str, Any], frames: int) -> None:
    """Refuse ``expected`` where an output has nothing in it to be compared with."""
    require_kind(BenchFailure, "expected", expected, Mapping, "codes by node, as Graph.evaluate_codes gives")
    for entry in facts["outputs"].values():
        node, shape = entry["node"], (frames, *entry["shape"])
        found = np.shape(expected[node]) if node in expected else "none"
        if found != shape:
            raise BenchFailure(f"expected must hold codes of shape {shape} for the output {node!r}, not {found}")


@dataclass(frozen=True)
class _Seen:
    """The words of one stream."""

    format: Fixed
    codes: Codes
    times: Codes  # cycle of each code, in the shape of codes
    start_ns: int
    period_ns: int
    ends: tuple[int, ...]


def _run(
    folder: Path,
    facts: dict[str, Any],
    codes: Codes,
    watched: Sequence[dict[str, Any]],
    stalls: bool,
    seed: int,
    place: Path,
) -> dict[str, _Seen]:
    """Simulate once and return what was seen of the nodes of ``watched``."""
    ports = {entry["node"]: name for name, entry in facts["outputs"].items()}
    job = {
        "input": _lanes(facts["input"]).words(codes),
        "outputs": {name: entry["words"] * len(codes) for name, entry in facts["outputs"].items()},
        "taps": {e["node"]: [e["wire"], e["pipe"], e["words"] * len(codes)] for e in watched if e["node"] not in ports},
        "limit": (facts["latency"] + facts["interval"] * (len(codes) + 2)) * (12 if stalls else 1) + 20_000,
        "stalls": stalls,
        "seed": seed,
    }
    (place / JOB).write_text(json.dumps(job), encoding="utf-8")
    runner.run(
        facts["top"],
        BENCH,
        sources=[folder / name for name in facts["sources"]],
        library=[],
        data=sorted(folder.glob("*.mem")),
        build_dir=place,
        seeds=[seed],
        timeout=3600.0,
        quick_build=True,
    )
    result = json.loads((place / RESULT).read_text(encoding="utf-8"))
    names = {entry["node"]: ports.get(entry["node"], entry["node"]) for entry in watched}
    return {entry["node"]: _seen(entry, result, names[entry["node"]], len(codes)) for entry in watched}


def _seen(entry: dict[str, Any], result: dict[str, Any], name: str, frames: int) -> _Seen:
    lanes, fixed = _lanes(entry), Fixed.parse(entry["format"])
    shape = (frames, *entry["shape"])
    words, times = result["words"][name], np.asarray(result["times"][name], dtype=np.int64)
    cycles = (times - result["start_ns"]) // result["period_ns"]
    each = np.repeat(cycles, lanes.lanes).reshape(-1, lanes.groups * lanes.lanes)[:, : lanes.channels]
    ends = tuple(int(cycle) for cycle in cycles[entry["words"] - 1 :: entry["words"]])
    codes = lanes.codes(words).reshape(shape)
    return _Seen(fixed, codes, each.reshape(shape), result["start_ns"], result["period_ns"], ends)


def _lanes(entry: dict[str, Any]) -> Lanes:
    fixed = Fixed.parse(entry["format"])
    return Lanes(fixed.width, entry["lanes"], entry["channels"], fixed.signed)


def _ends(seen: Mapping[str, _Seen]) -> tuple[int, ...]:
    return tuple(max(each) for each in zip(*(stream.ends for stream in seen.values()), strict=True))


def _first_difference(seen: Mapping[str, _Seen], expected: Mapping[str, Codes]) -> Difference | None:
    for node, stream in seen.items():
        if node not in expected or np.array_equal(expected[node], stream.codes):
            continue
        where = tuple(int(i) for i in np.argwhere(np.asarray(expected[node]) != stream.codes)[0])
        want, got = int(expected[node][where]), int(stream.codes[where])
        channels = stream.codes.shape[-1]
        value, other = (float(decode(np.full(channels, code), stream.format)[where[-1]]) for code in (want, got))
        time = int(stream.times[where]) * stream.period_ns + stream.start_ns
        return Difference(node, where[0], where[1:], want, got, value, other, str(stream.format), time)
    return None
