"""Cycles per frame in steady state and latency of designs/digits: the plan's prediction against the simulation."""

import tempfile
from pathlib import Path

from digits import planned
from harness import publish

from qfx import emit
from qfx_sim.design import simulate


def main() -> None:
    """Simulate eight frames, the source always valid and the sink always ready."""
    graph, made, codes = planned()
    with tempfile.TemporaryDirectory() as scratch:
        seen = simulate(emit.rtl(graph, made, Path(scratch) / "rtl"), codes[:8], graph.evaluate_codes(codes[:8]))
    rows = [
        {"figure": "cycles per frame", "predicted": made.interval, "simulated": seen.interval},
        {"figure": "latency, cycles", "predicted": made.latency, "simulated": seen.to_json()["latency"]},
    ]
    publish("cycles", "designs/digits, prediction and simulation", rows, equal=seen.difference is None)


if __name__ == "__main__":
    main()
