"""The engine: up-to-date checks, faults in the middle of a step, and what a missing result says."""

import ast
import errno
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from qfx import steps
from qfx.design import Design, DesignFile
from qfx.errors import DesignError, MismatchError, QfxError, ToolError
from qfx.steps import hashing
from qfx.steps.engine import Build, Step, Work
from qfx.steps.hashing import python_digest, sources_digest


class Bench:
    """A design with three cheap steps, one after the other, that count their runs and can be made to fail."""

    def __init__(self, folder: Path) -> None:
        content = {
            "name": "tiny",
            "model": "model.py:Net",
            "data": "model.py:data",
            "input": {"format": "u8.0", "shape": [2]},
            "board": "some",
        }
        self.design = Design(folder, DesignFile.model_validate(content), "designs/tiny")
        self.runs: list[str] = []
        self.faults: dict[str, BaseException] = {}
        self.text = {"first": "a", "second": "b", "third": "c"}
        self.settings = {"first": 1, "second": 2, "third": 3}

    def step(self, name: str, *needs: str, uses: tuple[str, ...] = ()) -> Step:
        def run(work: Work) -> dict[str, object]:
            self.runs.append(name)
            read = "".join((work.results[need].folder / "out.txt").read_text() for need in needs)
            (work.folder / "out.txt").write_text(read + self.text[name])
            if name in self.faults:
                raise self.faults[name]
            (work.folder / "more.txt").write_text("whole")
            return {"read": read}

        return Step(name, run, lambda figures: f"read {figures['read']!r}", needs, uses, lambda _: self.settings[name])

    def build(self) -> Build:
        steps = (self.step("first"), self.step("second", "first"), self.step("third", "second"))
        return Build(self.design, steps)

    def run_all(self) -> None:
        build = self.build()
        for name in build.steps:
            build.run(name)

    def content(self, name: str) -> dict[str, bytes]:
        place = self.design.folder / "build" / name
        return {p.name: p.read_bytes() for p in place.iterdir()} if place.is_dir() else {}

    def leftovers(self) -> list[Path]:
        return list((self.design.folder / "build").glob(".*.part")) + list(
            (self.design.folder / "build").glob(".*.old")
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_second_build_runs_nothing(bench: Bench) -> None:
    bench.run_all()
    bench.run_all()
    assert bench.runs == ["first", "second", "third"]


def test_a_skipped_step_returns_the_recorded_figures(bench: Bench) -> None:
    bench.run_all()
    result = bench.build().run("second")
    assert result.skipped and result.figures == {"read": "a"}


def test_force_runs_a_step_that_is_up_to_date(bench: Bench) -> None:
    bench.run_all()
    assert not bench.build().run("second", force=True).skipped
    assert bench.runs[-1] == "second"


def test_a_changed_setting_runs_its_step_and_all_that_read_another_result(bench: Bench) -> None:
    bench.run_all()
    bench.settings["first"], bench.text["first"] = 9, "A"
    bench.run_all()
    assert bench.runs == ["first", "second", "third"] * 2
    assert bench.content("third")["out.txt"] == b"Abc"


def test_a_changed_setting_with_the_same_result_stops_there(bench: Bench) -> None:
    bench.run_all()
    bench.settings["first"] = 9
    bench.run_all()
    assert bench.runs == ["first", "second", "third", "first"]


@pytest.mark.parametrize("damage", ["edited", "truncated", "deleted", "record"])
def test_a_damaged_result_is_made_again(bench: Bench, damage: str) -> None:
    bench.run_all()
    file = bench.design.folder / "build" / "second" / ("result.json" if damage == "record" else "out.txt")
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(b"!" if damage == "edited" else file.read_bytes()[: file.stat().st_size // 2])
    bench.run_all()
    assert bench.runs == ["first", "second", "third", "second"]
    assert bench.content("second")["out.txt"] == b"ab"


FAULTS = [
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, "No space left on device", "/full/disk"),
    ToolError("g++ failed with exit code 1: boom"),
    RuntimeError("a defect"),
    MemoryError(),
]


@pytest.mark.parametrize("name", ["first", "second", "third"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_in_a_step_leaves_earlier_results_whole_and_the_next_run_carries_on(
    bench: Bench, name: str, fault: BaseException
) -> None:
    bench.run_all()
    before = {step: bench.content(step) for step in bench.settings}
    bench.settings[name] = 9
    bench.faults[name] = fault
    with pytest.raises((type(fault), QfxError)):
        bench.run_all()
    assert {step: bench.content(step) for step in bench.settings} == before
    assert bench.leftovers() == []
    bench.faults.clear()
    bench.runs.clear()
    bench.run_all()
    assert bench.runs == [name]


def test_a_fault_in_the_very_first_run_leaves_no_result(bench: Bench) -> None:
    bench.faults["first"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.run_all()
    assert bench.build().find("first") is None and bench.leftovers() == []


def test_a_full_disk_is_a_sentence_with_the_command_to_run_again(bench: Bench) -> None:
    bench.faults["first"] = OSError(errno.ENOSPC, "No space left on device", "/full/disk")
    with pytest.raises(QfxError) as caught:
        bench.run_all()
    assert str(caught.value) == (
        "step first needs room on the disk, but /full/disk is full; earlier results are kept: "
        "mend it and run `qfx first designs/tiny` again"
    )


def test_a_missing_result_names_the_first_command_to_run(bench: Bench) -> None:
    with pytest.raises(DesignError) as caught:
        bench.build().run("third")
    place = bench.design.folder / "build" / "first"
    assert str(caught.value) == (
        f"qfx third needs the result of first, but {place} is missing: "
        "run `qfx first designs/tiny`, or `qfx build designs/tiny` for everything"
    )


@pytest.mark.parametrize("content", ["", "{}", '{"version": 0}', None])
def test_a_damaged_record_is_said_and_not_called_missing(bench: Bench, content: str | None) -> None:
    bench.run_all()
    place = bench.design.folder / "build" / "first"
    (place / "result.json").write_text(content) if content is not None else (place / "result.json").unlink()
    with pytest.raises(DesignError) as caught:
        bench.build().run("third")
    assert str(caught.value) == (
        f"qfx third needs the result of first, but {place} is damaged: its result.json cannot be read: "
        "run `qfx first designs/tiny`, or `qfx build designs/tiny` for everything"
    )


def test_unequal_integers_are_kept_as_a_result_and_stop_the_build(bench: Bench) -> None:
    bench.run_all()
    bench.settings["second"] = 9
    bench.faults["second"] = MismatchError("node conv1: 3 is not 4")
    with pytest.raises(MismatchError, match="node conv1: 3 is not 4"):
        bench.run_all()
    found = bench.build().find("second")
    assert found is not None and found.failure == "node conv1: 3 is not 4"
    with pytest.raises(DesignError, match=r"second holds unequal integers: run `qfx second designs/tiny`"):
        bench.build().run("third")


def test_unequal_integers_are_never_up_to_date(bench: Bench) -> None:
    bench.faults["first"] = MismatchError("node conv1: 3 is not 4")
    for _ in range(2):
        with pytest.raises(MismatchError):
            bench.build().run("first")
    assert bench.runs == ["first", "first"]


def test_a_killed_run_is_cleaned_up_by_the_next(bench: Bench) -> None:
    bench.run_all()
    folder = bench.design.folder / "build"
    half_made = folder / ".second.abc.part"
    half_made.mkdir()
    (half_made / "out.txt").write_text("half")
    aside = folder / ".third.abc.old"
    aside.mkdir()
    (folder / "third").rename(aside / "old")  # killed between the two renames
    bench.runs.clear()
    bench.run_all()
    assert bench.runs == [] and bench.leftovers() == []
    assert bench.content("third")["out.txt"] == b"abc"


def test_the_log_of_a_failing_step_survives_and_the_error_names_it(bench: Bench) -> None:
    def run(work: Work) -> dict[str, object]:
        log = work.folder / "compile" / "g++.log"
        log.parent.mkdir()
        log.write_text("boom")
        raise ToolError(f"g++ failed; log: {log}")

    step = replace(bench.step("first"), run=run)
    with pytest.raises(ToolError) as caught:
        Build(bench.design, (step,)).run("first")
    log = bench.design.folder / "build" / "logs" / "first" / "compile" / "g++.log"
    assert str(caught.value) == f"g++ failed; log: {log}" and log.read_text() == "boom"


def test_finished_parts_of_an_interrupted_step_are_not_made_again(bench: Bench) -> None:
    made: list[str] = []
    interrupt = [True]

    def part(name: str) -> object:
        def make(folder: Path, halfway: Path) -> None:
            if name == "late" and interrupt:
                (halfway / "x").write_text("so far")
                interrupt.clear()
                raise KeyboardInterrupt
            made.append(name)
            assert name == "early" or (halfway / "x").read_text() == "so far"
            (folder / "x").write_text(name)

        return make

    def run(work: Work) -> dict[str, object]:
        return {name: (work.keep(name, 1, part(name)) / "x").read_text() for name in ("early", "late")}

    step = replace(bench.step("first"), run=run)
    with pytest.raises(KeyboardInterrupt):
        Build(bench.design, (step,)).run("first")
    assert Build(bench.design, (step,)).run("first").figures == {"early": "early", "late": "late"}
    assert made == ["early", "late"]


def test_two_builds_in_one_folder_at_once_are_refused(bench: Bench) -> None:
    def run(work: Work) -> dict[str, object]:
        bench.build().run("second")
        return {}

    step = replace(bench.step("first"), run=run)
    with pytest.raises(DesignError, match="must be used by one qfx at a time, but another one is working there"):
        Build(bench.design, (step,)).run("first")


def test_a_used_result_that_changes_runs_the_step_again_and_may_be_missing(bench: Bench) -> None:
    steps = (bench.step("first"), bench.step("third", uses=("first",)))
    Build(bench.design, steps).run("third")
    Build(bench.design, steps).run("third")
    assert bench.runs == ["third"]
    Build(bench.design, steps).run("first")
    Build(bench.design, steps).run("third")
    assert bench.runs == ["third", "first", "third"]


def test_a_step_alone_on_stale_results_says_which(bench: Bench) -> None:
    bench.run_all()
    assert bench.build().stale("third") == {}
    bench.settings["first"] = 9
    assert bench.build().stale("third") == {"first": "out of date", "second": "out of date"}
    (bench.design.folder / "build" / "second" / "out.txt").write_text("edited")
    assert bench.build().stale("third")["second"] == "not as it was made: its files were changed since"


def test_a_result_that_was_never_made_is_not_stale(bench: Bench) -> None:
    assert bench.build().stale("third") == {}
    bench.build().run("first")
    assert bench.build().stale("third") == {}


def test_a_warning_is_recorded(bench: Bench) -> None:
    def run(work: Work) -> dict[str, object]:
        work.warn("accuracy must be at least 98 %, not 97 %")
        return {}

    Build(bench.design, (replace(bench.step("first"), run=run),)).run("first")
    record = json.loads(bench.content("first")["result.json"])
    assert record["warnings"] == ["accuracy must be at least 98 %, not 97 %"]


def test_the_hash_of_sources_sees_code_and_versions_and_no_comments(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    first = python_digest(file)
    file.write_text("# why\nx  =  1\n")
    assert python_digest(file) == first
    file.write_text("x = 2\n")
    assert python_digest(file) != first
    known = sources_digest(["qfx.fixed", "rtl", "qfx_sim", "dist:torch"])
    assert known == sources_digest(["dist:torch", "qfx_sim", "rtl", "qfx.fixed"])
    assert (
        len({known, sources_digest(["qfx.fixed"]), sources_digest(["qfx.graph"]), sources_digest(["dist:nowhere"])})
        == 4
    )


@pytest.mark.parametrize("step", steps.STEPS, ids=lambda step: step.name)
def test_the_sources_of_every_step_are_there(step: Step) -> None:
    for name in step.sources:
        assert hashing._source(name) not in ("missing", []), name


def most_at_once(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many threads are in the parser at a time, where each hashes a file and waits there for a second one."""
    parse, second, inside, counts = ast.parse, threading.Event(), set[int](), list[int]()

    def waiting(source: bytes) -> ast.Module:
        inside.add(threading.get_ident())
        counts.append(len(inside))
        if len(inside) > 1:
            second.set()
        second.wait(0.2)
        inside.remove(threading.get_ident())
        return parse(source)

    with monkeypatch.context() as patched, ThreadPoolExecutor(len(files)) as pool:
        patched.setattr(ast, "parse", waiting)
        found = list(pool.map(python_digest, files))
    assert found == [python_digest(file) for file in files] and len(counts) == len(files)
    return max(counts)


def test_sources_are_parsed_by_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.py" for number in range(3)]
    for number, file in enumerate(files):
        file.write_text(f"x = {number}\n")
    assert most_at_once(files, monkeypatch) == 1
    monkeypatch.setattr(hashing, "_PARSING", nullcontext())  # a planted fault: nothing is held
    assert most_at_once(files, monkeypatch) > 1
