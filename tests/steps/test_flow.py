"""The whole build of the smallest network with its real tools, and a planted fault in each engine that must stop it."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qfx import cli, steps
from qfx.errors import MismatchError
from qfx.steps import hardware

MICRO = Path(__file__).with_name("micro")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory, unchanged_sources: None) -> Path:
    folder = Path(shutil.copytree(MICRO, tmp_path_factory.mktemp("flow") / "micro"))
    assert cli.run(["build", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(flow: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flow, tmp_path / "micro"))


def test_every_engine_gave_the_same_integers(flow: Path) -> None:
    build = steps.open_build(flow)
    figures = {name: build.find(name).figures for name in build.steps}  # type: ignore[union-attr]
    assert figures["lower"]["exact"]["equal"] and figures["hls"]["equal"] and figures["sim"]["equal"]
    assert figures["hls"]["nodes"] == len(figures["lower"]["nodes"])
    runs = figures["sim"]["runs"]
    assert [run["stalls"] for run in runs] == ["none", "random, seed 2", "random, seed 3", "none"]
    assert [run["nodes"] for run in runs[:3]] == [1, 1, 1] and runs[3]["nodes"] >= len(figures["lower"]["nodes"]) - 2
    assert figures["sim"]["interval"] == figures["plan"]["interval"]
    assert figures["sim"]["latency"] == figures["plan"]["latency"]


def test_the_report_says_so(flow: Path) -> None:
    page = (flow / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert "All engines compute the same integers" in page and "not run" not in page.lower()


def test_a_second_build_skips_every_step(flow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["build", str(flow)]) == 0
    assert capsys.readouterr().out.count("[up to date]") == len(steps.STEPS)


def test_resources_are_the_sum_of_the_parts(flow: Path) -> None:
    figures = steps.open_build(flow).run("synth").figures
    assert figures["total"]["lut"] == sum(part["lut"] for part in figures["parts"]) > 0
    assert figures["total"]["ff"] > 0 and figures["depth"] > 0


def test_one_weight_bit_in_the_rom_of_the_rtl_fails_and_names_its_node(copy: Path) -> None:
    rom = next((copy / "build" / "rtl" / "hdl").glob("*conv_weight.mem"))
    words = rom.read_text().split()
    words[0] = f"{int(words[0], 16) ^ 1:x}"
    rom.write_text("\n".join(words) + "\n")
    with pytest.raises(MismatchError, match=r"RTL: node 'conv' must give code -?\d+ .* at frame \d+, pixel \(0, 0\)"):
        steps.sim(copy)
    found = steps.open_build(copy).find("sim")
    assert found is not None and found.figures["mismatch"]["node"] == "conv"
    steps.report(copy)
    page = (copy / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert "First wrong node: <code>conv</code>" in page


def test_one_rounding_mode_in_the_hls_fails_the_build_and_the_report_names_its_node(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = hardware.write_hls

    def planted(graph: Any, plan: Any, folder: Path) -> None:
        whole(graph, plan, folder)
        types = folder / "firmware" / "defines.h"
        text = types.read_text()
        wrong = re.sub(r"(ap_ufixed<3,\d+),AP_RND,", r"\1,AP_TRN,", text, count=1)
        assert wrong != text
        types.write_text(wrong)

    monkeypatch.setattr(hardware, "write_hls", planted)
    shutil.rmtree(copy / "build" / "hls")
    assert cli.run(["build", str(copy)]) == 1
    assert re.search(r"error: csim: node '[\w.]+' \(Requantize\) must give code", capsys.readouterr().err)
    page = (copy / "build" / "report" / "report.html").read_text(encoding="utf-8")
    assert "First wrong node:" in page and "Unequal integers" in page


def test_a_swapped_channel_in_lowering_fails_the_build(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qfx.graph import lower as lowering

    whole = lowering.lower

    def planted(*arguments: Any, **options: Any) -> Any:
        graph = whole(*arguments, **options)
        node = next(node for node in graph.nodes if type(node.op).__name__ == "Conv2d")
        name = next(name for name in node.inputs if name in graph.constants)
        old = graph.constants[name]
        swapped = type(old)(old.codes[..., ::-1], old.fixed, old.max_digits, old.signed_digits)
        return graph.replace_nodes(graph.nodes, {**graph.constants, name: swapped})

    monkeypatch.setattr(lowering, "lower", planted)
    with pytest.raises(MismatchError, match=r"interpreter: node 'conv' \(Conv2d\) must give code"):
        steps.lower(copy, force=True)
