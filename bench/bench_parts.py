"""The resource model's coefficients: single parts synthesised by yosys over a grid of parameters, and fitted.

Writes qfx/plan/coefficients.json, which `qfx.plan.cost` reads. The error in it is that of every part of designs/digits:
the coefficients are not fitted to them, but the formulas in `qfx.plan.cost` were chosen by looking at them.
About 10 minutes of yosys the first time; results are kept.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from digits import planned
from harness import publish
from scipy.optimize import nnls

from qfx import resources
from qfx.emit.rtl import parts as rtl_parts
from qfx.emit.rtl import rtl as write_rtl
from qfx.plan import cost
from qfx.plan.timing import SHIFT_DEPTH
from qfx.tools import yosys

FAMILY = "xcup"
TABLE = Path(cost.__file__).with_name("coefficients.json")
COUNTS = ("lut", "ff")
SAVES = ("weights",)  # components in which registers of others become shift registers
AT_A_TIME = 24  # instances in one run of yosys


@dataclass(frozen=True)
class Sample:
    """An instance that shows one component, the component's features in it, and others that it holds as well."""

    component: str
    features: Sequence[float]
    instance: yosys.Instance
    others: Sequence[tuple[str, Sequence[float]]] = field(default_factory=tuple)


class Grid:
    """The instances to synthesise; memories hold random bits."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.random = folder, np.random.default_rng(0)

    def samples(self) -> list[Sample]:
        """Every instance, the simple components before those that hold them."""
        made = [
            *self.products(),
            *self.memories(),
            *self.sums(),
            *self.weights(),
            *self.affines(),
            *self.element_wise(),
        ]
        return [*made, *self.plumbing(), *self.windows(), *self.pools()]

    def products(self) -> Iterable[Sample]:
        """Multiplier leaves: activations of two to sixteen bits by constants of two to eight."""
        for a, b in ((2, 2), (4, 2), (4, 3), (4, 4), (6, 4), (8, 4), (8, 6), (8, 8), (12, 8), (16, 8)):
            for signed in (0, 1):
                given = {"AWidth": a, "ASigned": signed, "BWidth": b, "BSigned": 1}
                yield Sample("mul_lut", cost.mul_lut(a, b), yosys.Instance("qfx_mul_lut", given))
        for a, b, digits in ((4, 4, 1), (4, 8, 1), (4, 8, 2), (8, 8, 1), (8, 8, 2), (8, 8, 3), (14, 8, 2), (8, 5, 2)):
            shift = max(b - 2, 1).bit_length()
            given = {"AWidth": a, "ASigned": 0, "BWidth": b, "Digits": digits, "ShiftWidth": shift}
            yield Sample("mul_khot", cost.mul_khot(a, b, digits, shift), yosys.Instance("qfx_mul_khot", given))

    def memories(self) -> Iterable[Sample]:
        """Memories of LUTs: constants, and what is written."""
        for width, depth in ((8, 8), (32, 8), (16, 16), (16, 64), (8, 128), (40, 32), (64, 100)):
            given = {"Width": width, "Depth": depth, "InitFile": self.file(width, depth)}
            yield Sample("rom", cost.rom(width, depth), self.instance("qfx_rom", given))
        for width, depth in ((4, 16), (16, 32), (48, 32), (8, 64), (32, 64), (16, 128)):
            given = {"Width": width, "Depth": depth}
            yield Sample("ram", cost.ram(width, depth), yosys.Instance("qfx_ram_sdp", given))

    def sums(self) -> Iterable[Sample]:
        """Adder trees and accumulators: a qfx_mac whose constants lie in block RAM and whose products are known."""
        for lanes, terms, a, b, out in (
            (1, 1, 8, 4, 16), (2, 1, 4, 4, 12), (1, 4, 4, 4, 14), (2, 4, 6, 4, 16), (1, 9, 4, 4, 12), (1, 9, 8, 3, 16),
        ):  # fmt: skip
            width = lanes * terms * b
            given = {"Lanes": lanes, "Terms": terms, "AWidth": a, "WeightWidth": b, "AccWidth": out, "WeightDepth": 512}
            given |= {"Arithmetic": "lut", "WeightStyle": "block", "WeightFile": self.file(width, 512)}
            others = [("mul_lut", cost.mul_lut(a, b))] * (lanes * terms)
            yield Sample("sum", cost.sums(lanes, terms, a, b, out), self.instance("qfx_mac", given), others)

    def weights(self) -> Iterable[Sample]:
        """Constants of a qfx_mac in LUTs: their registers, and the product's, are one chain."""
        for lanes, terms, a, b, depth in (
            (1, 4, 4, 4, 16),
            (2, 4, 4, 4, 64),
            (1, 9, 4, 4, 16),
            (4, 1, 8, 3, 32),
            (2, 3, 6, 6, 20),
        ):
            out, width = a + b + 4, lanes * terms * b
            given = {
                "Lanes": lanes,
                "Terms": terms,
                "AWidth": a,
                "WeightWidth": b,
                "AccWidth": out,
                "WeightDepth": depth,
            }
            given |= {"Arithmetic": "lut", "WeightFile": self.file(width, depth)}
            others = [("mul_lut", cost.mul_lut(a, b))] * (lanes * terms)
            others += [("sum", cost.sums(lanes, terms, a, b, out))]
            yield Sample("weights", cost.rom(width, depth), self.instance("qfx_mac", given), others)

    def affines(self) -> Iterable[Sample]:
        """Multiplications and additions by channel: pipes whose delays yosys makes shift registers."""
        for lanes, groups, a, b, offset, out in (
            (1, 16, 12, 8, 14, 19), (4, 4, 11, 8, 12, 17), (2, 8, 16, 8, 17, 22), (1, 32, 10, 6, 11, 14),
            (4, 8, 14, 8, 16, 21),
        ):  # fmt: skip
            roms = [("weights", cost.rom(lanes * b, groups)), ("rom", cost.rom(lanes * offset, groups))]
            given = {"InWidth": a, "InSigned": 1, "ScaleWidth": b, "OffsetWidth": offset, "OutWidth": out}
            given |= {"Lanes": lanes, "Channels": lanes * groups, "Arithmetic": "dsp"}
            given |= {"ScaleFile": self.file(lanes * b, groups), "OffsetFile": self.file(lanes * offset, groups)}
            yield Sample("affine", cost.affine(lanes, a, b, out), self.instance("qfx_affine", given), roms)

    def element_wise(self) -> Iterable[Sample]:
        """Requantization with one shift or one for each channel, clamps, additions."""
        for lanes, width, out, shift in (
            (1, 8, 4, 2), (2, 8, 8, -2), (1, 12, 4, 4), (1, 19, 8, 8), (2, 14, 2, 8), (1, 16, 6, 7), (4, 8, 4, 3),
        ):  # fmt: skip
            given = {"Lanes": lanes, "InWidth": width, "OutWidth": out, "MinShift": shift}
            yield Sample("requant", cost.requant(lanes, width, out, shift), yosys.Instance("qfx_requant", given))
        for lanes, width, out, low, high in ((1, 19, 8, 7, 9), (2, 17, 8, 6, 7), (1, 14, 4, 2, 8), (2, 12, 6, 0, 4)):
            given = {"Lanes": lanes, "InWidth": width, "OutWidth": out, "MinShift": low, "MaxShift": high}
            bits = lanes * max(1, (high - low).bit_length())
            given |= {"PerChannel": 1, "Channels": 16 * lanes, "ShiftFile": self.file(bits, 16)}
            others = [("requant", cost.requant(lanes, width, out, low)), ("rom", cost.rom(bits, 16))]
            features = cost.barrel(lanes, width, high - low)
            yield Sample("barrel", features, self.instance("qfx_requant", given), others)
        for lanes, width, out in ((1, 8, 8), (4, 8, 7), (2, 12, 6)):
            given = {"Lanes": lanes, "InWidth": width, "OutWidth": out, "High": (1 << (out - 1)) - 1}
            yield Sample("clamp", cost.clamp(lanes, width, out), yosys.Instance("qfx_clamp", given))
        for lanes, a, b, shift, out in ((1, 8, 8, 0, 9), (2, 8, 8, 2, 11), (4, 6, 6, 1, 8)):
            given = {"Lanes": lanes, "AWidth": a, "BWidth": b, "ShiftA": shift, "OutWidth": out}
            yield Sample("add", cost.add(lanes, out), yosys.Instance("qfx_add", given))

    def plumbing(self) -> Iterable[Sample]:
        """FIFOs, forks, joins and adapters."""
        for width, depth in ((4, 2), (8, 5), (8, 16), (32, 32), (64, 6), (16, 20), (4, 12)):
            given = {"Width": width, "Depth": depth}
            yield Sample("fifo_shift", cost.fifo_shift(width, depth), yosys.Instance("qfx_fifo", given))
        for width, depth in ((4, 40), (16, 64), (32, 100)):
            given = {"Width": width, "Depth": depth}
            assert depth > SHIFT_DEPTH
            others = [("ram", cost.ram(width, depth)), ("fifo_shift", cost.fifo_shift(width, 4))]
            yield Sample("fifo_ram", cost.fifo_ram(depth), yosys.Instance("qfx_fifo", given), others)
        for width, outputs in ((8, 2), (32, 2), (16, 3)):
            given = {"Width": width, "Outputs": outputs}
            yield Sample("fork", cost.fork(width, outputs), yosys.Instance("qfx_fork", given))
        for a, b in ((8, 8), (32, 16)):
            yield Sample("join", cost.join(a, b), yosys.Instance("qfx_join", {"WidthA": a, "WidthB": b}))
        for lanes, a, b, out in ((1, 8, 8, 8), (4, 8, 6, 8)):
            given = {"Lanes": lanes, "AWidth": a, "BWidth": b, "OutWidth": out, "WordsA": 4, "WordsB": 4}
            yield Sample("concat", cost.concat(lanes, a, b, out), yosys.Instance("qfx_concat", given))
        for width in (8, 64):
            yield Sample("gate", cost.gate(width), yosys.Instance("qfx_gate", {"Width": width, "Credits": 30}))
        for width, lanes in ((4, 4), (8, 8), (4, 16), (8, 2)):
            for given in ({"InLanes": 1, "OutLanes": lanes}, {"InLanes": lanes, "OutLanes": 1}):
                given |= {"LaneWidth": width, "Channels": 32}
                widens = given["InLanes"] < given["OutLanes"]
                name = "widen" if widens else "narrow"
                yield Sample(name, cost.adapter(width * lanes), yosys.Instance("qfx_width", given))

    def windows(self) -> Iterable[Sample]:
        """Rings with the address generators over them; their memory is known."""
        for bits, size, kernel, taps, words in (
            (4, 8, 3, 1, 2), (8, 16, 3, 3, 1), (8, 8, 3, 9, 1), (16, 4, 3, 1, 4), (32, 8, 1, 1, 1), (8, 32, 3, 3, 1),
            (4, 8, 3, 9, 1),
        ):  # fmt: skip
            rows, pad = kernel + 1, kernel // 2
            given = {"WordBits": bits, "Height": size, "Width": size, "KernelH": kernel, "KernelW": kernel}
            given |= {f"Pad{side}": pad for side in ("Top", "Bottom", "Left", "Right")}
            given |= {"TapLanes": taps, "Words": words, "Rows": rows, "Folds": 4, "RamStyle": "distributed"}
            others = [("ram", cost.ram(bits, rows * size * words))] * taps
            yield Sample("window", cost.window(taps, bits), yosys.Instance("qfx_agu_window", given), others)

        for bits, size, reach in ((4, 8, 3), (32, 8, 3), (8, 16, 7)):
            rows = 2 * reach + 2
            given = {
                "WordBits": bits,
                "Height": size,
                "Width": size,
                "DilationH": reach,
                "DilationW": reach,
                "Square": 1,
            }
            given |= {f"Pad{side}": reach for side in ("Top", "Bottom", "Left", "Right")}
            given |= {"TapLanes": 1, "Groups": 2, "Rows": rows, "RamStyle": "distributed"}
            others = [("window", cost.window(1, bits)), ("ram", cost.ram(bits, rows * size * 2))]
            yield Sample("square", cost.square(bits), yosys.Instance("qfx_agu_window", given), others)

    def pools(self) -> Iterable[Sample]:
        """Maximum and sum over a window."""
        for lanes, taps, kind in ((1, 1, "max"), (4, 2, "max"), (2, 4, "max"), (1, 1, "sum"), (4, 2, "sum")):
            out = 8 if kind == "max" else 10
            given = {
                "Reduction": kind,
                "OutWidth": out,
                "InWidth": 8,
                "KernelH": 2,
                "KernelW": 2,
                "Channels": 2 * lanes,
            }
            given |= {f"Pad{side}": 0 for side in ("Top", "Bottom", "Left", "Right")}
            given |= {
                "StrideH": 2,
                "StrideW": 2,
                "Lanes": lanes,
                "TapLanes": taps,
                "Rows": 4,
                "RamStyle": "distributed",
            }
            others = [("window", cost.window(taps, 8 * lanes)), *[("ram", cost.ram(8 * lanes, 64))] * taps]
            yield Sample("pool", cost.pool(lanes, taps, out), yosys.Instance("qfx_pool", given), others)

    def file(self, width: int, depth: int) -> str:
        """A file of random words, and its name."""
        digits = -(-width // 4)
        words = ["".join(f"{n:x}" for n in self.random.integers(0, 16, digits)) for _ in range(depth)]
        keep = width % 4 or 4
        words = [f"{int(word[0], 16) % (1 << keep):x}{word[1:]}" for word in words]
        path = self.folder / f"random_{width}x{depth}.mem"
        path.write_text("\n".join(words) + "\n", encoding="utf-8")
        return path.name

    def instance(self, module: str, given: Mapping[str, Any]) -> yosys.Instance:
        """An instance with its memory."""
        return yosys.Instance(module, given, tuple(self.folder / v for v in given.values() if str(v).endswith(".mem")))


def main() -> None:
    """Fit the coefficients, write them, and compare the model with whole parts."""
    with tempfile.TemporaryDirectory() as scratch:
        samples = Grid(Path(scratch)).samples()
        counts = synthesised([sample.instance for sample in samples], resources.path("rtl"))
    fitted: dict[str, dict[str, list[float]]] = {}
    for name in dict.fromkeys(sample.component for sample in samples):
        rows = [(s, c) for s, c in zip(samples, counts, strict=True) if s.component == name]
        fitted[name] = {count: fit(rows, count, fitted) for count in COUNTS}
    cost.COEFFICIENTS.clear()
    cost.COEFFICIENTS.update(fitted)
    rows, total = compared()
    content = {"tool": f"yosys {yosys.version()}", "family": FAMILY, "coefficients": fitted, "error": total}
    TABLE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    publish("parts", "designs/digits, its parts by module: planned and synthesised", rows, total=total)


def synthesised(instances: Sequence[yosys.Instance], library: Path) -> list[dict[str, int]]:
    """What each instance takes."""
    found = []
    for first in range(0, len(instances), AT_A_TIME):
        made = yosys.synth_together(instances[first : first + AT_A_TIME], library, family=FAMILY)
        found += [{"lut": m.lut + m.lutram, "ff": m.ff, "bram18": round(2 * m.bram36), "dsp": m.dsp} for m in made]
        print(f"{len(found)} of {len(instances)}", flush=True)
    return found


def fit(rows: Sequence[tuple[Sample, Mapping[str, int]]], count: str, known: Mapping[str, Any]) -> list[float]:
    """Coefficients of the least relative squared error, none negative but where a component saves what others count."""
    left = [
        measured[count] - sum(float(np.dot(known[name][count], features)) for name, features in sample.others)
        for sample, measured in rows
    ]
    weights = 1 / (np.array([measured[count] for _, measured in rows]) + 10.0)
    features = np.array([sample.features for sample, _ in rows], dtype=float)
    solve = np.linalg.lstsq if rows[0][0].component in SAVES else nnls
    return [round(float(c), 3) for c in solve(features * weights[:, None], np.array(left) * weights)[0]]


def compared() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Planned and synthesised counts of designs/digits, by module, and both totals."""
    graph, made, _ = planned()
    parts = rtl_parts(graph, made)
    with tempfile.TemporaryDirectory() as scratch:
        hdl = Path(scratch) / "hdl"
        write_rtl(graph, made, hdl)
        instances = [
            yosys.Instance(p.module, {**p.parameters, **p.memories}, tuple(hdl / n for n in p.memories.values()))
            for p in parts
        ]
        counts = synthesised(instances, hdl)
    rows: dict[str, dict[str, Any]] = {}
    for part, measured in zip(parts, counts, strict=True):
        guess = cost.estimate(part)
        row = rows.setdefault(part.module, {"module": part.module, "parts": 0})
        row["parts"] += 1
        for name in ("lut", "ff", "bram18", "dsp"):
            row[f"{name} planned"] = row.get(f"{name} planned", 0) + getattr(guess, name)
            row[f"{name} yosys"] = row.get(f"{name} yosys", 0) + measured[name]
    totals = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values())) if key != "module"}
    return list(rows.values()), totals


if __name__ == "__main__":
    main()
