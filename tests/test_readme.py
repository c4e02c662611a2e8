"""The README's script runs as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_script_on_a_users_own_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert script.count("assert") == 3
    monkeypatch.chdir(tmp_path)
    exec(compile(script, str(README), "exec"), {"__name__": "readme"})
    assert (tmp_path / "build" / "rtl").is_dir()
