"""The README's script runs as it stands, says what it does, and leaves nothing outside of its folder."""

import re
import tempfile
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_script_on_a_users_own_network_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert script.count("assert") == 3
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir(), temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    exec(compile(script, str(README), "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("step 0: loss ") and len(said) == 23
    cycles = re.match(r"a frame every (\d+) cycles, [\d,]+ a second, [\d,]+ LUT", said[20])
    assert cycles and int(cycles[1]) <= 128
    assert [path.name for path in work.iterdir()] == ["build"]
    assert [path.name for path in (work / "build").iterdir()] == ["mine"]
    assert {"hls", "rtl"} <= {path.name for path in (work / "build" / "mine").iterdir()}
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torch")] == []
