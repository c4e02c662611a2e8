"""Resource estimates of every part: the one table of coefficients, in LUT, FF, RAMB18 and DSP."""

from __future__ import annotations

from math import ceil

from qfx.plan.data import Resources
from qfx.plan.dataflow import Part
from qfx.plan.parts import joined_lanes
from qfx.plan.timing import SHIFT_DEPTH, Window

# Measured with yosys synth_xilinx on single parts (see docs of `qfx synth`); what is left is rounded arithmetic.
LUT_PER_PRODUCT_BIT = 1.6  # one product a x b in logic: 8x8 112, 8x4 50, 4x4 24
LUT_PER_DIGIT_BIT = {False: 2.25, True: 2.85}  # K-hot product, per digit and bit of a x constant; signed digits or not
DISTRIBUTED_DEPTH = 128  # words up to which a memory is built of LUTs
TABLE_DEPTH = 1024  # entries up to which a table of one lookup is: 8x8 36, 9x8 66, 10x8 104; then 11x9 one RAMB18
RAMB18 = 18432  # bits
WINDOW_LUT, WINDOW_FF = 150, 180  # ring, counters and credits of a window
TAP_LUT, TAP_FF = 70, 75  # one tap address


def product(a: int, b: int, arithmetic: str, digits: int = 0) -> Resources:
    """One multiplier leaf for operands of ``a`` and ``b`` bits."""
    ff = a + b + 2 * (a + b)
    if arithmetic == "dsp":
        return Resources(dsp=ceil(max(a, b) / 26) * ceil(min(a, b) / 17), ff=0)
    if arithmetic == "khot":
        return Resources(lut=ceil(digits * LUT_PER_DIGIT_BIT[True] * (a + b)), ff=ff + digits * (a + b))
    return Resources(lut=ceil(LUT_PER_PRODUCT_BIT * a * b), ff=ff)


def memory(width: int, depth: int, ports: int = 1, writable: bool = False) -> Resources:
    """One memory of ``depth`` words, ``ports`` copies."""
    if depth <= DISTRIBUTED_DEPTH:
        per_word = ceil(depth / 64) * (1.3 if writable else 1)
        return Resources(lut=ceil(ports * width * per_word), ff=2 * ports * width)
    return Resources(bram18=ports * ceil(width / 36) * ceil(depth / 512), ff=ports * width)


def estimate(part: Part) -> Resources:
    """Return what one instance takes."""
    match part.module:
        case "qfx_conv" | "qfx_depthwise" | "qfx_deform":
            return _mac(part)
        case "qfx_pool":
            return _pool(part)
        case "qfx_upsample":
            return _window(part, _get(part, "Lanes")) + Resources(ff=_get(part, "Lanes") * _get(part, "InWidth"))
        case "qfx_select":
            return _select(part)
        case "qfx_affine":
            return _affine(part)
        case "qfx_lookup":
            return _lookup(part)
        case "qfx_reduce":
            lanes, width, out = _get(part, "Lanes"), _get(part, "InWidth") + 1, _get(part, "OutWidth")
            return Resources(lut=30 + lanes * 2 * width + 2 * out, ff=30 + lanes * 2 * width + 4 * out)
        case "qfx_multiply":
            one, lanes = (
                product(_get(part, "AWidth"), _get(part, "BWidth"), str(part.parameters["Arithmetic"])),
                _get(part, "Lanes"),
            )
            return Resources(one.lut * lanes, one.ff * lanes + 3, dsp=one.dsp * lanes)
        case "qfx_requant" | "qfx_clamp" | "qfx_add":
            return _element_wise(part)
        case _:
            return _plumbing(part)


def _get(part: Part, name: str, default: int = 1) -> int:
    return int(part.parameters.get(name, default))


def _window(part: Part, lanes: int) -> Resources:
    timing = part.timing
    assert isinstance(timing, Window)
    taps, width = _get(part, "TapLanes"), lanes * _get(part, "InWidth")
    depth = timing.rows * timing.size[1] * timing.pixel_words
    control = Resources(lut=WINDOW_LUT + taps * TAP_LUT, ff=WINDOW_FF + taps * TAP_FF)
    return control + memory(width, depth, taps, writable=True)


def _mac(part: Part) -> Resources:
    timing = part.timing
    assert isinstance(timing, Window)
    full = part.module == "qfx_conv"
    lanes = _get(part, "CoLanes" if full else "Lanes")
    terms = _get(part, "TapLanes") * (_get(part, "CiLanes") if full else 1)
    total = _window(part, _get(part, "CiLanes") if full else lanes)
    return total + _products(part, lanes, terms, "Weight", timing.words * timing.steps, timing.words, "Bias")


def _products(part: Part, lanes: int, terms: int, kind: str, depth: int, bias_depth: int, bias: str) -> Resources:
    """Constants, multipliers, adder tree and accumulator of a qfx_mac."""
    arithmetic, digits = str(part.parameters["Arithmetic"]), _get(part, "Digits", 0)
    a, b = _get(part, "InWidth"), _get(part, f"{kind}Width")
    one = product(a, b, arithmetic, digits)
    count = lanes * terms
    total = Resources(one.lut * count, one.ff * count, one.bram18, one.dsp * count)
    width = lanes * terms * (digits * (_get(part, "ShiftWidth") + 2) if arithmetic == "khot" else b)
    total += memory(width, depth)
    if f"{bias}File" in part.memories:
        total += memory(lanes * _get(part, f"{bias}Width"), bias_depth)
    out = _get(part, "AccWidth", _get(part, "OutWidth"))
    return total + Resources(lut=lanes * ((terms - 1) * (a + b + 1) + out), ff=lanes * (terms - 1 + 1) * out)


def _pool(part: Part) -> Resources:
    lanes, taps, out = _get(part, "Lanes"), _get(part, "TapLanes"), _get(part, "OutWidth")
    return _window(part, lanes) + Resources(lut=lanes * taps * 2 * out, ff=lanes * (taps + 1) * out)


def _select(part: Part) -> Resources:
    """A memory for each pair of lanes that is joined, the table of words, and a choice among lanes."""
    width, lanes, words = _get(part, "Width"), _get(part, "OutLanes"), _get(part, "OutWords")
    order, in_words = str(part.parameters["Order"]), _get(part, "InWords")
    pairs = joined_lanes(order, in_words, lanes, _get(part, "InLanes"))
    one = memory(width, 2 * in_words, writable=True)
    table = memory(int(order.partition("'")[0]) // words, words) if words > 1 else Resources()
    control = Resources(lut=25 + max(pairs - lanes, 0) * ceil(width / 2), ff=20 + lanes * width)
    return control + table + Resources(pairs * one.lut, pairs * one.ff, pairs * one.bram18)


def _affine(part: Part) -> Resources:
    lanes, groups = _get(part, "Lanes"), ceil(_get(part, "Channels") / _get(part, "Lanes"))
    pipe = Resources(ff=2 * lanes * _get(part, "InWidth"))
    return pipe + _products(part, lanes, 1, "Scale", groups, groups, "Offset")


def _element_wise(part: Part) -> Resources:
    lanes, out = _get(part, "Lanes"), _get(part, "OutWidth")
    if part.module == "qfx_add":
        return Resources(lut=lanes * out, ff=lanes * out)
    width = _get(part, "InWidth")
    if part.module == "qfx_clamp":
        return Resources(lut=lanes * (width + out), ff=lanes * (width + out + 2))
    barrel = lanes * width * 4 if _get(part, "PerChannel", 0) else 0
    return Resources(lut=lanes * (2 * width + 2 * out) + barrel, ff=lanes * (3 * width + out) + barrel)


def _lookup(part: Part) -> Resources:
    lanes, width, depth = _get(part, "Lanes"), _get(part, "OutWidth"), 1 << _get(part, "InWidth")
    if depth <= TABLE_DEPTH:
        return Resources(lut=lanes * width * ceil(depth / 64), ff=2 * lanes * width + 2)
    return Resources(bram18=lanes * ceil(width * depth / RAMB18), ff=lanes * width + 2)


def _plumbing(part: Part) -> Resources:
    width = _get(part, "Width", 0) or _get(part, "LaneWidth", 0) * max(_get(part, "InLanes"), _get(part, "OutLanes"))
    match part.module:
        case "qfx_fifo":
            depth = _get(part, "Depth")
            if depth <= SHIFT_DEPTH:
                return Resources(lut=10 + ceil(depth / 32) * width, ff=10)
            return Resources(lut=40, ff=40) + memory(width, depth, writable=True) + Resources(lut=width)
        case "qfx_fork":
            return Resources(lut=_get(part, "Outputs") * (width + 6), ff=_get(part, "Outputs") * (2 * width + 4))
        case "qfx_join":
            width = _get(part, "WidthA") + _get(part, "WidthB")
            return Resources(lut=width + 20, ff=3 * width + 16)
        case "qfx_concat":
            lanes, out = _get(part, "Lanes"), _get(part, "Lanes") * _get(part, "OutWidth")
            width = lanes * (_get(part, "AWidth") + _get(part, "BWidth"))
            return Resources(lut=width + out + 20, ff=2 * width + out + 16)
        case "qfx_slice":
            bits = _get(part, "WordBits")
            return Resources(lut=bits + 35, ff=3 * bits + 40)
        case "qfx_gate":
            return Resources(lut=8, ff=width + 8)
        case _:
            return Resources(lut=2 * width + 15, ff=3 * width + 12)
