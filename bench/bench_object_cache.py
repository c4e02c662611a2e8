"""Seconds that Verilator takes to build and run a small model: with empty caches, as another design, and again."""

import os
import tempfile
import time
from pathlib import Path

from harness import publish

from qfx_sim.runner import run

BENCH = Path(__file__).resolve().parents[1] / "tests" / "tools" / "benches" / "bench_counter.py"


def main() -> None:
    """Time the three cases, one after the other, in a cache of their own."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        times = {
            "empty caches": _seconds(5, Path(name)),
            "another design (the library's objects are kept)": _seconds(6, Path(name)),
            "the same design (the model is kept)": _seconds(6, Path(name)),
        }
    empty = times["empty caches"]
    rows = [{"case": case, "seconds": seconds, "times faster": empty / seconds} for case, seconds in times.items()]
    publish("object_cache", "One small Verilator model, built and run", rows)


def _seconds(limit: int, folder: Path) -> float:
    start = time.monotonic()
    run("counter", BENCH, parameters={"Limit": limit}, test_filter="wraps", seeds=(1,), build_dir=folder)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
