"""Training that was killed or interrupted ends, when it is resumed, in the bits of one that was not."""

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from qfx.errors import TrainError
from qfx.train import Data, Settings, fit
from qfx.train.checkpoint import JSON, TENSORS

JOB = Path(__file__).with_name("job.py")
ROOT = Path(__file__).parents[2]


def load_job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("training_job", JOB)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


job = load_job()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Path]:
    """State and folder of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return job.train(folder).state_dict(), folder


def newest(folder: Path) -> Path:
    (found,) = (folder / "checkpoints").iterdir()
    return found


def require_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [
        name
        for name in expected
        if found[name].dtype != expected[name].dtype
        or found[name].numpy().tobytes() != expected[name].numpy().tobytes()
    ]
    assert different == []


def require_same_training(folder: Path, whole: tuple[dict[str, torch.Tensor], Path]) -> None:
    """The last checkpoints, in every tensor and every number, and the logs are the same."""
    require_same_bits(load_file(newest(folder) / TENSORS), load_file(newest(whole[1]) / TENSORS))
    for name in (f"checkpoints/{newest(folder).name}/{JSON}", "log.csv", "log.jsonl"):
        assert (folder / name).read_bytes() == (whole[1] / name).read_bytes(), name


def strike(folder: Path, number: signal.Signals, after: str, passed: float = 0.1) -> int:
    """Train in a process, send it the signal some time after it told ``after``, and return its exit code."""
    process = subprocess.Popen(
        [sys.executable, str(JOB), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout
    with process:
        for line in process.stdout:
            if after in line:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(passed)
                process.send_signal(number)
                break
        process.stdout.read()
    return process.returncode


def test_a_killed_training_resumes_to_the_same_bits(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path]
) -> None:
    assert strike(tmp_path, signal.SIGKILL, "epoch 3/6, loss") == -signal.SIGKILL
    assert [place.name for place in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000012"]
    require_same_bits(job.train(tmp_path).state_dict(), whole[0])
    require_same_training(tmp_path, whole)


def test_an_interrupted_process_leaves_a_checkpoint_in_the_middle_of_an_epoch(
    tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path]
) -> None:
    assert strike(tmp_path, signal.SIGINT, "epoch 3/6, loss") in (-signal.SIGINT, 130)
    assert 18 < int(newest(tmp_path).name.removeprefix("step_")) < 24
    require_same_bits(job.train(tmp_path).state_dict(), whole[0])
    require_same_training(tmp_path, whole)


def interrupt(folder: Path, after: str) -> None:
    """Train in this process up to the first step after what it tells."""

    def tell(done: float, doing: str) -> None:
        if after in doing:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            job.train(folder, progress=tell)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("after", "step"), [("epoch 1/6, loss", 7), ("epoch 5/6, loss", 31)])
def test_an_interrupt_before_and_after_formats_are_frozen_resumes_to_the_same_bits(
    after: str, step: int, tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path]
) -> None:
    interrupt(tmp_path, after)
    assert newest(tmp_path).name == f"step_{step:08}"
    require_same_bits(job.train(tmp_path).state_dict(), whole[0])
    require_same_training(tmp_path, whole)


@pytest.mark.parametrize("name", ["optimizer.0.exp_avg_sq", "average.0.weight", "random.0.cpu", "order"])
def test_a_wrong_bit_in_a_checkpoint_is_seen_in_the_result(
    name: str, tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path]
) -> None:
    interrupt(tmp_path, "epoch 3/6, loss")
    place = newest(tmp_path) / TENSORS
    tensors = load_file(place)
    bits = tensors[name].clone().reshape(-1).view(torch.uint8)
    bits[24 + 450 * 8 if tensors[name].dtype == torch.uint8 else 2] ^= (
        8  # a word of the generator that is still to come
    )
    tensors[name] = bits.view(tensors[name].dtype).reshape(tensors[name].shape)
    place.write_bytes(save(tensors))
    job.train(tmp_path)
    with pytest.raises(AssertionError):
        require_same_training(tmp_path, whole)


def test_a_finished_training_is_taken_up_as_it_is(tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path]) -> None:
    folder = Path(shutil.copytree(whole[1], tmp_path / "again"))
    told: list[str] = []
    found = job.train(folder, progress=lambda done, doing: told.append(doing))
    require_same_bits(found.state_dict(), whole[0])
    assert told == []


def small(folder: Path, images: int = 40, **changes: object) -> torch.nn.Module:
    source = job.data(images)
    settings = replace(Settings(epochs=2, lr=0.01, batch=16), **changes)  # type: ignore[arg-type]
    return fit(
        job.network(), Data(source.train_x, source.train_y, source.test_x, source.test_y), settings, folder=folder
    )


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    small(tmp_path)
    place = tmp_path / "checkpoints" / "step_00000004"
    with pytest.raises(TrainError) as caught:
        small(tmp_path, epochs=3)
    assert str(caught.value) == (
        f"{place} must be a checkpoint of this training, but its epochs is 2, not 3: train in another folder, or "
        "remove it to start again"
    )
    with pytest.raises(TrainError, match=r"but its data is \[\[40, 1, 6, 6\], \d+\], not \[\[33, 1, 6, 6\], \d+\]"):
        small(tmp_path, images=33)
    facts = json.loads((place / JSON).read_text())
    (place / JSON).write_text(json.dumps({**facts, "ranks": 2}))
    with pytest.raises(TrainError, match="its ranks is 2, not 1: train on with --ranks 2, or remove it to start again"):
        small(tmp_path)
    (place / JSON).write_text(json.dumps(facts))
    with pytest.raises(
        TrainError, match=r"step_00000004 must be a checkpoint of this network, but also holds .*; has other shapes at "
    ):
        fit(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)), job.data(40), SAME, folder=tmp_path)


SAME = Settings(epochs=2, lr=0.01, batch=16)


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_a_damaged_checkpoint_is_a_sentence(name: str, tmp_path: Path) -> None:
    small(tmp_path)
    file = newest(tmp_path) / name
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(TrainError, match=r"step_00000004 must be a whole checkpoint, but: .*: remove it to start"):
        small(tmp_path)


@pytest.mark.parametrize("name", [JSON, TENSORS])
def test_a_disk_that_is_full_while_a_checkpoint_is_written_leaves_the_last_one_whole(
    name: str, tmp_path: Path, whole: tuple[dict[str, torch.Tensor], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, written = Path.open, Path.write_text
    late = "step_00000024"

    def full(path: Path) -> None:
        if path.name == name and late in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def open_(path: Path, *arguments: Any, **options: Any) -> Any:
        full(path)
        return opened(path, *arguments, **options)

    def write_text(path: Path, *arguments: Any, **options: Any) -> int:
        full(path)
        return written(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_)
        patch.setattr(Path, "write_text", write_text)
        with pytest.raises(OSError, match="No space left"):
            job.train(tmp_path)
    assert newest(tmp_path).name == "step_00000012"
    require_same_bits(job.train(tmp_path).state_dict(), whole[0])
    require_same_training(tmp_path, whole)


def test_logs_have_a_row_for_each_epoch_and_the_moves_of_each_quantizer(
    whole: tuple[dict[str, torch.Tensor], Path],
) -> None:
    rows = [json.loads(line) for line in (whole[1] / "log.jsonl").read_text().splitlines()]
    header, *lines = (whole[1] / "log.csv").read_text().splitlines()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6] and len(lines) == 6
    assert header.split(",")[:6] == ["epoch", "step", "loss", "accuracy", "lr", "moved"]
    assert [f"moves/{name}" for name in rows[0]["moves"]] == header.split(",")[6:]
    assert rows[-1]["moved"] == sum(rows[-1]["moves"].values()) > 0
    assert rows[-1]["lr"] == pytest.approx(0.01 * 0.3**2) and rows[-1]["loss"] < rows[0]["loss"]


def test_tensorboard_gets_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert events.Scalars("loss")[-1].value == pytest.approx(row["loss"]) and len(events.Scalars("accuracy")) == 2
    assert {f"moves/{name}" for name in row["moves"]} <= set(events.Tags()["scalars"])
