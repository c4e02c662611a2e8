"""Full disks and interrupts in the middle of every real step, met by its real programs: nothing is lost or left over.

disk.cpp, preloaded into `qfx <step>` and all that it starts, counts what is written below three folders: the build, the
tool cache, temporary files. Past a given count, writes fail as on a full disk, or wait until a signal was sent.
"""

import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qfx import steps
from qfx.tools import _cache, yosys

HERE = Path(__file__).parent
NAMES = tuple(step.name for step in steps.STEPS)
BUILD, CACHE, TEMPORARY = range(3)
ROOMY = 1 << 40


@dataclass(frozen=True)
class Done:
    """How a run of qfx ended."""

    code: int
    said: str  # stderr
    written: tuple[int, ...]  # bytes, in each of the three folders


@dataclass(frozen=True)
class Place:
    """A design folder, a tool cache and a folder of temporary files, on a disk whose room is known."""

    root: Path
    preload: Path

    @property
    def build(self) -> Path:
        return self.root / "micro" / "build"

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        return self.build, self.root / "cache" / "qfx", self.root / "tmp"

    def run(self, step: str, *options: str, full: int | None = None, room: int = ROOMY) -> Done:
        """Run the step; the folder of number ``full``, if any, takes ``room`` bytes."""
        with self._disk([room if number == full else ROOMY for number in range(3)], stops=False) as disk:
            process = self._start(step, *options)
            said = process.communicate(timeout=300)[1]
            return Done(process.returncode, said, struct.unpack_from("3q", disk))

    def interrupt(self, step: str, where: int, after: int, number: int, group: bool) -> Done:
        """Run the step and send the signal ``number`` when it has written ``after`` bytes to the folder ``where``."""
        with self._disk([after if number == where else ROOMY for number in range(3)], stops=True) as disk:
            process = self._start(step, "--force")
            while process.poll() is None and not struct.unpack_from("q", disk, 56)[0]:
                time.sleep(0.005)
            assert process.poll() is None, process.communicate()[1]
            (os.killpg if group else os.kill)(process.pid, number)
            struct.pack_into("q", disk, 64, 1)
            said = process.communicate(timeout=60)[1]
            return Done(process.returncode, said, struct.unpack_from("3q", disk))

    def _disk(self, room: list[int], stops: bool) -> mmap.mmap:
        (self.root / "disk").write_bytes(struct.pack("9q", 0, 0, 0, *room, stops, 0, 0))
        with (self.root / "disk").open("r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    def _start(self, step: str, *options: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.preload),
            "DISK": str(self.root / "disk"),
            "DISK_FOLDERS": ":".join(map(str, self.folders)),
            "XDG_CACHE_HOME": str(self.folders[CACHE].parent),
            "TMPDIR": str(self.folders[TEMPORARY]),
            "OMP_NUM_THREADS": "1",
            "TERM": "dumb",
        }
        command = [str(Path(sys.executable).with_name("qfx")), step, str(self.root / "micro"), *options]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def results(self) -> dict[str, bytes]:
        """Every file of every result."""
        return {name: data for step in NAMES for name, data in files(self.build / step, self.build).items()}

    def entries(self) -> set[Path]:
        """What the tool cache holds, but for objects of the simulator."""
        cache = self.folders[CACHE]
        return {path.relative_to(cache) for path in cache.glob("*/[!.]*") if path.is_dir()}

    def sizes(self, entry: Path) -> dict[str, int]:
        """The files of an entry of the tool cache."""
        folder = self.folders[CACHE] / entry
        return {name: len(data) for name, data in files(folder, folder).items()}

    def leftovers(self) -> list[str]:
        """What no run may leave behind."""
        build, cache, temporary = self.folders
        found = [path for path in build.iterdir() if path.name not in (*NAMES, "logs", ".kept", ".lock")]
        found += [path for path in (*build.rglob(".*"), *cache.rglob(".*")) if path.name.endswith((".part", ".old"))]
        found += [path for path in cache.rglob("*") if path.name.startswith((".", "tmp"))]
        found += [path for path in temporary.iterdir() if not path.name.startswith("torchinductor_")]  # torch makes it
        return [str(path.relative_to(self.root)) for path in found]

    def processes(self, patience: float = 5.0) -> list[str]:
        """The processes that a run left running, once those that were killed had time to go."""
        mark, end = f"DISK={self.root / 'disk'}\0".encode(), time.monotonic() + patience
        while True:
            left = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and has(entry, mark)]
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.05)


def has(process: Path, mark: bytes) -> bool:
    try:
        return mark in (process / "environ").read_bytes()
    except OSError:
        return False


def files(folder: Path, base: Path) -> dict[str, bytes]:
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lasting(step: str, place: Place) -> dict[str, object]:
    """What a step's result holds, but for times, logs and what depends on them."""
    kept: dict[str, object] = dict(files(place.build / step, place.build))
    record = json.loads(kept.pop(f"{step}/result.json"))  # type: ignore[arg-type]
    figures = {key: value for key, value in record["figures"].items() if key != "images_per_second"}
    page = kept.pop("report/report.html", b"")
    assert isinstance(page, bytes)
    page = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", page)
    kept = {name: data for name, data in kept.items() if not name.endswith(".log")}
    return {**kept, "figures": figures, "key": record["key"], "warnings": record["warnings"], "page": page}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "disk.so"
    subprocess.run(["g++", "-std=c++17", "-O1", "-shared", "-fPIC", HERE / "disk.cpp", "-o", path, "-ldl"], check=True)
    return path


@dataclass(frozen=True)
class Whole:
    """A finished build, what each step wrote, and the entries of the tool cache that are its own."""

    place: Place
    written: dict[str, tuple[int, ...]]
    cached: dict[str, set[Path]]


@pytest.fixture(scope="module", autouse=True)
def other_caches() -> Iterator[None]:
    """The caches of packages stay where they are."""
    home = _cache.root().parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOWASP_CACHE_DIR", str(home / "YoWASP"))
        patch.setenv("MPLCONFIGDIR", str(home / "matplotlib"))
        yield


@pytest.fixture(scope="module")
def whole(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Every step run once, from a cache that lacks the programs and one run of yosys: so all tools run."""
    place = Place(tmp_path_factory.mktemp("faults"), library)
    shutil.copytree(HERE / "micro", place.root / "micro")
    for folder in place.folders:
        folder.mkdir(parents=True)
    objects = _cache.root() / "objects"
    if objects.is_dir():
        shutil.copytree(objects, place.folders[CACHE] / "objects")
    written, cached = {}, {}
    for step in NAMES:
        if step == "synth":
            take_runs(place)
        before = place.entries()
        done = place.run(step)
        if step == "sim":  # again, now that the objects of the simulator's own library are there
            shutil.rmtree(place.folders[CACHE] / "models")
            done = place.run(step, "--force")
        assert done.code == 0, done.said
        written[step], cached[step] = done.written, place.entries() - before
    assert place.leftovers() == [] and place.processes() == []
    return Whole(place, written, cached)


def take_runs(place: Place) -> None:
    """Copy what all runs of yosys but the shortest gave for the design from the user's cache."""
    used: dict[Path, None] = {}
    kept = yosys._kept

    def noted(folder: Path) -> object:
        used[folder] = None
        return kept(folder)

    other = Path(shutil.copytree(place.root / "micro", place.root / "other"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yosys, "_kept", noted)
        steps.synth(other)
    shortest = min(used, key=lambda folder: (folder / "result.json").stat().st_size)
    for folder in used.keys() - {shortest}:
        shutil.copytree(folder, place.folders[CACHE] / "yosys_together" / folder.name)
    shutil.rmtree(other)


@pytest.fixture
def copy(whole: Whole) -> Place:
    """The finished build in a place of its own, whose path is as long: a model of the simulator holds it."""
    root = whole.place.root
    place = next(p for n in range(1000) if not (p := root.with_name(f"{n:0{len(root.name)}}")).exists())
    return Place(Path(shutil.copytree(root, place)), whole.place.preload)


@dataclass(frozen=True)
class Full:
    """A folder that is full after a share of what the step writes there."""

    where: int
    share: float

    def strike(self, step: str, place: Place, whole: Whole) -> None:
        """Run the step on it."""
        room = int(self.share * whole.written[step][self.where])
        done = place.run(step, "--force", full=self.where, room=room)
        said = (
            f"error: step {step} needs room on the disk, but {place.folders[self.where]} is full; earlier results are "
            f"kept: mend it and run `qfx {step} {place.root / 'micro'}` again"
        )
        assert done.code == 1 and done.said.splitlines()[-1:] == [said] and "Traceback" not in done.said, done


@dataclass(frozen=True)
class Signal:
    """A signal in the middle of what the step or its compiler writes, for all processes as from a terminal, or one."""

    number: signal.Signals
    group: bool

    def strike(self, step: str, place: Place, whole: Whole) -> None:
        """Interrupt the step with it."""
        where = TEMPORARY if step in ("hls", "sim") else BUILD  # g++ writes to the first
        done = place.interrupt(step, where, whole.written[step][where] // 2, self.number, self.group)
        if self.number == signal.SIGKILL:
            assert done.code == -signal.SIGKILL
            assert place.processes(patience=60.0) == []  # a compiler that lost its parent ends when it is done
        else:
            said = "error: interrupted; finished results are whole, the same command carries on"
            assert done.code == 130 and done.said.splitlines()[-1:] == [said] and "Traceback" not in done.said, done


KILL = Signal(signal.SIGKILL, group=False)  # the last fault: the next run cleans up
USUAL = (Full(BUILD, 0.5), Full(CACHE, 0.5), Full(TEMPORARY, 0.5), Signal(signal.SIGINT, group=True), KILL)
MORE = (Full(BUILD, 0.0), Full(BUILD, 0.95), Signal(signal.SIGINT, group=False), Signal(signal.SIGTERM, group=False))


@pytest.mark.parametrize("faults", [USUAL, pytest.param(MORE, marks=pytest.mark.full)], ids=["usual", "more"])
@pytest.mark.parametrize("step", NAMES)
def test_faults_in_a_step_lose_nothing_and_the_next_run_carries_on(
    step: str, faults: tuple[Full | Signal, ...], copy: Place, whole: Whole
) -> None:
    before = copy.results()
    for fault in faults:
        if isinstance(fault, Full) and whole.written[step][fault.where] < 100:
            continue  # the step has nothing to write there
        start_over(step, copy, whole)
        if isinstance(fault, Full) and step == "train" and fault.where != BUILD:
            # Only a kernel goes there, without which the same bits are computed, more slowly.
            done = copy.run(step, "--force", full=fault.where, room=int(fault.share * whole.written[step][fault.where]))
            assert done.code == 0 and lasting(step, copy) == lasting(step, whole.place), done
            before = copy.results()
            continue
        entries = copy.entries()
        fault.strike(step, copy, whole)
        assert copy.processes() == [] and copy.results() == before, fault
        assert fault == KILL or copy.leftovers() == [], fault
        for entry in copy.entries() - entries:
            assert copy.sizes(entry) == whole.place.sizes(entry), (fault, entry)
    carries_on(step, copy, whole)


def start_over(step: str, copy: Place, whole: Whole) -> None:
    """Remove parts of the step's work that outlive an interrupt."""
    shutil.rmtree(copy.build / ".kept" / step, ignore_errors=True)
    for entry in whole.cached[step]:
        shutil.rmtree(copy.folders[CACHE] / entry, ignore_errors=True)


def carries_on(step: str, copy: Place, whole: Whole) -> None:
    """The next run gives what an undisturbed one gave, and leaves nothing else."""
    shutil.rmtree(copy.build / step)
    done = copy.run(step)
    assert done.code == 0, done.said
    assert lasting(step, copy) == lasting(step, whole.place) and copy.leftovers() == []
