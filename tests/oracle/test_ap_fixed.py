"""qfx.fixed against ap_fixed itself, the header of the hls4ml wheel under g++: every code, every mode."""

import subprocess
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qfx.fixed import Fixed, Overflow, Rounding, encode, requantize
from qfx.tools import _cache, gxx

SOURCE = Path(__file__).with_name("ap_fixed_oracle.cpp")
MODES = list(product(Rounding, Overflow))

# Right and left shifts, exact moves, negative fracs and fracs above the width, one-bit words. The header ends the
# process where a right shift exceeds the source's width; the kernel Requantize widens its input for that (tests/hls).
PAIRS = [
    *((Fixed(5, 2), Fixed(3, 2 - shift)) for shift in (-2, 0, 1, 3, 5)),
    *((Fixed(5, -3), Fixed(2, -3 - shift, False)) for shift in (-2, 0, 1, 3, 5)),
    *((Fixed(4, 9, False), Fixed(3, 9 - shift)) for shift in (-1, 1, 2, 4)),
    *((Fixed(4, 1, False), Fixed(3, 1 - shift, False)) for shift in (-1, 1, 2, 4)),
    (Fixed(4, 0), Fixed(1, -1)),
    (Fixed(4, 0), Fixed(1, -1, False)),
    (Fixed(5, 1), Fixed(8, -1)),
    (Fixed(1, 3), Fixed(2, 3)),
    (Fixed(1, 0, False), Fixed(2, 2, False)),
    (Fixed(9, 4), Fixed(3, -4)),
]
REALS = [Fixed(4, 1), Fixed(3, -2, False)]


def test_requantize_is_what_ap_fixed_assigns(oracle: Path) -> None:
    """All 28 modes of every pair, every source code."""
    assert mismatches(oracle, PAIRS, REALS) == []


def test_the_oracle_tells_every_rounding_and_overflow_mode_apart(oracle: Path) -> None:
    """Two modes that gave the same integers everywhere would leave one of them unchecked."""
    printed = run(oracle, PAIRS, REALS)
    by_mode: dict[tuple[Rounding, Overflow], list[np.ndarray]] = {mode: [] for mode in MODES}
    for (_, mode, _), codes in printed:
        by_mode[mode].append(codes)
    answers = {tuple(np.concatenate(parts).tolist()) for parts in by_mode.values()}
    assert len(answers) == len(MODES)


@pytest.mark.full
def test_requantize_is_what_ap_fixed_assigns_for_random_formats() -> None:
    """A longer sweep over seeded random formats of up to 8 bits."""
    rng = np.random.default_rng(7)

    def random_pair() -> tuple[Fixed, Fixed]:
        source = Fixed(int(rng.integers(1, 9)), int(rng.integers(-6, 12)), bool(rng.integers(2)))
        shift = int(rng.integers(-6, source.width + 1))
        return source, Fixed(int(rng.integers(1, 9)), source.scalar_frac - shift, bool(rng.integers(2)))

    pairs = [random_pair() for _ in range(120)]
    assert mismatches(build(pairs, []), pairs, []) == []


@pytest.fixture(scope="module")
def oracle() -> Path:
    """The oracle for PAIRS and REALS."""
    return build(PAIRS, REALS)


def build(pairs: list[tuple[Fixed, Fixed]], reals: list[Fixed]) -> Path:
    """Compile the oracle for these formats and return the program."""
    lines = [f"PAIR({_arguments(source)}, {_arguments(target)})" for source, target in pairs]
    text = "\n".join([*lines, *(f"REAL({_arguments(target)})" for target in reals)]) + "\n"
    spec = find_spec("hls4ml")
    assert spec is not None and spec.submodule_search_locations
    headers = Path(spec.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types"

    def compile_into(folder: Path) -> None:
        (folder / "cases.inc").write_text(text)
        gxx.program([SOURCE], folder / "oracle", includes=[folder, headers], flags=["-w"])

    key = _cache.digest([SOURCE.read_bytes(), text, gxx.version(), (headers / "ap_fixed_base.h").read_bytes()])
    return _cache.folder("oracle", key, compile_into) / "oracle"


def mismatches(oracle: Path, pairs: list[tuple[Fixed, Fixed]], reals: list[Fixed]) -> list[str]:
    """Return the cases in which qfx.fixed and ap_fixed differ."""
    found = []
    for (target, (rounding, overflow), source), codes in run(oracle, pairs, reals):
        if source is None:
            ours = encode(np.arange(-200, 201) * 2.0 ** (-3 - target.scalar_frac), target, rounding, overflow)
        else:
            ours = requantize(source_codes(source), source, target, rounding, overflow)
        if not np.array_equal(ours, codes):
            found.append(f"{source or 'real'} to {target} {rounding.value} {overflow.value}")
    return found


Case = tuple[Fixed, tuple[Rounding, Overflow], Fixed | None]


def run(oracle: Path, pairs: list[tuple[Fixed, Fixed]], reals: list[Fixed]) -> list[tuple[Case, np.ndarray]]:
    """Return what the oracle prints, cut into target, mode, source (None: reals) and the target codes."""
    printed = np.array(subprocess.run([oracle], capture_output=True, check=True, text=True).stdout.split(), np.int64)
    parts, start = [], 0
    cases: list[tuple[Fixed, Fixed | None, int]] = [(target, source, 1 << source.width) for source, target in pairs]
    for target, source, count in [*cases, *((target, None, 401) for target in reals)]:
        for mode in MODES:
            parts.append(((target, mode, source), printed[start : start + count]))
            start += count
    assert start == len(printed)
    return parts


def source_codes(fixed: Fixed) -> np.ndarray:
    """All codes of a format, in the order of their bits."""
    bits = np.arange(1 << fixed.width)
    return np.where(bits > fixed.max_code, bits - (1 << fixed.width), bits)


def _arguments(fixed: Fixed) -> str:
    return f"{fixed.width}, {fixed.scalar_frac}, {str(fixed.signed).lower()}"
