"""Bench of the multiplier leaves: exact for every operand of small widths, extremes and random ones beyond."""

import itertools
import random
from pathlib import Path

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from qfx.tools import yosys
from qfx_sim import scoreboard
from qfx_sim.faults import plant
from qfx_sim.lanes import codes_of
from qfx_sim.ports import parameter, start
from qfx_sim.runner import BenchFailure, run

LATENCY = 3
RTL = Path(__file__).resolve().parents[3] / "rtl"


def code(word, width, signed):
    return codes_of(word, width, 1, signed)[0]


def operands(width):
    """Return every word of a small width; of a large one the extremes, their neighbours and random words."""
    if width <= 5:
        return list(range(1 << width))
    top = 1 << width
    return [0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, *(random.randrange(top) for _ in range(13))]


async def through(dut, name, inputs):
    """Apply ``inputs`` (port -> words) cycle by cycle and return the words of the output ``name``."""
    received = []
    ports = [getattr(dut, port) for port in inputs]
    rows = list(zip(*inputs.values(), strict=True))
    for row in rows + rows[-1:] * LATENCY:
        for port, word in zip(ports, row, strict=True):
            port.value = word
        await RisingEdge(dut.clk_i)
        received.append(int(getattr(dut, name).value))
    return received[LATENCY:]


@cocotb.test()
async def products_are_exact(dut):
    await start(dut)
    wa, wb = parameter(dut, "AWidth"), parameter(dut, "BWidth")
    pairs = list(itertools.product(operands(wa), operands(wb)))
    expected = []
    for a, b in pairs:
        products = [code(a, wa, sa) * code(b, wb, sb) for sa in (False, True) for sb in (False, True)]
        expected.append(products)
    inputs = {"a_i": [a for a, _ in pairs], "b_i": [b for _, b in pairs]}
    for name in ("dsp_o", "lut_o"):
        words = await through(dut, name, inputs)
        scoreboard.check(name, expected, [codes_of(word, wa + wb + 1, 4, True) for word in words])


@cocotb.test()
async def khot_products_are_exact(dut):
    await start(dut)
    wa, wb = parameter(dut, "AWidth"), parameter(dut, "BWidth")
    digits, shift = parameter(dut, "Digits"), parameter(dut, "ShiftWidth")
    words = operands(digits * (shift + 2)) if digits * (shift + 2) <= 5 else range(1 << (digits * (shift + 2)))
    rows = [(a, word) for a in operands(wa)[:8] for word in random.sample(list(words), min(len(words), 128))]
    expected, kept = [], []
    for a, word in rows:
        constant = 0
        for field in codes_of(word, shift + 2, digits, False):
            enable, negative, amount = field >> (shift + 1), field >> shift & 1, field & ((1 << shift) - 1)
            constant += enable * (-1) ** negative * (1 << amount)
        if -(1 << (wb - 1)) <= constant < 1 << (wb - 1):  # a code of BWidth bits
            kept.append((a, word))
            unsigned = constant if constant >= 0 else None
            expected.append([code(a, wa, sa) * c if c is not None else None
                             for sa in (False, True) for c in (unsigned, constant)])  # fmt: skip
    found = await through(dut, "khot_o", {"a_i": [a for a, _ in kept], "digits_i": [word for _, word in kept]})
    received = [codes_of(word, wa + wb + 1, 4, True) for word in found]
    received = [[g if w is not None else None for g, w in zip(got, want, strict=True)]
                for got, want in zip(received, expected, strict=True)]  # fmt: skip
    scoreboard.check("khot_o", expected, received)


SETS = [
    {"AWidth": 4, "BWidth": 5},
    {"AWidth": 1, "BWidth": 1, "Digits": 1, "ShiftWidth": 1},
    {"AWidth": 8, "BWidth": 8, "Digits": 3, "ShiftWidth": 3},
    {"AWidth": 16, "BWidth": 12, "ShiftWidth": 4},
]


@pytest.mark.parametrize("parameters", SETS, ids=lambda p: f"{p['AWidth']}x{p['BWidth']}")
def test_products_are_exact(parameters):
    run("mul_all", __file__, parameters=parameters)


@pytest.mark.parametrize(("a", "b", "signed"), [(8, 8, 1), (8, 4, 0), (24, 17, 0), (25, 18, 1)])
def test_mul_dsp_is_one_dsp_and_nothing_else(a, b, signed):
    # With the family xc7, whose DSP block yosys knows how to fill: input, M and P registers must all be inside.
    parameters = {"AWidth": a, "ASigned": signed, "BWidth": b, "BSigned": signed}
    made = yosys.synth("qfx_mul_dsp", [RTL / "qfx_mul_dsp.sv"], parameters=parameters, family="xc7")
    cells = {name: count for name, count in made.cells.items() if name != "BUFG"}
    assert cells == {"DSP48E1": 1}


@pytest.mark.parametrize("module", ["qfx_mul_lut", "qfx_mul_khot"])
def test_logic_multipliers_use_no_dsp(module):
    assert yosys.synth(module, [RTL / f"{module}.sv"], parameters={"AWidth": 8, "BWidth": 8}).dsp == 0


FAULTS = {
    "dsp_unsigned": ("qfx_mul_dsp", "{BSigned && b_i[BWidth-1], b_i}", "{1'b0, b_i}", "dsp_o"),
    "lut_sign": ("qfx_mul_lut", "high_d -= b_q[i]", "high_d += b_q[i]", "lut_o"),
    "khot_negative": ("qfx_mul_khot", "negative ? -shifted : shifted", "negative ? ~shifted : shifted", "khot_o"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_seen(fault, tmp_path: Path):
    module, old, new, output = FAULTS[fault]
    with pytest.raises(BenchFailure, match=f"{output}: word"):
        run("mul_all", __file__, sources=[plant(module, old, new, tmp_path)], parameters=SETS[0], seeds=(1,))
