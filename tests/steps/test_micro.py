"""The real steps, on the smallest network: each carries on after a fault, and unequal integers stop the build."""

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qfx import steps
from qfx.design import Design
from qfx.errors import DesignError, MismatchError, QfxError, TrainError
from qfx.plan.dataflow import Part
from qfx.steps import hardware
from qfx.steps.engine import Build, Result, Work
from qfx.tools._run import run as run_program

MICRO = Path(__file__).with_name("micro")
QUICK = ("train", "lower", "plan", "rtl")  # hls, sim and synth compile or synthesise; test_flow has them


def open_micro(folder: Path) -> Build:
    return Build(Design.load(folder), tuple(step for step in steps.STEPS if step.name in QUICK))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, unchanged_sources: None) -> Path:
    folder = tmp_path_factory.mktemp("steps") / "micro"
    shutil.copytree(MICRO, folder)
    build = open_micro(folder)
    for name in build.steps:
        build.run(name)
    return folder


@pytest.fixture
def micro(built: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(built, tmp_path / "micro"))


def results(folder: Path) -> dict[str, bytes]:
    files = sorted(
        p
        for p in (folder / "build").rglob("*")
        if p.is_file() and not p.relative_to(folder / "build").parts[0].startswith(".")
    )
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_a_second_run_does_nothing(micro: Path) -> None:
    build = open_micro(micro)
    assert all(build.run(name).skipped for name in build.steps)


FAULTS = [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_in_the_middle_of_a_step_loses_nothing(micro: Path, name: str, fault: BaseException) -> None:
    build, before = open_micro(micro), results(micro)
    whole = build.steps[name]

    def broken(work: Work) -> dict[str, object]:
        whole.run(work)
        next(work.folder.rglob("*")).touch()
        raise fault

    build.steps[name] = replace(whole, run=broken)
    with pytest.raises((KeyboardInterrupt, QfxError)):
        build.run(name, force=True)
    assert results(micro) == before
    assert not [p for p in (micro / "build").iterdir() if p.name.endswith((".part", ".old"))]
    again = open_micro(micro)
    assert all(again.run(each).skipped for each in again.steps)


def test_a_disk_that_is_full_while_weights_are_written_is_a_sentence(
    micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    shutil.rmtree(micro / "build")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(QfxError, match=r"step train needs room on the disk, but .*weights.safetensors is full"):
        open_micro(micro).run("train")
    monkeypatch.undo()
    assert not open_micro(micro).run("train").skipped


def test_training_that_was_interrupted_keeps_its_finished_runs(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.train import runs

    shutil.rmtree(micro / "build")
    calls: list[str] = []
    whole = runs.train_float

    def counted(*arguments: object) -> None:
        calls.append("float")
        whole(*arguments)  # type: ignore[arg-type]

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train_float", counted)
    with monkeypatch.context() as during:
        during.setattr(runs, "train_fixed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_micro(micro).run("train")
    open_micro(micro).run("train")
    assert calls == ["float"]


def test_training_twice_gives_the_same_network(micro: Path) -> None:
    first = (micro / "build" / "train" / "weights.safetensors").read_bytes()
    shutil.rmtree(micro / "build")
    open_micro(micro).run("train")
    assert (micro / "build" / "train" / "weights.safetensors").read_bytes() == first


def test_an_accuracy_below_the_target_is_a_warning_only(micro: Path) -> None:
    change(micro, "{minimum: 20}", "{minimum: 100, below_float: 0}")
    result: Result = open_micro(micro).run("train")
    reached = result.figures["widths"]["3"]["accuracy"]
    assert result.warnings[0] == f"accuracy at 3 bits must be at least 100 %, not {reached:.2f} %"


def test_a_comment_in_the_model_changes_nothing(micro: Path) -> None:
    model = micro / "model.py"
    model.write_text("# a comment\n" + model.read_text())
    build = open_micro(micro)
    assert all(build.run(name).skipped for name in build.steps)


def test_another_target_plans_again_and_trains_no_more(micro: Path) -> None:
    change(micro, "cycles: 200", "cycles: 100")
    build = open_micro(micro)
    assert [name for name in build.steps if not build.run(name).skipped][0] == "plan"


def test_another_width_trains_again(micro: Path) -> None:
    change(micro, "widths: [3]", "widths: [2]")
    change(micro, "{weight: 3, activation: 3}", "{weight: 2, activation: 2}")
    build = open_micro(micro)
    assert not build.run("train").skipped
    assert (micro / "build" / "train" / "result.json").read_text().count('"quantized"') == 1


def test_an_unknown_recipe_key_is_refused_with_its_path(micro: Path) -> None:
    change(micro, "default: {weight: 3", "default: {wieght: 3")
    with pytest.raises(TrainError, match=r"design.yaml:8: recipe key 'default.wieght' must be one of input, weight"):
        open_micro(micro).run("train")


def test_a_graph_that_lost_half_its_file_is_made_again(micro: Path) -> None:
    file = micro / "build" / "lower" / "graph" / "graph.json"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    build = open_micro(micro)
    with pytest.raises(
        QfxError, match=r"graph.json must be whole JSON, but .*: the file is truncated or damaged, lower again"
    ):
        build.run("plan", force=True)
    assert not build.run("lower").skipped
    assert build.run("plan").skipped


def test_an_interpreter_that_differs_from_torch_fails_the_step(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.steps import training

    loaded = training.load_vectors

    def swapped(folder: Path) -> dict[str, np.ndarray]:
        return {name: codes[..., ::-1] for name, codes in loaded(folder).items()}

    monkeypatch.setattr(training, "load_vectors", swapped)
    with pytest.raises(MismatchError, match=r"interpreter: node '.*' \(\w+\) must give code"):
        open_micro(micro).run("lower", force=True)
    found = open_micro(micro).find("lower")
    assert found is not None and found.failure and found.figures["mismatch"]["frame"] == 0


def test_a_csim_with_a_wrong_bit_fails_and_names_the_first_node(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(project: Path, codes: np.ndarray, logs: Path) -> dict[str, np.ndarray]:
        found = hardware.load_vectors(micro / "build" / "lower" / "vectors")
        name = next(name for name in found if name.startswith("conv"))
        found[name] = found[name].copy()
        found[name].flat[0] ^= 1
        return found

    monkeypatch.setattr(hardware.csim, "build", lambda project, logs: project)
    monkeypatch.setattr(hardware.csim, "run", wrong)
    build = Build(Design.load(micro), steps.STEPS)
    with pytest.raises(MismatchError, match=r"csim: node 'conv' \(Conv2d\) must give code"):
        build.run("hls")
    found = build.find("hls")
    assert found is not None and found.figures["mismatch"]["node"] == "conv" and found.figures["mismatch"]["wrong"] == 1


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "design.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_runs_side_by_side_give_what_one_after_the_other_gives(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = (micro / "build" / "train" / "weights.safetensors").read_bytes()
    shutil.rmtree(micro / "build")
    change(micro, "widths: [3]", "widths: [3, 2]")
    told: list[float] = []
    result = open_micro(micro).run("train", lambda done, doing: told.append(done))
    assert (micro / "build" / "train" / "weights.safetensors").read_bytes() == alone
    assert list(result.figures["widths"]) == ["3", "2"] and told[-1] == 1.0 and told == sorted(told)


def test_a_float_checkpoint_stands_for_float_training(micro: Path) -> None:
    train = micro / "build" / "train"
    trained = {name: (train / name).read_bytes() for name in ("weights.safetensors", "float.weights.safetensors")}
    (micro / "given.safetensors").write_bytes(trained["float.weights.safetensors"])
    shutil.rmtree(micro / "build")
    change(micro, "float: {epochs: 2, lr: 0.02}", "float: {checkpoint: given.safetensors}")
    open_micro(micro).run("train")
    assert {name: (train / name).read_bytes() for name in trained} == trained
    assert sorted(path.name for path in train.glob("*.csv")) == ["3bits.log.csv"]


def test_an_error_in_a_run_of_its_own_process_is_the_steps_error(micro: Path) -> None:
    shutil.rmtree(micro / "build")
    change(micro, "widths: [3]", "widths: [3, 2]")
    change(micro, "weight: 3", "weight: {width: 3, frac: 99}")
    with pytest.raises(TrainError, match="frac of a quantizer must lie in"):
        open_micro(micro).run("train")
    assert open_micro(micro).find("train") is None


def test_runs_side_by_side_train_a_design_as_python_changed_it_and_not_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def weights(name: str, widths: tuple[int, ...]) -> bytes:
        design = Design.load(Path(shutil.copytree(MICRO, tmp_path / name)))
        training = design.content.training
        fixed = training.fixed.model_copy(update={"lr": 0.05, "epochs": 2})
        changed = training.model_copy(update={"fixed": fixed, "widths": widths, "seed": 4})
        recipe = {"default": {"weight": {"width": widths[0], "rounding": "TRN"}}}
        design.content = design.content.model_copy(update={"training": changed, "recipe": recipe})
        return (Build(design, steps.STEPS).run("train").folder / "weights.safetensors").read_bytes()

    alone = weights("alone", (3,))  # in this process
    assert weights("together", (3, 2)) == alone
    whole = Design.dump
    monkeypatch.setattr(Design, "dump", lambda self: whole(Design.load(self.folder).with_seed(4)))  # the planted fault
    assert weights("fault", (3, 2)) != alone


def test_a_dumped_design_is_the_same_and_keeps_the_rules_of_the_file(tmp_path: Path) -> None:
    for name in ("digits", "resnet18", "resnet20", "fracbnn"):
        design = Design.load(name)
        assert Design.of(design.folder, design.dump()).content == design.content
    training = design.content.training
    planted = training.model_copy(update={"fixed": training.fixed.model_copy(update={"lr": 2.0})})
    design.content = design.content.model_copy(update={"training": planted})
    with pytest.raises(DesignError, match="^the content of fracbnn: training.fixed.lr must be less than 1, not 2.0$"):
        Design.of(design.folder, design.dump())


def test_an_interrupt_ends_the_processes_of_all_runs(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.train import parallel

    shutil.rmtree(micro / "build")
    change(micro, "widths: [3]", "widths: [3, 2]")
    change(micro, "fixed: {epochs: 1,", "fixed: {epochs: 3000,")
    started: list[parallel.subprocess.Popen[str]] = []
    whole = parallel.subprocess.Popen

    def noted(*arguments: object, **options: object) -> object:
        started.append(whole(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(parallel.subprocess, "Popen", noted)

    begun = []

    def interrupted(done: float, doing: str) -> None:
        if "epoch 3/" in doing and "float" not in doing and not begun:
            begun.append(doing)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs without
    try:
        with pytest.raises(KeyboardInterrupt):
            open_micro(micro).run("train", interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started and all(process.poll() is not None for process in started)
    assert not list((micro / "build").glob(".train.*"))


def test_every_machine_synthesises_parts_beside_the_same_others(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other parts one may take a few LUTs more."""
    runs: list[list[str]] = []
    counts = dict.fromkeys(("lut", "lutram", "ff", "bram18", "dsp", "depth"), 0)

    def noted(parts: list[Part], *given: object) -> list[dict[str, int]]:
        runs.append([part.name for part in parts])
        return [counts] * len(parts)

    monkeypatch.setattr(hardware, "_synthesise", noted)
    for cores in (1, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        Build(Design.load(micro), steps.STEPS).run("synth", force=True)
    half = len(runs) // 2
    assert half > 1 and sorted(runs[:half]) == sorted(runs[half:])


def test_an_interrupt_of_synth_ends_yosys_and_starts_it_no_more(micro: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []

    def endless(parts: object, hdl: Path, board: object, log: Path) -> list[dict[str, object]]:
        begun.append(log)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        run_program(["sleep", "60"], log=log, tool="yosys")
        return []

    monkeypatch.setattr(hardware, "_synthesise", endless)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # so that some runs wait for the first
    before, start = signal.signal(signal.SIGINT, signal.default_int_handler), time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            Build(Design.load(micro), steps.STEPS).run("synth")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(begun) == 1 and time.monotonic() - start < 20
    assert not list((micro / "build").glob(".synth.*"))
