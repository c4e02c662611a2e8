"""The report says what the records say: no more, and nothing of what was not run."""

import copy
import re
import subprocess
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qfx import doctor
from qfx.emit.report import plots, report
from qfx.tools import git
from tests.report.records import DESIGN, front, record, records


def text_of(page: str) -> str:
    """The words of a page, without its pictures."""
    page = re.sub(r"<(svg|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def write(folder: Path, found: dict[str, dict[str, Any]]) -> str:
    return report(DESIGN, found, folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("report"), records())


def test_a_whole_build_is_all_equal(page: str) -> None:
    text = text_of(page)
    assert "All engines compute the same integers" in text
    assert "not run" not in text.lower()


def test_the_page_needs_nothing_beside_it(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "@import" not in page and "<script" not in page


def test_every_picture_is_there_once_and_its_ids_are_its_own(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) == 5
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "said",
    [
        "98.61 %",
        "float 98.89 %",
        "4 bits, quantized after training 96.11 2.78",
        "4 bits, trained in fixed point (this build) 98.61 0.28",
        "2 bits, trained in fixed point 93.06",
        "Training moved 3 of 7 learned binary points of the 4-bit network",
        "cycles a frame, predicted by the plan 576",
        "cycles a frame, simulated 576",
        "frames a second at 250 MHz 434,028",
        "the slowest that still makes 244,141 frames a second (the target) 140.6 MHz",
        "LUT 3,890 4,200 70,560 5.5 %",
        "RTL, Verilator interpreter equal 360 5 400,000 random, seed 1",
        "qfx 0.1.0, commit 1234abc",
        "torch 2.13.0+cpu 2.13.0",
        "hls4ml 1.2.0 1.3.0",
        "cocotb 2.1.0 2.1.0",
        "verilator 5.48.0 5.48.0",
        "yosys missing 0.70",
        "python 3.11.7",
    ],
)
def test_the_page_holds_the_figures(page: str, said: str) -> None:
    assert said in text_of(page)


def test_a_version_that_qfx_is_not_tested_with_stands_out(page: str) -> None:
    shown = re.findall(r'<td>(\w+)</td><td class="state (\w+)">[\w.+]+</td><td>[\d.]+</td>', page)
    assert shown == [
        ("torch", "good"),
        ("hls4ml", "open"),
        ("cocotb", "good"),
        ("verilator", "good"),
        ("yosys", "open"),
    ]


def test_the_versions_of_this_clone_are_known() -> None:
    root = Path(__file__).resolve().parents[2]
    assert doctor.own_version().startswith(metadata.version("qfx"))
    assert (", commit " in doctor.own_version()) == (root / ".git").exists()
    pinned = (root / "constraints.txt").read_text()
    assert set(doctor.tested()) == set(doctor.DECISIVE) == {"torch", "hls4ml", "cocotb", "verilator", "yosys"}
    assert all(f"{name}=={version}\n" in pinned for name, version in doctor.tested().items())


def test_the_commit_of_a_clone_is_named_and_what_is_none_has_none(tmp_path: Path) -> None:
    assert git.commit(tmp_path) is None
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "init", "-q"], check=True)
    subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    found = git.commit(tmp_path)
    assert found and re.fullmatch(r"[0-9a-f]{7,}", found)


@pytest.mark.parametrize("step", ["train", "lower", "plan", "hls", "rtl", "sim", "synth"])
def test_a_step_that_was_not_run_is_shown_as_not_run(tmp_path: Path, step: str) -> None:
    found = records()
    del found[step]
    text = text_of(write(tmp_path, found))
    assert f"Not finished not run: {step}" in text
    assert "All engines compute the same integers" not in text


def test_an_empty_build_has_a_page_without_a_single_figure(tmp_path: Path) -> None:
    page = write(tmp_path, {})
    assert "<svg" not in page
    assert "Not run: qfx train designs/small" in text_of(page)
    assert "interpreter torch, exact not run" in text_of(page)


def test_a_mismatch_is_named_on_top_and_in_the_table(tmp_path: Path) -> None:
    sentence = "csim: node 'relu' (Requantize) must give code 3 (0.75) at frame 0, pixel (0, 1), channel 2, not 4 (1)"
    figures = {
        "frames": 360,
        "nodes": 5,
        "codes": 400000,
        "equal": False,
        "mismatch": {"node": "relu", "sentence": sentence},
    }
    found = {**records(), "hls": record(figures, failure=sentence)}
    text = text_of(write(tmp_path, found)).replace("&#39;", "'")
    assert f"Unequal integers {sentence}" in text
    assert f"First wrong node: relu {sentence}" in text
    assert "HLS csim interpreter unequal" in text
    assert "All engines compute the same integers" not in text


def test_a_stale_result_is_called_out_of_date(tmp_path: Path) -> None:
    found = records()
    found["hls"]["stale"] = True
    assert "Out of date made from an earlier state: hls" in text_of(write(tmp_path, found))


def test_an_accuracy_below_target_is_a_warning_on_the_page(tmp_path: Path) -> None:
    found = records()
    found["train"]["warnings"] = ["accuracy at 4 bits must be at least 98.3 %, not 97.00 %"]
    text = text_of(write(tmp_path, found))
    assert "Warnings train : accuracy at 4 bits must be at least 98.3 %, not 97.00 %" in text


def test_the_device_of_training_is_told_and_was_the_cpu_where_none_is_recorded(tmp_path: Path) -> None:
    found = records()
    assert "1,437 training inputs, 360 test inputs; trained on cuda:0 (GPU)." in text_of(write(tmp_path, found))
    del found["train"]["figures"]["device"]
    assert "360 test inputs; trained on cpu." in text_of(write(tmp_path, found))


def test_a_front_is_a_table_and_a_picture_of_what_its_networks_take(tmp_path: Path) -> None:
    found = records()
    found["train"]["figures"]["front"] = front()
    page = write(tmp_path, found)
    assert (
        "4bits (this build) 4,912 5,000 0 0 576 90.00 98.61 front1 5,912 6,000 0 0 576 90.00 97.50 off the front: "
        "4bits front2 2,912 3,000 0 0 576 90.00 96.25 "
    ) in text_of(page)
    (drawn,) = re.findall(r"<h2>Front</h2>.*?(<svg.*?</svg>)", page, flags=re.DOTALL)
    assert drawn.count('id="front-axes_') == 1, "all take no DSP: one picture, against LUT"


def test_names_of_networks_that_take_nearly_the_same_stand_apart() -> None:
    points = [(2912, 96.25, "front1"), (2912, 96.25, "front2"), (2950, 96.3, "front3"), (7000, 99.0, "a long name")]
    axis = Figure(figsize=(4, 2)).subplots()
    axis.scatter(*zip(*[point[:2] for point in points], strict=True))
    axis.figure.draw_without_rendering()
    plots._label(axis, points)
    assert [label.get_text() for label in axis.texts] == ["front1, front2", "front3", "a long name"]
    assert not overlapping(axis) and all(axis.bbox.containsx(label.get_window_extent().x1) for label in axis.texts)
    for label in axis.texts:
        label.set(ha="left", va="bottom", position=(6, 4))  # as if each had a figure of its own
    assert overlapping(axis)


def overlapping(axis: Axes) -> bool:
    return any(one.overlaps(other) for one, other in combinations([text.get_window_extent() for text in axis.texts], 2))


def test_a_build_of_one_budget_has_no_front(page: str) -> None:
    assert "Front" not in text_of(page) and 'id="front' not in page


def test_names_from_a_design_cannot_become_markup(tmp_path: Path) -> None:
    found = copy.deepcopy(records())
    found["lower"]["figures"]["nodes"][1]["name"] = "<script>alert(1)</script> $x$"
    found["train"]["warnings"] = ["<img src=x onerror=alert(1)>"]
    page = write(tmp_path, found)
    assert "<script" not in page and "<img" not in page


def test_the_same_records_give_the_same_page(tmp_path: Path) -> None:
    assert write(tmp_path / "a", records()) == write(tmp_path / "b", records())
