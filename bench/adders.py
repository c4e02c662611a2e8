"""Adders of constant matrix-vector products after da4ml's optimiser: a program for a Python that has da4ml.

    python bench/adders.py MATRICES.npz RESULT.json

da4ml is under the LGPL and no part of qfx: `bench_khot.py` runs this file in an environment of its own. Each matrix
(inputs, outputs) is integer; the result is checked on random vectors.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

_ADDITIONS = (0, 1)  # da4ml's operations a + b and a - b, shifts included


def main(source: Path, result: Path) -> None:
    """Optimise every matrix of a file, one after the other, and write adders and seconds by its name."""
    from da4ml.cmvm import solve  # type: ignore[import-not-found]

    random = np.random.default_rng(0)
    found = {}
    for name, matrix in np.load(source).items():
        start = time.monotonic()
        circuit = solve(matrix.astype(np.float32), search_all_decompose_dc=False)
        seconds = time.monotonic() - start
        x = random.integers(-128, 128, len(matrix)).astype(np.float64)
        if not np.array_equal(circuit(x), x @ matrix):
            raise SystemExit(f"the circuit of {name} must compute the product by its matrix, but does not")
        adders = sum(operation.opcode in _ADDITIONS for part in circuit.solutions for operation in part.ops)
        found[name] = {"adders": adders, "seconds": round(seconds, 1)}
        sys.stdout.write(f"{name}: {adders} adders, {seconds:.1f} s\n")
        sys.stdout.flush()
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
