"""Programs are run with one log and one time limit, and fail with their first real error."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from qfx.errors import ToolError
from qfx.tools._run import first_error, run


def python(code: str, tmp_path, **settings):
    return run([sys.executable, "-c", code], log=tmp_path / "log", tool="python", version="3", **settings)


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_the_log_holds_the_command_and_both_streams(tmp_path):
    result = python("import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)", tmp_path)
    lines = result.log.read_text().splitlines()
    assert lines[0].startswith(f"$ {sys.executable} -c") and lines[1:] == ["out", "err"]
    assert result.returncode == 0 and result.seconds > 0


def test_a_failure_names_tool_version_exit_error_and_log(tmp_path):
    code = "print('note'); print('file.sv:3: error: bad thing'); print('error: second'); raise SystemExit(3)"
    with pytest.raises(ToolError) as caught:
        python(code, tmp_path)
    expected = f"python 3 failed with exit code 3: file.sv:3: error: bad thing; log: {tmp_path / 'log'}"
    assert str(caught.value) == expected


def test_a_killed_program_is_named_with_its_signal(tmp_path):
    with pytest.raises(ToolError, match="python 3 failed with signal SIGSEGV: it printed nothing"):
        python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", tmp_path)


def test_accepted_exit_codes_are_no_failure(tmp_path):
    assert python("raise SystemExit(3)", tmp_path, accept=(0, 3)).returncode == 3


def test_a_missing_program_is_named(tmp_path):
    with pytest.raises(ToolError, match="nothing must be installed, but 'no-such-program' was not found"):
        run(["no-such-program"], log=tmp_path / "log", tool="nothing")


GRANDCHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)\n"
)


def test_a_time_limit_ends_the_program_and_its_children(tmp_path):
    with pytest.raises(ToolError, match=r"python 3 must end within 1 s, but was still running; log: "):
        python(GRANDCHILD, tmp_path, timeout=1.0)
    assert wait_until_gone(int((tmp_path / "log").read_text().splitlines()[-1]))


def test_an_interrupt_ends_the_program_and_its_children(tmp_path):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            python(GRANDCHILD, tmp_path)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert wait_until_gone(int((tmp_path / "log").read_text().splitlines()[-1]))


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (
            "%Warning-WIDTHTRUNC: a.sv:3:5: too wide\n%Error: Exiting due to 1 warning(s)",
            "%Warning-WIDTHTRUNC: a.sv:3:5",
        ),
        ("In file included from a.h:\nb.cpp:2:1: fatal error: x.h: No such file", "b.cpp:2:1: fatal error: x.h"),
        ("b.o: undefined reference to `f'\ncollect2: error: ld returned 1 exit status", "b.o: undefined reference"),
        ("make: *** [a.mk:3: a.o] Error 1\nmake[1]: Leaving", "it printed nothing"),
        ("Reading a.sv\nERROR: syntax error\nERROR: more", "ERROR: syntax error"),
        ("only words\nlast words", "last words"),
    ],
)
def test_the_first_real_error_is_shown(tmp_path, log, shown):
    path = tmp_path / "log"
    path.write_text(f"$ command with error: in it\n{log}\n")
    assert first_error(path).startswith(shown)
