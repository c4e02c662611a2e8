"""`qfx train --ranks`: what several processes leave, and that all end, whatever ends one of them, and carry on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from qfx.train.checkpoint import TENSORS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEP = 6  # of training in fixed point, at which waiting.py waits
LEFT = ("float.weights.safetensors", "weights.safetensors", "float.log.csv", "3bits.log.csv")
INTERRUPTED = "error: interrupted; finished results are whole, the same command carries on\n"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "qfx")
KILLED = " must train to the end, but was killed, as happens where memory runs out"
CARRIES_ON = "the same command carries on from the last checkpoint"


def make(folder: Path) -> Path:
    """The smallest design, its training one that waits."""
    micro = Path(shutil.copytree(ROOT / "tests" / "steps" / "micro", folder / "micro"))
    shutil.copy(HERE / "waiting.py", micro)
    text = (micro / "design.yaml").read_text().replace("fixed: {epochs: 1, ", "fixed: {epochs: 3, ")
    (micro / "design.yaml").write_text(text.replace("model.py:data", "model.py:data\naugment: waiting.py:augment"))
    return micro


@pytest.fixture
def design(tmp_path: Path) -> Path:
    return make(tmp_path)


@contextmanager
def training(
    design: Path, *options: str, fault: str = "", program: tuple[str, ...] = ("-m", "qfx"), threads: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """`qfx train` of a design, in a group of its own; in the end none of the group is left."""
    for file in design.glob("*.process"):
        file.unlink()
    process = subprocess.Popen(
        [sys.executable, *program, "train", str(design), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=design.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault, "OMP_NUM_THREADS": str(threads)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # not what a shell's jobs have
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finished(design: Path, *options: str, fault: str = "") -> tuple[int, str, str]:
    """Train to the end; return exit code and what was said."""
    (design / "go").touch()
    with training(design, *options, fault=fault) as process:
        said, complained = process.communicate(timeout=120)
        return process.returncode, said, complained.lstrip("\n")  # which a progress bar leaves


def waiting(design: Path, count: int = 2) -> list[int]:
    """Return the processes of the ranks as soon as all of them wait."""
    files = [design / f"{number}.process" for number in range(count)]
    until(lambda: all(file.exists() for file in files), 120)
    return [int(file.read_text().split()[0]) for file in files]


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def lives(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ended(process: subprocess.Popen[str], ranks: list[int], seconds: float = 20) -> tuple[int, str]:
    """Wait until the command and all ranks have ended; return exit code and complaint."""
    complained = process.communicate(timeout=seconds)[1]
    until(lambda: not any(map(lives, ranks)), seconds)
    return process.returncode, complained.lstrip("\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A design that two ranks have trained, undisturbed."""
    design = make(tmp_path_factory.mktemp("whole"))
    code, said, complained = finished(design, "--ranks", "2")
    assert (code, complained) == (0, "") and said.count("train ") == 1
    return design


def different(one: Path, other: Path) -> list[str]:
    """The files of two trainings that are not the same to the byte."""
    folders = (one / "build" / "train", other / "build" / "train")
    return [name for name in LEFT if len({(folder / name).read_bytes() for folder in folders}) > 1]


def checkpoint(design: Path) -> Path:
    (found,) = design.glob("build/.kept/train/3bits-*/checkpoints/step_*")
    return found


def carries_on(design: Path, whole: Path) -> list[str]:
    """Train on to the end; return what is then different from an undisturbed training."""
    assert finished(design, "--ranks", "2")[0] == 0
    return different(design, whole)


def test_two_ranks_leave_the_bits_that_torchrun_leaves_and_share_the_threads(whole: Path, design: Path) -> None:
    assert [(whole / f"{number}.process").read_text().split()[1] for number in (0, 1)] == ["1", "1"]
    (design / "go").touch()
    with training(design, program=TORCHRUN, threads=1) as process:
        assert "train " in process.communicate(timeout=120)[0]
    assert different(design, whole) == []
    figures = [
        json.loads((each / "build" / "train" / "result.json").read_text())["figures"] for each in (design, whole)
    ]
    assert figures[0]["widths"]["3"]["formats"] == figures[1]["widths"]["3"]["formats"]
    shutil.rmtree(design / "build")
    assert finished(design)[0] == 0
    assert "weights.safetensors" in different(design, whole)  # one rank has other random numbers


def test_ctrl_c_leaves_the_checkpoint_of_the_step_under_way_as_in_one_process(design: Path, whole: Path) -> None:
    interrupt(design, signal.SIGINT)
    assert carries_on(design, whole) == []


def interrupt(design: Path, number: signal.Signals) -> None:
    """Train on two ranks, and send the signal to what a terminal would send it to, in the midst of a step."""
    with training(design, "--ranks", "2") as process:
        ranks = waiting(design)
        assert all(map(lives, ranks)) and ranks[0] == process.pid
        os.killpg(process.pid, number)
        (design / "go").touch()
        assert ended(process, ranks) == (130, INTERRUPTED)
    assert checkpoint(design).name == f"step_{STEP:08}"


def test_a_signal_that_torchrun_sends_once_more_leaves_the_checkpoint_too(design: Path) -> None:
    with training(design, program=TORCHRUN, threads=1) as process:
        ranks = waiting(design)
        for receiver in (*ranks, process.pid):  # as a terminal does, whichever group they are in
            os.kill(receiver, signal.SIGINT)
        time.sleep(1)
        (design / "go").touch()
        complained = ended(process, ranks)[1]
    assert INTERRUPTED in complained
    assert checkpoint(design).name == f"step_{STEP:08}"


def test_sigterm_does_too_and_a_wrong_bit_in_that_checkpoint_is_seen_in_the_end(design: Path, whole: Path) -> None:
    interrupt(design, signal.SIGTERM)
    place = checkpoint(design) / TENSORS
    tensors = load_file(place)
    tensors["optimizer.0.exp_avg"][0] += 1e-3
    place.write_bytes(save(tensors))
    assert "weights.safetensors" in carries_on(design, whole)


def test_a_signal_to_another_rank_is_one_to_all(design: Path) -> None:
    with training(design, "--ranks", "2") as process:
        ranks = waiting(design)
        os.kill(ranks[1], signal.SIGTERM)
        (design / "go").touch()
        assert ended(process, ranks) == (130, INTERRUPTED)
    assert checkpoint(design).name == f"step_{STEP:08}"


def test_a_second_signal_ends_all_at_once_though_a_rank_hangs(design: Path) -> None:
    with training(design, "--ranks", "2") as process:
        ranks = waiting(design)
        os.kill(ranks[1], signal.SIGSTOP)
        (design / "go").touch()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert ended(process, ranks) == (130, INTERRUPTED)


def test_a_killed_rank_ends_all_with_its_number_and_the_same_command_carries_on(design: Path, whole: Path) -> None:
    with training(design, "--ranks", "2") as process:
        ranks = waiting(design)
        os.kill(ranks[1], signal.SIGKILL)
        assert ended(process, ranks) == (1, f"error: rank 1{KILLED}: {CARRIES_ON}\n")
    assert checkpoint(design).name == "step_00000004"
    assert carries_on(design, whole) == []


def test_a_first_rank_that_hears_nothing_in_torch_is_ended_too_with_the_number_of_the_one_that_was_killed(
    design: Path,
) -> None:
    with training(design, "--ranks", "3", fault="be_deaf 0") as process:
        ranks = waiting(design, 3)
        (design / "go").touch()
        time.sleep(1)
        os.kill(ranks[2], signal.SIGKILL)
        assert ended(process, ranks) == (1, f"error: rank 2{KILLED}: {CARRIES_ON}\n")


def test_no_rank_outlives_the_first(design: Path) -> None:
    with training(design, "--ranks", "2") as process:
        ranks = waiting(design)
        process.kill()
        assert ended(process, ranks)[0] == -signal.SIGKILL


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("fail 1", "error: rank 1: {design}/waiting.py:36: augment augment must return inputs like those that it is "),
        ("fail 0", "error: {design}/waiting.py:36: augment augment must return inputs like those that it is given, "),
        (
            "leave 1",
            "error: rank 1 must train to the end, but left with 3: mend it, and {on}. It said last:\n  out of ",
        ),
        ("spoil 1", "error: rank 1 must train to the end, but failed: mend it, and {on}. It said last:\n  "),
    ],
)
def test_a_rank_that_fails_says_why(design: Path, fault: str, said: str) -> None:
    code, _, complained = finished(design, "--ranks", "2", fault=fault)
    assert code == 1 and complained.startswith(said.format(design=design, on=CARRIES_ON))
    assert fault[:4] != "fail" or "the sensor is cold" in complained
    assert fault[:5] != "spoil" or complained.endswith("KeyError: 'no key'\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ranks", "0"], "error: --ranks must be at least 1, not 0\n"),
        (
            ["--ranks", "17"],
            "error: {design}/design.yaml:13: --ranks must be at most 16, so that each rank has an input of each part "
            "of a batch, not 17: enlarge training.batch, or ask for fewer\n",
        ),
    ],
)
def test_numbers_of_ranks_that_cannot_be_are_refused(design: Path, options: list[str], said: str) -> None:
    assert finished(design, *options) == (2, "", said.format(design=design))
