"""The RTL emitter writes what the graph and the plan say, legally named, every time the same."""

import re
import subprocess
import sys

import numpy as np
import pytest

from qfx.boards import Board
from qfx.emit import manifest
from qfx.emit.rtl import parts, rtl
from qfx.errors import EmitError, PlanError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import OPS, Conv2d, Flatten, Input, Requantize
from qfx.plan import plan
from qfx.plan.parts import _MAKERS
from qfx.tools import verilator
from tests.rtl.examples import chain, everything

BOARD = Board.load("ultra96v2")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rtl") / "everything"
    graph = everything()
    rtl(graph, plan(graph, BOARD, 600), folder)
    return folder


def two_outputs() -> Graph:
    """Names that differ only in letters Verilog does not have, a keyword, and an output that is read as well."""
    b = GraphBuilder("module")
    b.add("x", Input((2, 2, 3), Fixed(4, 0)))
    b.constant("w", np.ones((1, 1, 3, 3), dtype=np.int64), Fixed(2, 0))
    b.add("a.b", Conv2d(), "x", "w")
    b.add("a_b", Requantize(Fixed(4, 0)), "a.b")
    b.add("a-b", Requantize(Fixed(3, 0)), "a_b")
    b.add("wire", Requantize(Fixed(2, 0)), "a_b")
    b.add("flat", Flatten(), "wire")
    return b.build("a-b", "flat", "a_b")


def test_every_operation_has_parts():
    assert set(_MAKERS) == {op for name, op in OPS.items() if name not in ("Input", "Flatten")}


def test_the_manifest_lists_every_file_with_its_hash(written):
    facts = manifest.read(written, "rtl")
    assert manifest.changed(written, facts) == []
    assert set(facts["files"]) == {path.name for path in written.iterdir()} - {"manifest.json"}


def test_the_same_graph_gives_the_same_files(written, tmp_path):
    graph = everything()
    again = rtl(graph, plan(graph, BOARD, 600), tmp_path / "again")
    assert (again / "manifest.json").read_bytes() == (written / "manifest.json").read_bytes()


def test_ports_and_parameters_are_named_and_nodes_stand_in_comments(written):
    text = (written / "everything.sv").read_text()
    assert "// depthwise.q (Requantize, 4x4x4 u4.-8)" in text
    assert "u_requant_depthwise_q (" in text
    for line in text.splitlines():
        assert not re.fullmatch(r"\s{4}[A-Za-z0-9_]+,?", line), f"a connection must be named: {line}"


def test_memories_are_named_without_a_folder_and_are_there(written):
    names = re.findall(r'File\("([^"]*)"\)', (written / "everything.sv").read_text())
    assert len(names) == len(set(names)) >= 9
    assert all("/" not in name and (written / name).is_file() for name in names)


def test_the_axi_top_lints_with_all_warnings(written, tmp_path):
    facts = manifest.read(written, "rtl")
    sources = [written / name for name in facts["axi_sources"]]
    verilator.lint(sources, "everything_axi", log=tmp_path / "lint.log")


def test_the_axi_top_is_plain_verilog_with_named_interfaces(written):
    text = (written / "everything_axi.v").read_text()
    assert "logic" not in text
    ports = re.findall(r"^  (?:input |output) wire (?:\[\d+:0\] )?(\w+)", text, re.MULTILINE)
    assert len(ports) == text.count("X_INTERFACE_INFO") == 31


def test_several_outputs_and_names_that_collide_lint(tmp_path):
    graph = two_outputs()
    folder = rtl(graph, plan(graph, BOARD), tmp_path / "rtl")
    facts = manifest.read(folder, "rtl")
    assert facts["top"] == "module_net"
    assert list(facts["outputs"]) == ["out0", "out1", "out2"]
    assert facts["axi_sources"] == []
    verilator.lint([folder / name for name in facts["sources"]], facts["top"], log=tmp_path / "lint.log")


def test_scripts_name_the_part_and_the_clock(written):
    assert "-part xczu3eg-sbva484-1-" in (written / "synth_ooc.tcl").read_text()
    period = 1000 / BOARD.clock_mhz
    assert f"-period {period:.3f}" in (written / "clock.xdc").read_text()


def test_parts_name_module_parameters_and_memories():
    graph = chain()
    found = {part.name: part for part in parts(graph, plan(graph, BOARD, 600))}
    assert found["conv_stem"].module == "qfx_conv"
    assert found["conv_stem"].memories["WeightFile"] == found["conv_stem"].parameters["WeightFile"]


def test_a_plan_for_another_graph_is_refused(tmp_path):
    with pytest.raises(PlanError, match="plan again"):
        rtl(everything(), plan(chain(), BOARD, 600), tmp_path / "rtl")
    assert not (tmp_path / "rtl").exists()


def test_an_impossible_beat_is_refused(tmp_path):
    graph = chain()
    with pytest.raises(EmitError, match="tdata must be one of 32, 64, 128, not 48"):
        rtl(graph, plan(graph, BOARD, 600), tmp_path / "rtl", tdata=48)


def test_emitting_rtl_loads_neither_torch_nor_hls4ml():
    code = "import sys, qfx.emit.rtl; print([m for m in ('torch', 'hls4ml', 'cocotb') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]", done.stderr
