"""Resource estimates of every part, in LUT, FF, RAMB18 and DSP, from one table of fitted coefficients.

A component (a multiplier leaf, a memory, an adder tree) takes ``sum of coefficient x feature``; its features are the
formulas below, its coefficients stand in coefficients.json, which bench/bench_parts.py fits to yosys' counts of single
parts. A part is a sum of components. Widths may be numbers, or slopes (`qfx.plan.slopes`): the formulas are the same.
"""

from __future__ import annotations

import json
from math import ceil, log2
from pathlib import Path
from typing import Any

from qfx.plan.data import Resources
from qfx.plan.dataflow import Part
from qfx.plan.order import joined_lanes
from qfx.plan.timing import SHIFT_DEPTH, Window

COEFFICIENTS: dict[str, dict[str, list[float]]] = json.loads(
    Path(__file__).with_name("coefficients.json").read_text(encoding="utf-8")
)["coefficients"]
TABLE_DEPTH = 1024  # entries up to which a table of one lookup is of LUTs: 8x8 36, 9x8 66, 10x8 104; 11x9 one RAMB18
RAMB18 = 18_432  # bits
BLOCK_BITS = {False: 12_288, True: 3_072}  # that a RAMB18 must hold to be taken instead of LUTs: constants; writable

Number = Any  # an int, or a Slope
Features = tuple[Number, ...]


# Features of components -------------------------------------------------------------------------------------------


def mul_lut(a: Number, b: Number) -> Features:
    """One product of ``a`` and ``b`` bits in logic."""
    return a * b, a, b


def mul_khot(a: Number, b: Number, digits: Number, shift: int) -> Features:
    """One product as the sum of shifted terms, one a digit; ``shift`` bits choose the shift of each."""
    return digits * (a + b) * shift, digits * (a + b), digits * (shift + 2), a


def sums(lanes: int, terms: int, a: Number, b: Number, out: Number) -> Features:
    """Adder trees over ``terms`` products and accumulators, and what steps them."""
    return lanes * (terms - 1) * (a + b + 1), lanes * out, 1


def affine(lanes: int, a: Number, b: Number, out: Number) -> Features:
    """Delays, sums and what steps them around the products of a qfx_affine."""
    return lanes * a, lanes * b, lanes * out, 1


def rom(width: Number, depth: int) -> Features:
    """Constants in LUTs. A short memory has few different columns, of which one stands for all that are equal."""
    different = min(width, 2 ** min(depth, 16))
    return different * ceil(depth / 64) if depth > 2 else 0, different


def ram(width: Number, depth: int) -> Features:
    """A memory in LUTs, written and read at one port each."""
    return (width * ceil(depth / 32), width)


def requant(lanes: int, width: Number, out: Number, shift: Number) -> Features:
    """Rounding and saturation of ``width - shift`` bits to ``out``."""
    return lanes * max(width - shift, 1), lanes * out, lanes * width, 1


def barrel(lanes: int, width: Number, span: int) -> Features:
    """A shift for each channel, of one among ``span + 1``."""
    return lanes * (width + span) * ceil(log2(span + 1)), lanes * (width + span)


def clamp(lanes: int, width: Number, out: Number) -> Features:
    """Bounds on codes."""
    return lanes * width, lanes * out


def add(lanes: int, out: Number) -> Features:
    """Sums of two codes."""
    return (lanes * out,)


def fifo_shift(width: Number, depth: int) -> Features:
    """A FIFO of registers that shift; yosys finds no shift register with an address in it."""
    return width * depth, width, depth, 1


def fifo_ram(depth: int) -> Features:
    """Pointers and counters of a FIFO in a memory; its prefetch buffer and memory come on top."""
    return (1,)


def fork(width: Number, outputs: int) -> Features:
    """Branches of two words each."""
    return outputs * width, outputs


def join(a: Number, b: Number) -> Features:
    """Two streams side by side."""
    return a + b, 1


def concat(lanes: int, a: Number, b: Number, out: Number) -> Features:
    """Words of two streams in turns."""
    return lanes * (a + b), lanes * out, 1


def gate(width: Number) -> Features:
    """The entry of a pipe, which counts credits."""
    return width, 1


def adapter(wide: Number) -> Features:
    """Words of ``wide`` bits made of slim ones, or cut into them."""
    return wide, 1


def window(taps: int, bits: Number) -> Features:
    """Ring and address generators; the ring's memory comes on top."""
    return 1, taps, taps * bits


def square(bits: Number) -> Features:
    """What a window takes on top where its dilation comes from a stream."""
    return 1, bits


def pool(lanes: int, taps: int, out: Number) -> Features:
    """Maximum or sum over a window."""
    return lanes * taps * out, lanes * out, 1


# Components -------------------------------------------------------------------------------------------------------


def count(component: str, features: Features, times: int = 1) -> Resources:
    """What ``times`` of a component take in LUTs and registers."""
    lut, ff = (
        sum(c * f for c, f in zip(COEFFICIENTS[component][kind], features, strict=True)) for kind in ("lut", "ff")
    )
    return Resources(lut=ceil(times * lut), ff=ceil(times * ff))


def product(a: Number, b: Number, arithmetic: str, digits: Number = 0, shift: int = 1, times: int = 1) -> Resources:
    """Return what ``times`` multiplier leaves for operands of ``a`` and ``b`` bits take."""
    if arithmetic == "dsp":
        return Resources(dsp=times * ceil(max(a, b) / 26) * ceil(min(a, b) / 17))  # with its registers
    if arithmetic == "khot":
        return count("mul_khot", mul_khot(a, b, digits, shift), times)
    return count("mul_lut", mul_lut(a, b), times)


def memory(width: Number, depth: int, ports: int = 1, writable: bool = False, constants: str = "rom") -> Resources:
    """One memory of ``depth`` words, ``ports`` copies: of LUTs, or of block RAM where it fills its blocks enough."""
    blocks = ceil(width / 36) * ceil(depth / 512)
    if width * depth > blocks * BLOCK_BITS[writable]:
        return Resources(bram18=ports * blocks, ff=ports * width)
    return count("ram", ram(width, depth), ports) if writable else count(constants, rom(width, depth), ports)


# Parts ------------------------------------------------------------------------------------------------------------


def estimate(part: Part) -> Resources:
    """Return what one instance takes."""
    match part.module:
        case "qfx_conv" | "qfx_depthwise" | "qfx_deform":
            return _mac(part)
        case "qfx_pool":
            lanes = _get(part, "Lanes")
            return _window(part, lanes) + count("pool", pool(lanes, _get(part, "TapLanes"), _get(part, "OutWidth")))
        case "qfx_upsample":
            return _window(part, _get(part, "Lanes")) + Resources(ff=_get(part, "Lanes") * _get(part, "InWidth"))
        case "qfx_select":
            return _select(part)
        case "qfx_affine":
            return _affine(part)
        case "qfx_lookup":
            return _lookup(part)
        case "qfx_reduce":
            return _reduce(part)
        case "qfx_multiply":
            lanes, arithmetic = _get(part, "Lanes"), str(part.parameters["Arithmetic"])
            products = product(_get(part, "AWidth"), _get(part, "BWidth"), arithmetic, times=lanes)
            return products + Resources(ff=3 * lanes)
        case "qfx_requant":
            return _requant(part)
        case "qfx_clamp":
            return count("clamp", clamp(_get(part, "Lanes"), _get(part, "InWidth"), _get(part, "OutWidth")))
        case "qfx_add":
            return count("add", add(_get(part, "Lanes"), _get(part, "OutWidth")))
        case _:
            return _plumbing(part)


def _get(part: Part, name: str, default: int = 1) -> Number:
    return part.parameters.get(name, default)


def _window(part: Part, lanes: int) -> Resources:
    timing = part.timing
    assert isinstance(timing, Window)
    taps, width = _get(part, "TapLanes"), lanes * _get(part, "InWidth")
    depth = timing.rows * timing.size[1] * timing.pixel_words
    return count("window", window(taps, width)) + memory(width, depth, taps, writable=True)


def _mac(part: Part) -> Resources:
    timing = part.timing
    assert isinstance(timing, Window)
    full = part.module == "qfx_conv"
    lanes = _get(part, "CoLanes" if full else "Lanes")
    terms = _get(part, "TapLanes") * (_get(part, "CiLanes") if full else 1)
    a, b, out = _get(part, "InWidth"), _get(part, "WeightWidth"), _get(part, "AccWidth")
    total = _window(part, _get(part, "CiLanes") if full else lanes)
    if timing.square:
        total += count("square", square(lanes * a))
    total += _products(part, lanes, terms, "Weight", "Bias", timing.words * timing.steps, timing.words)
    if full:
        total += Resources(ff=(lanes - 1) * terms * a * -1)  # all lanes see the same activations, in the same registers
    return total + count("sum", sums(lanes, terms, a, b, out))


def _products(part: Part, lanes: int, terms: int, kind: str, bias: str, depth: int, bias_depth: int) -> Resources:
    """Constants and multipliers of a qfx_mac."""
    arithmetic, digits, shift = str(part.parameters["Arithmetic"]), _get(part, "Digits", 0), _get(part, "ShiftWidth")
    a, b = _get(part, "InWidth"), _get(part, f"{kind}Width")
    width = lanes * terms * (digits * (shift + 2) if arithmetic == "khot" else b)
    total = product(a, b, arithmetic, digits, shift, lanes * terms) + memory(width, depth, constants="weights")
    return total + memory(lanes * _get(part, f"{bias}Width"), bias_depth) if f"{bias}File" in part.memories else total


def _select(part: Part) -> Resources:
    """A memory for each pair of lanes that is joined, the table of words, and a choice among lanes."""
    width, lanes, words = _get(part, "Width"), _get(part, "OutLanes"), _get(part, "OutWords")
    order, in_words = str(part.parameters["Order"]), _get(part, "InWords")
    pairs = joined_lanes(order, in_words, lanes, _get(part, "InLanes"))
    one = memory(width, 2 * in_words, writable=True)
    table = memory(int(order.partition("'")[0]) // words, words) if words > 1 else Resources()
    control = Resources(lut=25 + max(pairs - lanes, 0) * ceil(width / 2), ff=20 + lanes * width)
    return control + table + Resources(pairs * one.lut, pairs * one.ff, pairs * one.bram18)


def _reduce(part: Part) -> Resources:
    """Maximum or sum over the lanes of a word, then over the words of a pixel."""
    lanes, width, out = _get(part, "Lanes"), _get(part, "InWidth") + 1, _get(part, "OutWidth")
    return Resources(lut=30 + lanes * 2 * width + 2 * out, ff=30 + lanes * 2 * width + 4 * out)


def _affine(part: Part) -> Resources:
    lanes, groups = _get(part, "Lanes"), ceil(_get(part, "Channels") / _get(part, "Lanes"))
    a, b, out = _get(part, "InWidth"), _get(part, "ScaleWidth"), _get(part, "OutWidth")
    around = count("affine", affine(lanes, a, b, out))
    return around + _products(part, lanes, 1, "Scale", "Offset", groups, groups)


def _requant(part: Part) -> Resources:
    lanes, width, low = _get(part, "Lanes"), _get(part, "InWidth"), _get(part, "MinShift")
    total = count("requant", requant(lanes, width, _get(part, "OutWidth"), low))
    if not _get(part, "PerChannel", 0):
        return total
    span = int(_get(part, "MaxShift") - low)
    shifts = memory(lanes * max(1, span.bit_length()), ceil(_get(part, "Channels") / lanes))
    return total + count("barrel", barrel(lanes, width, span)) + shifts


def _lookup(part: Part) -> Resources:
    lanes, width, depth = _get(part, "Lanes"), _get(part, "OutWidth"), 2 ** _get(part, "InWidth")
    if depth <= TABLE_DEPTH:
        return Resources(lut=lanes * width * ceil(depth / 64), ff=2 * lanes * width + 2)
    return Resources(bram18=lanes * ceil(width * depth / RAMB18), ff=lanes * width + 2)


def _plumbing(part: Part) -> Resources:
    width = _get(part, "Width", 0)
    match part.module:
        case "qfx_fifo":
            depth = _get(part, "Depth")
            if depth <= SHIFT_DEPTH:
                return count("fifo_shift", fifo_shift(width, depth))
            control = count("fifo_ram", fifo_ram(depth)) + count("fifo_shift", fifo_shift(width, 4))
            return control + memory(width, depth, writable=True)
        case "qfx_fork":
            return count("fork", fork(width, _get(part, "Outputs")))
        case "qfx_join":
            return count("join", join(_get(part, "WidthA"), _get(part, "WidthB")))
        case "qfx_slice":
            bits = _get(part, "WordBits")
            return Resources(lut=bits + 35, ff=3 * bits + 40)
        case "qfx_concat":
            a, b, out = _get(part, "AWidth"), _get(part, "BWidth"), _get(part, "OutWidth")
            return count("concat", concat(_get(part, "Lanes"), a, b, out))
        case "qfx_gate":
            return count("gate", gate(width))
        case _:
            slim, wide = sorted((_get(part, "InLanes"), _get(part, "OutLanes")))
            widens = _get(part, "InLanes") == slim
            return count("widen" if widens else "narrow", adapter(wide * _get(part, "LaneWidth")))
