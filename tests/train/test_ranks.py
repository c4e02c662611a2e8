"""Two processes that see different data have one set of formats: that of a single process that sees it all."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from qfx import steps
from qfx.design import Design
from qfx.nn import quantizers
from qfx.train import runs

JOB = Path(__file__).with_name("ranks_job.py")
ROOT = Path(__file__).parents[2]


def run(folder: Path, count: int, kind: str) -> list[dict[str, Any]]:
    """Let ``count`` processes train together; return what each ended with."""
    folder.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, str(JOB), str(folder), str(rank), str(count), kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, said
    if kind not in ("hand", "immature", "fault", "idle"):  # where fit looks for idle parameters
        assert not any("find_unused_parameters" in each for each in said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("alone") / "all", 1, "hand")[0]


def test_formats_calibrated_and_trained_on_two_ranks_are_those_of_one_that_sees_all(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    first, second = run(tmp_path / "two", 2, "hand")
    assert first["calibrated"] == second["calibrated"] == alone["calibrated"]
    assert first["trained"] == second["trained"] == alone["trained"] != alone["calibrated"]
    assert first["corrected"] == second["corrected"] == [pytest.approx(each) for each in alone["corrected"]]
    assert first["mean"] == second["mean"] and first["mean"] == pytest.approx(alone["mean"], rel=1e-4)


def test_immature_batch_norms_get_the_formats_of_one_that_sees_the_same_batches(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    (one,) = run(tmp_path / "one", 1, "immature")
    first, second = run(tmp_path / "two", 2, "immature")
    assert first["calibrated"] == second["calibrated"] == one["calibrated"] != alone["calibrated"]
    assert first["corrected"] == second["corrected"] == [pytest.approx(each) for each in one["corrected"]]


def test_without_what_the_ranks_share_their_formats_would_differ(alone: dict[str, Any], tmp_path: Path) -> None:
    first, second = run(tmp_path / "two", 2, "fault")
    assert first["calibrated"] != second["calibrated"] and first["trained"] != second["trained"]
    assert first["corrected"] != second["corrected"]
    assert second["mean"] != pytest.approx(alone["mean"], rel=0.1)
    assert alone["refused"] == "" and re.fullmatch(
        r"quantizer '.*' must have one format on all ranks, not \S+ and, on rank 1, \S+: call "
        "init_process_group before qfx.calibrate",
        first["refused"],
    )


def test_fit_on_two_ranks_ends_in_the_formats_of_one(tmp_path: Path) -> None:
    (one,) = run(tmp_path / "one", 1, "fit")
    first, second = run(tmp_path / "two", 2, "fit")
    assert first["trained"] == second["trained"] == one["trained"]
    assert first["moved"] == one["moved"] and first["mean"] == second["mean"]
    logs = [
        [json.loads(line) for line in (tmp_path / name / "run" / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [row["moves"] for row in logs[0]] == [row["moves"] for row in logs[1]]
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], rel=1e-3)


def test_two_ranks_look_for_parameters_without_a_gradient_only_where_there_are_some(tmp_path: Path) -> None:
    for found in run(tmp_path / "two", 2, "idle"):
        assert found["looked"] == [True, True, False]
        assert found["changed"] == ["used.weight", "used.bias", "norm.weight", "norm.bias"]
        assert "Expected to have finished reduction in the prior iteration" in found["refused"]


def test_two_ranks_learn_one_k_for_each_channel_within_the_budget(tmp_path: Path) -> None:
    first, second = run(tmp_path / "two", 2, "digits")
    assert first == second and first["digits"] <= 1.2 * (4 * 9 + 128)
    assert len({k for channels in first["k"].values() for k in channels}) > 1


def test_two_ranks_learn_equal_widths_within_a_budget_and_pay_the_same(tmp_path: Path) -> None:
    first, second = run(tmp_path / "two", 2, "budget")
    assert first == second and first["refused"] == "" and first["fits"]
    assert first["reached"]["lut"] <= first["most"]
    assert any(first["charged"])


def test_ranks_that_pay_differently_are_found(tmp_path: Path) -> None:
    first, second = run(tmp_path / "two", 2, "twice")
    assert first["charged"] != second["charged"] and first != second


def test_two_ranks_allocate_the_widths_of_one_that_sees_all(tmp_path: Path) -> None:
    (alone,) = run(tmp_path / "one", 1, "allocate")
    first, second = run(tmp_path / "two", 2, "allocate")
    assert first == second == alone and first["cost"]["lut"] <= 1000
    assert len({width for widths in first["widths"].values() for width in widths}) > 1


def torchrun(design: Path) -> subprocess.CompletedProcess[str]:
    """Run `qfx train` on two ranks, in the folder of the design's."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    return subprocess.run(
        [*command, str(JOB.with_name("train_job.py")), "train", str(design)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=design.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_qfx_train_under_torchrun_trains_every_run_together_and_leaves_what_one_process_leaves(tmp_path: Path) -> None:
    micro = Path(shutil.copytree(ROOT / "tests" / "steps" / "micro", tmp_path / "micro"))
    text = (micro / "design.yaml").read_text()
    (micro / "design.yaml").write_text(text.replace("widths: [3]", "widths: [3, 2]"))
    done = torchrun(micro)
    assert done.returncode == 0 and done.stdout.count("train ") == 1, done.stderr
    together = json.loads((micro / "build" / "train" / "result.json").read_text())["figures"]
    shutil.rmtree(micro / "build")
    alone = steps.train(micro).figures
    assert {width: run["formats"] for width, run in together["widths"].items()} == {
        width: run["formats"] for width, run in alone["widths"].items()
    }
    assert (micro / "build" / "train" / "2bits.log.csv").is_file()
    (micro / "design.yaml").write_text(text.replace("batch: 16", "batch: 1"))
    failed = torchrun(micro)
    said = "a batch must have an input for each of its 2 parts (accumulate times ranks), not 1 inputs: accumulate less"
    assert failed.returncode != 0 and said in failed.stderr


def different(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The tensors of a network that are not the same bits in another."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def saved_formats(design: Design, folder: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """The formats of the networks along a front that the step train has left in a folder."""
    found = []
    for each, name in zip(design.along_front, names, strict=True):
        place = folder / f"of.{name}"
        place.mkdir()
        shutil.copyfile(folder / name, place / "weights.safetensors")
        model = runs.trained_model(each, place)
        found.append({path: str(quantizer.format()) for path, quantizer in quantizers(model).items()})
    return found


def test_every_rank_trains_each_network_of_a_front_to_the_same_bits_and_within_its_own_budget(tmp_path: Path) -> None:
    micro = Path(shutil.copytree(ROOT / "tests" / "steps" / "micro", tmp_path / "micro"))
    text = (micro / "design.yaml").read_text()
    text = text.replace("weight: 3, activation: 3", "weight: {width: 6, learn_width: true}, activation: 6")
    text = text.replace("widths: [3]", "widths: [6]\n  budget: {lut: 800, dsp: 0}\n  front: [{lut: 590}]")
    (micro / "design.yaml").write_text(text)
    done = torchrun(micro)
    assert done.returncode == 0 and done.stdout.count("train ") == 1, done.stderr
    assert "find_unused_parameters" not in done.stderr
    folder, names = micro / "build" / "train", ("weights.safetensors", "front1.weights.safetensors")
    for name, file in zip(("float", "first", "second"), ("float.weights.safetensors", *names), strict=True):
        ranks = [load_file(tmp_path / f"{rank}.{name}.safetensors") for rank in (0, 1)]
        assert different(ranks[0], ranks[1]) == [] == different(ranks[0], load_file(folder / file))
    weights = ranks[0]["classify.weight"]
    planted = {**ranks[1], "classify.weight": torch.nextafter(weights, weights.max().expand_as(weights))}
    assert different(ranks[0], planted) == ["classify.weight"]
    together = json.loads((folder / "result.json").read_text())["figures"]["front"]["networks"]
    formats = saved_formats(Design.load(micro), folder, names)
    trained = [load_file(folder / name) for name in names]
    shutil.rmtree(micro / "build")
    alone = steps.train(micro).figures["front"]["networks"]
    assert [network["budget"] for network in together] == [network["budget"] for network in alone]
    assert together[1]["budget"]["reached"]["lut"] <= 590 < together[0]["budget"]["reached"]["lut"] <= 800
    assert formats == saved_formats(Design.load(micro), folder, names) and formats[0] != formats[1]
    for one, name in zip(trained, names, strict=True):  # sums of two parts are rounded otherwise
        torch.testing.assert_close(one, load_file(folder / name), rtol=1e-2, atol=1e-3)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*trained, rtol=1e-2, atol=1e-3)
