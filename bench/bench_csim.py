"""The interpreter against hls4ml's csim on designs/digits: images per second in one run; at least 10 times faster."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits import planned
from harness import publish

from qfx import emit
from qfx.tools import csim

ROUNDS = 5


def main() -> None:
    """Run both in turn on the 360 test images."""
    graph, made, codes = planned()
    with tempfile.TemporaryDirectory() as scratch:
        project = emit.hls(graph, made, Path(scratch) / "hls")
        csim.build(project)
        start = _seconds(lambda: csim.run(project, codes[:1]))  # of the process, not of the images
        rounds = [
            (_seconds(lambda: graph.evaluate_codes(codes)), _seconds(lambda: csim.run(project, codes)) - start)
            for _ in range(ROUNDS)
        ]
    rows = [
        {"engine": name, "images/s": len(codes) / statistics.median(seconds)}
        for name, seconds in zip(("interpreter", "csim, g++ -O1"), zip(*rounds, strict=True), strict=True)
    ]
    ratio = statistics.median(slow / fast for fast, slow in rounds)
    publish("csim", f"designs/digits, {len(codes)} images, median of {ROUNDS} rounds", rows, ratio=round(ratio, 1))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
