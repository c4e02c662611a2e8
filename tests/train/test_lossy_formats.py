"""What calibration warns of, stated formats that lose many values, is told by training, recorded and reported."""

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest

from qfx import steps
from qfx.design import Design
from qfx.errors import FormatWarning
from qfx.steps.engine import Build
from qfx.train import runs
from qfx.train.preflight import preflight

MICRO = Path(__file__).resolve().parents[1] / "steps" / "micro"
LOST = r"quantizer 'conv\.weight_quant' should hold .* % of them become 0: s4\.1 has steps of 0\.5, and they lie in "


def micro(folder: Path, weight: str, widths: str = "[3]") -> Path:
    """The micro design with a stated format for its convolution's weights."""
    shutil.copytree(MICRO, folder, dirs_exist_ok=True)
    file = folder / "design.yaml"
    text = file.read_text().replace("widths: [3]", f"widths: {widths}")
    layers = f"activation: 3}}\n  layers: {{conv: {{weight: {weight}}}}}"
    file.write_text(text.replace("activation: 3}", layers))
    return folder


def opened(folder: Path) -> tuple[Build, list[str]]:
    """A build, and the list of what it tells at once."""
    told: list[str] = []
    build = Build(Design.load(folder), steps.STEPS)
    build.told = told.append
    return build, told


@pytest.mark.parametrize(("widths", "names"), [("[3]", ["3"]), ("[3, 4]", ["3", "4"])])
def test_a_format_that_loses_many_weights_is_told_once_kept_and_on_the_page(
    tmp_path: Path, widths: str, names: list[str]
) -> None:
    folder = micro(tmp_path, "s4.1", widths)  # of several widths, each is trained in a process of its own
    build, told = opened(folder)
    result = build.run("train")
    assert len(told) == 1 and re.match(LOST, told[0]) and list(result.warnings) == told
    assert [result.figures["widths"][name]["warnings"] for name in names] == [told] * len(names)
    page = (build.run("report").folder / "report.html").read_text("utf-8")
    assert page.replace("&#39;", "'").count(f"<b>train</b>: {told[0]}") == 1
    again, said = opened(folder)
    assert again.run("train", force=True).warnings == result.warnings and said == told  # runs that were done already


def test_it_is_told_before_the_network_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, told = opened(micro(tmp_path, "s4.1"))
    before: list[int] = []
    fit = runs._fit

    def counted(*arguments: object) -> None:
        before.append(len(told))
        fit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "_fit", counted)
    build.run("train")
    assert before == [0, 1]  # float, fixed point


def test_weights_of_a_checkpoint_are_looked_at_before_anything_is_trained(tmp_path: Path) -> None:
    folder = micro(tmp_path, "s4.1")
    design = Design.load(folder)
    assert not [each for each in preflight(design, runs.load_data(design)) if "become 0" in each]  # not trained yet
    (folder / "float.safetensors").write_bytes(
        (opened(folder)[0].run("train").folder / "float.weights.safetensors").read_bytes()
    )
    file = folder / "design.yaml"
    file.write_text(file.read_text().replace("{epochs: 2, lr: 0.02}", "{checkpoint: float.safetensors}"))
    design = Design.load(folder)
    (said,) = [each for each in preflight(design, runs.load_data(design)) if "become 0" in each]
    build, told = opened(folder)
    assert re.match(LOST, said) and build.run("train").warnings == (said,) == tuple(told)


def test_a_format_that_holds_the_weights_is_not_warned_of(tmp_path: Path) -> None:
    build, told = opened(micro(tmp_path, "s4.3"))
    assert build.run("train").warnings == () and told == []
    (metrics,) = (tmp_path / "build" / ".kept" / "train").glob("3bits-*/metrics.json")
    assert json.loads(metrics.read_text())["warnings"] == []


def test_other_warnings_are_as_ever() -> None:
    with pytest.warns(DeprecationWarning, match="old"), runs.heard() as sentences:
        warnings.warn("lost", FormatWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("lost", FormatWarning, stacklevel=1)
    assert sentences == ["lost"]
