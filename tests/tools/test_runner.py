"""The runner of cocotb benches: it passes what passes, names what fails, and refuses a bench without tests."""

from pathlib import Path

import pytest

from qfx_sim.runner import BenchFailure, run

BENCH = Path(__file__).parent / "benches" / "bench_counter.py"


def bench(build_dir: Path, test_filter: str, **settings):
    return run("counter", BENCH, build_dir=build_dir, test_filter=test_filter, seeds=(1,), **settings)


def test_a_passing_bench_returns_the_names_of_its_tests(tmp_path):
    result = bench(tmp_path, "wraps", parameters={"Limit": 7, "Name": "seven"})
    assert result.tests == ("wraps_at_the_limit",)
    assert "counter is called seven" in result.log.read_text()


def test_a_build_folder_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bench(Path("here"), "wraps", parameters={"Limit": 7, "Name": "seven"}).tests == ("wraps_at_the_limit",)


def test_a_model_is_built_where_no_python_is_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for folder in ("/bin", "/usr/bin", "/usr/local/bin"):
        for program in Path(folder).iterdir():
            link = tmp_path / "bin" / program.name
            if not program.name.startswith("python") and not link.is_symlink():
                link.symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # so that there is something to build
    assert bench(tmp_path / "here", "wraps", parameters={"Limit": 7, "Name": "seven"}).tests


def test_a_failing_test_is_named_with_its_message_and_seed(tmp_path):
    with pytest.raises(BenchFailure, match=r"(?s)planted_fault failed: the counter is not 99.*\(counter, seed 1"):
        bench(tmp_path, "")


def test_a_bench_that_ran_no_test_is_a_failure(tmp_path):
    with pytest.raises(BenchFailure, match=r"bench bench_counter.py must run at least one cocotb test, but ran none"):
        bench(tmp_path, "no_such_name")


def test_an_unknown_top_is_refused_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(BenchFailure, match=r"top module missing must have a file missing.sv beside bench_counter.py"):
        run("missing", BENCH, build_dir=tmp_path)
