"""`qfx build designs/digits` from nothing, after installation: seconds of each step; the limit is 300 on two cores."""

import tempfile
import time
from pathlib import Path

from harness import publish

from qfx import steps


def main() -> None:
    """Build once into an empty folder, with the caches of the tools as they are."""
    with tempfile.TemporaryDirectory() as scratch:
        start = last = time.perf_counter()
        rows = []
        for step in steps.STEPS:
            steps.open_build("digits", Path(scratch)).run(step.name)
            now = time.perf_counter()
            rows.append({"step": step.name, "seconds": round(now - last, 1)})
            last = now
    publish("demo", "qfx build designs/digits", rows, total_seconds=round(last - start, 1))


if __name__ == "__main__":
    main()
