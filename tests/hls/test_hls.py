"""The HLS project computes the graph's integers, node by node, and the emitter refuses what it cannot pin down."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qfx.boards import Board
from qfx.emit import hls
from qfx.emit.hls import project as emitter
from qfx.errors import EmitError, ToolError
from qfx.fixed import Fixed
from qfx.graph import Graph, GraphBuilder
from qfx.graph.ops import Clamp, Conv2d, Dense, Flatten, Input, Requantize
from qfx.plan import Plan, plan, unroll
from qfx.tools import csim
from tests.hls.graphs import Author, codes_for, convolution_graph, element_graph, requantize_graph, small_graph

GRAPHS: dict[str, Callable[[], Graph]] = {
    "convolutions": convolution_graph,
    "elements": element_graph,
    "modes": requantize_graph,
    "small": small_graph,
}


@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_computes_the_codes_of_the_interpreter(name: str, io_type: str, tmp_path: Path) -> None:
    """Several frames in one run, so that a state left over from a frame shows in the next."""
    graph = GRAPHS[name]()
    folder = hls(graph, None, tmp_path / "hls", io_type=io_type)  # type: ignore[arg-type]
    assert differing(graph, csim.run(folder, codes_for(graph)), codes_for(graph)) == []


def test_a_layer_that_shares_its_multipliers_computes_the_same(tmp_path: Path) -> None:
    """A reuse factor above one takes hls4ml's resource kernels, which keep their weights in another order."""
    graph = sharing_graph()
    folder = hls(graph, plan_that_shares(graph), tmp_path / "hls")
    text = (folder / "firmware" / "parameters.h").read_text()
    assert "nnet::DenseResource" in text and "reuse_factor = 18" in text
    assert differing(graph, csim.run(folder, codes_for(graph)), codes_for(graph)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "first"),
    [
        ("defines.h", "AP_RND_CONV", "AP_RND", "rounded"),
        ("weights/n3_khot_scale.h", "{{1,", "{{-1,", "khot"),
        ("qfx_small.cpp", "qfx::map<qfx::Affine", "qfx::map<qfx::Clamp", None),
    ],
)
def test_a_planted_fault_shows_at_its_node(file: str, old: str, new: str, first: str | None, tmp_path: Path) -> None:
    """A rounding mode and a digit change integers; a kernel that its config does not fit does not compile."""
    graph = small_graph()
    folder = hls(graph, None, tmp_path / "hls")
    path = folder / "firmware" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    if first is None:
        with pytest.raises(ToolError, match="error: .low. is not a member of .config4."):
            csim.run(folder, codes_for(graph, 64))
        return
    assert differing(graph, csim.run(folder, codes_for(graph, 64)), codes_for(graph, 64))[0] == first


def test_a_planted_weight_bit_shows_at_its_node(tmp_path: Path) -> None:
    """hls4ml reads its weights at run time, so the same program serves."""
    graph = small_graph()
    folder = hls(graph, None, tmp_path / "hls")
    path = folder / "firmware" / "weights" / "w2.txt"
    first, rest = path.read_text().split(",", 1)
    path.write_text(f"{float(first) + 0.125},{rest}")
    assert differing(graph, csim.run(folder, codes_for(graph)), codes_for(graph))[0] == "conv"


@pytest.mark.parametrize(
    ("role", "wrong", "message"),
    [
        (
            "result",
            "fixed<9,4,TRN,WRAP>",
            r"n1_conv.*node 'conv'.*result type must stay fixed<.*made it fixed<9,4,TRN,WRAP",
        ),
        ("accum", None, r"n1_conv.*accum type must stay .*made it fixed<3,1"),
        ("weight", "fixed<4,4,TRN,WRAP>", r"n1_conv.*weight type must stay fixed<4,1,"),
    ],
)
def test_a_type_that_is_not_the_graphs_is_refused(
    role: str, wrong: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed type, and one that hls4ml had to take from its default."""
    pinned = emitter._hls_config

    def faulty(*arguments: object) -> dict[str, object]:
        config = pinned(*arguments)  # type: ignore[arg-type]
        types = config["LayerName"]["n1_conv"]["Precision"]
        types.pop(role)
        if wrong:
            types[role] = wrong
        return config

    monkeypatch.setattr(emitter, "_hls_config", faulty)
    with pytest.raises(EmitError, match=message):
        hls(small_graph(), None, tmp_path / "hls")
    assert not (tmp_path / "hls").exists()


def test_khot_constants_reach_the_kernel_as_digits(tmp_path: Path) -> None:
    """So there is no multiplication to synthesize: the product with Digits is made of shifts and additions."""
    folder = hls(small_graph(), None, tmp_path / "hls")
    assert "typedef qfx::Digits<2> n3_khot_scale_t;" in (folder / "firmware/weights/n3_khot_scale.h").read_text()
    header = (folder / "firmware/qfx/multiply.hpp").read_text()
    body = header.split("const Digits<K> &w) {")[1].split("\n}\n")[0]
    assert "<< w.shift" in body and "*" not in body.split("//")[0]


def test_two_emissions_write_the_same_bytes(tmp_path: Path) -> None:
    """Neither the folder nor the time shows in a project."""
    first, second = (hls(small_graph(), None, tmp_path / name) for name in ("one", "two"))
    assert (first / "manifest.json").read_text() == (second / "manifest.json").read_text()
    assert not any(str(tmp_path) in path.read_text() for path in first.rglob("*.[cyt]*"))


def test_the_top_level_is_free_running_with_stream_ports(tmp_path: Path) -> None:
    """The shell around it is the one of the RTL: no start signal, AXI-Stream in and out."""
    folder = hls(small_graph(), None, tmp_path / "hls")
    text = (folder / "firmware" / "qfx_small.cpp").read_text()
    assert "#pragma HLS INTERFACE ap_ctrl_none port=return" in text
    assert "#pragma HLS INTERFACE axis port=n0_input,layer4_out" in text


def test_an_emission_that_fails_leaves_the_old_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is exchanged as a whole or not at all."""
    folder = hls(small_graph(), None, tmp_path / "hls")
    before = (folder / "manifest.json").read_text()

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qfx.emit.manifest.write", no_space)
    with pytest.raises(OSError, match="No space left"):
        hls(convolution_graph(), None, folder)
    assert (folder / "manifest.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["hls"]


def test_what_cannot_be_emitted_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Each message names the node and what to do."""
    graph = small_graph()
    with pytest.raises(EmitError, match="io_type must be 'io_stream' or 'io_parallel', not 'io_serial'"):
        hls(graph, None, tmp_path / "hls", io_type="io_serial")  # type: ignore[arg-type]
    with pytest.raises(EmitError, match="'input' must have at most 7 consumers in io_stream, not 8"):
        hls(fan_out(8), None, tmp_path / "hls")
    with pytest.raises(EmitError, match="an output must be computed, but 'input' is the input"):
        hls(replace(graph, outputs=("input", "khot")), None, tmp_path / "hls")
    with pytest.raises(EmitError, match="node 'conv' must be read by a node or be an output: run remove_dead first"):
        hls(dead_end(), None, tmp_path / "hls")
    with pytest.raises(EmitError, match="node 'zero' must be at least one bit wide.*run remove_zero_width first"):
        hls(zero_width(), None, tmp_path / "hls")


def test_csim_says_what_is_wrong_with_its_project(tmp_path: Path) -> None:
    """A folder that is none, codes of a wrong shape, a program that ends itself."""
    graph = small_graph()
    with pytest.raises(ToolError, match="must be a folder that qfx.emit.hls wrote"):
        csim.run(tmp_path, codes_for(graph))
    folder = hls(graph, None, tmp_path / "hls")
    with pytest.raises(ToolError, match=r"input codes must have shape \(N, 4, 4, 2\), N at least 1, not \(6, 4, 4\)"):
        csim.run(folder, codes_for(graph)[..., 0])
    (folder / "firmware" / "weights" / "w2.txt").unlink()
    with pytest.raises(
        ToolError, match="csim failed with exit code 1: ERROR: file firmware/weights/w2.txt does not exist"
    ):
        csim.run(folder, codes_for(graph))
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "rtl"}))
    with pytest.raises(ToolError, match="must be of kind 'hls'"):
        csim.facts(tmp_path)


def differing(graph: Graph, found: dict[str, np.ndarray], codes: np.ndarray) -> list[str]:
    """Return the nodes whose codes are not the interpreter's, in the graph's order."""
    wanted = graph.evaluate_codes(codes, all_nodes=True)
    assert list(found) == [node.name for node in graph.nodes]
    return [name for name in wanted if not np.array_equal(wanted[name], found[name])]


def plan_that_shares(graph: Graph) -> Plan:
    """A plan that unrolls nothing but the filters of one node, whatever the rate is."""
    made = plan(graph, Board.load("ultra96v2"))
    nodes = {name: replace(node, unroll=unroll(co=3 if name == "conv" else 1)) for name, node in made.nodes.items()}
    return replace(made, nodes=nodes)


def sharing_graph() -> Graph:
    """A convolution, a depthwise one and a dense layer of hls4ml, and one of ours."""
    a = Author("sharing", 5)
    x = a.add("input", Input((4, 4, 2), Fixed(5, 2)))
    conv = a.add("conv", Conv2d(padding=(1, 1, 1, 1)), x, a.weight("w0", (3, 3, 2, 3), Fixed(4, (1, 2, 3))))
    quantized = a.requantized(conv, Fixed(4, 1))
    depthwise = Conv2d(padding=(1, 1, 1, 1), groups=3, stride=(2, 2))
    a.output(
        a.add("dw", depthwise, quantized, a.weight("w1", (3, 3, 1, 3), Fixed(4, 2)), a.weight("b1", (3,), Fixed(6, 3)))
    )
    a.output(a.add("ours", Conv2d(dilation=(2, 2), groups=3), quantized, a.weight("w2", (2, 2, 1, 3), Fixed(4, 2))))
    flat = a.add("flat", Flatten(), quantized)
    a.output(
        a.add(
            "dense",
            Dense(),
            flat,
            a.weight("w3", (48, 3), Fixed(4, (1, 2, 3))),
            a.weight("b3", (3,), Fixed(7, (2, 3, 4))),
        )
    )
    return a.graph()


def fan_out(readers: int) -> Graph:
    """One input with many readers."""
    builder = GraphBuilder("fan")
    builder.add("input", Input((2, 2, 1), Fixed(4, 0)))
    names = [builder.add(f"c{index}", Clamp(-index, index), "input") for index in range(readers)]
    return builder.build(*names)


def dead_end() -> Graph:
    """A node that nobody reads."""
    builder = GraphBuilder("dead")
    builder.add("input", Input((2, 2, 1), Fixed(4, 0)))
    builder.add("conv", Conv2d(), "input", builder.constant("w", np.ones((1, 1, 1, 1), np.int64), Fixed(2, 0)))
    return builder.build(builder.add("out", Clamp(0, 1), "input"))


def zero_width() -> Graph:
    """A result without a bit."""
    builder = GraphBuilder("zero")
    builder.add("input", Input((2, 2, 1), Fixed(4, 0)))
    return builder.build(builder.add("zero", Requantize(Fixed(0, 0)), "input"))
