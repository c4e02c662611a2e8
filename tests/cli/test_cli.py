"""The command line: lines, exit codes, sentences; the steps behind it are cheap stand-ins."""

import errno
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qfx import cli, steps
from qfx.errors import MismatchError, ToolError
from qfx.steps.engine import Step, Work

ROOT = Path(__file__).resolve().parents[2]


class Stand:
    """A design folder and stand-ins for the steps, of which one can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "tests" / "steps" / "micro", folder)
        self.faults: dict[str, BaseException] = {}

    def step(self, name: str, *needs: str, uses: tuple[str, ...] = ()) -> Step:
        def run(work: Work) -> dict[str, object]:
            (work.folder / "out").write_text(name)
            if name == "train":
                work.warn("accuracy at 3 bits must be at least 90 %, not 80.00 %")
            if name in self.faults:
                raise self.faults[name]
            return {"of": name}

        return Step(name, run, lambda figures: f"figures of {figures['of']}", needs, uses)


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand(tmp_path / "micro")
    parts = (made.step("train"), made.step("lower", "train"), made.step("hls", "lower"))
    monkeypatch.setattr(steps, "STEPS", (*parts, made.step("report", uses=("train", "lower", "hls"))))
    monkeypatch.chdir(tmp_path)
    return made


def lines(text: str) -> list[str]:
    return [re.sub(r"\[\d+\.\d s\]", "[T]", line).rstrip() for line in text.splitlines() if line.strip()]


def test_a_step_ends_with_its_line_and_the_next_command(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "micro"]) == 0
    said = capsys.readouterr()
    assert lines(said.out) == ["train  figures of train [T]", "next: qfx lower micro"]
    assert lines(said.err)[-1] == "warning: accuracy at 3 bits must be at least 90 %, not 80.00 %"


def test_a_warning_is_said_at_once_and_again_when_the_step_is_up_to_date(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.faults["train"] = ToolError("it must work, but does not")
    warning = "warning: accuracy at 3 bits must be at least 90 %, not 80.00 %"
    assert cli.run(["train", "micro"]) == 1
    assert lines(capsys.readouterr().err) == [warning, "error: it must work, but does not"]
    stand.faults.clear()
    for _ in range(2):
        assert cli.run(["train", "micro"]) == 0
        assert lines(capsys.readouterr().err).count(warning) == 1


def test_a_build_has_a_line_for_each_step_and_the_report(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", "micro"]) == 0
    said = lines(capsys.readouterr().out)
    assert [line.split()[0] for line in said] == ["train", "lower", "hls", "report", "report:"]
    assert said[-1] == "report: micro/build/report/report.html"


def test_a_second_build_says_up_to_date(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["build", "micro"])
    capsys.readouterr()
    assert cli.run(["build", "micro"]) == 0
    assert lines(capsys.readouterr().out)[:3] == [
        f"{name:6} figures of {name} [up to date]" for name in ("train", "lower", "hls")
    ]


def test_results_go_where_out_says(stand: Stand, tmp_path: Path) -> None:
    assert cli.run(["train", "micro", "--out", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "train" / "result.json").is_file() and not (stand.folder / "build").exists()


def test_a_missing_result_names_the_command_to_run(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["hls", "micro"]) == 1
    assert lines(capsys.readouterr().err)[-1] == (
        "error: qfx hls needs the result of train, but micro/build/train is missing: "
        "run `qfx train micro`, or `qfx build micro` for everything"
    )


def test_nothing_is_out_of_date_before_it_was_made(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["hls", "micro"])
    cli.run(["train", "micro"])
    cli.run(["hls", "micro"])
    assert "out of date" not in capsys.readouterr().err


def test_proposed_commands_can_be_pasted(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.folder.rename(stand.folder.with_name("my design"))
    assert cli.run(["train", "my design", "--out", "out put"]) == 0
    assert lines(capsys.readouterr().out)[-1] == "next: qfx lower 'my design' --out 'out put'"
    assert cli.run(["hls", "my design", "--out", "out put"]) == 1
    assert lines(capsys.readouterr().err)[-1].endswith(
        "run `qfx lower 'my design' --out 'out put'`, or `qfx build 'my design' --out 'out put'` for everything"
    )


def test_a_build_folder_that_cannot_be_made_is_said(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "micro", "--out", "/proc/here"]) == 1
    assert lines(capsys.readouterr().err)[-1] == (
        "error: the build folder /proc/here must be writable, but: No such file or directory: mend it, or build "
        "elsewhere with --out"
    )


def test_a_failing_tool_is_one_sentence_and_no_traceback(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.faults["hls"] = ToolError("g++ must be installed, but no `g++` is on the PATH: install it")
    assert cli.run(["build", "micro"]) == 1
    said = capsys.readouterr()
    assert lines(said.err)[-1] == "error: g++ must be installed, but no `g++` is on the PATH: install it"
    assert "Traceback" not in said.err
    assert [line.split()[0] for line in lines(said.out)] == ["train", "lower"]


def test_unequal_integers_fail_the_build_after_the_report(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.faults["hls"] = MismatchError("csim: node 'conv' must give code 3, not 4")
    assert cli.run(["build", "micro"]) == 1
    said = capsys.readouterr()
    wanted = "error: csim: node 'conv' must give code 3, not 4; see micro/build/report/report.html"
    assert lines(said.err)[-1] == wanted
    assert lines(said.out)[-1].startswith("report figures of report")


def test_a_first_step_that_fails_leaves_no_folder(stand: Stand, tmp_path: Path) -> None:
    stand.faults["train"] = ToolError("refused")
    before = sorted(tmp_path.rglob("*"))
    assert cli.run(["train", "micro"]) == cli.run(["train", "micro", "--out", "a/b"]) == 1
    assert cli.run(["hls", "micro"]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "a").mkdir()
    assert cli.run(["train", "micro", "--out", "a"]) == 1
    assert list((tmp_path / "a").iterdir()) == []
    stand.faults = {"lower": ToolError("refused")}
    assert cli.run(["build", "micro", "--out", "a"]) == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".lock", "train"]


def test_a_full_disk_is_a_sentence(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    stand.faults["lower"] = OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    assert cli.run(["build", "micro"]) == 1
    assert lines(capsys.readouterr().err)[-1] == (
        "error: step lower needs room on the disk, but /disk/file is full; earlier results are kept: "
        "mend it and run `qfx lower micro` again"
    )


def test_an_interrupt_leaves_with_130_and_the_next_run_carries_on(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    stand.faults["lower"] = KeyboardInterrupt()
    assert cli.run(["build", "micro"]) == 130
    assert "interrupted; finished results are whole, the same command carries on" in capsys.readouterr().err
    stand.faults.clear()
    assert cli.run(["build", "micro"]) == 0
    assert lines(capsys.readouterr().out)[0] == "train  figures of train [up to date]"


def test_a_step_on_stale_results_warns(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["build", "micro"])
    (stand.folder / "build" / "train" / "out").write_text("edited")
    capsys.readouterr()
    assert cli.run(["hls", "micro"]) == 0
    assert (
        "the result of train is not as it was made: its files were changed since; it is taken up as it is: "
        "`qfx train micro` renews it"
    ) in lines(capsys.readouterr().err)[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere"], "error: a design must be a folder with a design.yaml, or one of the shipped designs"),
        (["check", "nowhere:Net", "--input", "1x8x8"], "error: nowhere must be importable, but ModuleNotFoundError"),
        (["check", "nowhere:Net", "--input", "1x8x8", "--board", "pynq"], "error: board must be one of ultra96v2"),
    ],
)
def test_a_mistake_is_one_sentence(
    stand: Stand, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.run(arguments) == 1
    assert lines(capsys.readouterr().err)[-1].startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synth", "micro", "--tool", "vivado"], "--tool must be yosys, not 'vivado'"),
        (["new", "Bad-Name"], "the name of a design must start with a small letter"),
        (
            ["check", "no:Net", "--input", "3x8x8x8"],
            "--input must be channels x height x width such as 3x32x32, channels x length such as 1x64, or features, "
            "not '3x8x8x8'",
        ),
        (["check", "no:Net", "--input", "3x"], "--input must be channels x height x width such as 3x32x32"),
        (
            ["check", "no:Net", "--input", "8", "--format", "q8"],
            "--format must be a format with one binary point, such",
        ),
        (
            ["check", "no:Net", "--input", "8", "--format", "u40.0"],
            "--format must have 1 to 32 bits and a frac of -21 to ",
        ),
        (
            ["check", "no:Net", "--input", "8", "--cycles", "0"],
            "--cycles must be a whole number from 1 to 1,000,000,000,000, not 0",
        ),
        (["check", "no:Net", "--input", "8", "--clock", "0"], "--clock must be a number from 1 to 1,000, not 0.0"),
        (["check", "no:Net", "--input", "8", "--clock", "nan"], "--clock must be a number from 1 to 1,000, not nan"),
        (
            ["check", "no:Net", "--input", "8", "--clock", "1e-30"],
            "--clock must be a number from 1 to 1,000, not 1e-30",
        ),
        (
            ["check", "no:Net", "--input", "8", "--clock", "1001"],
            "--clock must be a number from 1 to 1,000, not 1001.0",
        ),
    ],
)
def test_an_option_that_is_always_wrong_is_one_sentence_and_leaves_with_2(
    stand: Stand, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.run(arguments) == 2
    assert lines(capsys.readouterr().err)[-1].startswith(f"error: {said}")


def test_wrong_usage_leaves_with_2(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train"]) == 2
    assert cli.run(["trian", "micro"]) == 2


def test_new_makes_a_design_and_names_the_next_command(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["new", "mine"]) == 0
    assert lines(capsys.readouterr().out)[-1] == "next: qfx build mine"
    assert steps.open_build("mine").design.name == "mine"


def test_new_takes_a_path_and_its_next_command_works(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my designs").mkdir()
    assert cli.run(["new", "my designs/mine"]) == 0
    said = lines(capsys.readouterr().out)[-1]
    assert said == "next: qfx build 'my designs/mine'"
    assert cli.run(shlex.split(said.removeprefix("next: qfx "))) == 0


def test_version_and_help_need_no_torch() -> None:
    code = (
        "import sys; from qfx.cli import run; run(['--version']); run(['--help']); "
        "sys.exit('torch' in sys.modules or 'qfx.nn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^  ([a-z]+) ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    steps_in_order = ["train", "lower", "plan", "hls", "rtl", "sim", "synth", "report"]
    assert names == ["new", "check", "doctor", *steps_in_order, "build"], done.stdout
