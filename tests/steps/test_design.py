"""design.yaml: what is refused, in which words, and where results go."""

import re
import textwrap
from pathlib import Path

import pytest

from qfx import resources
from qfx.design import Design, create
from qfx.errors import DesignError

GOOD = """\
name: small
model: model.py:Net
data: model.py:data
input: {format: u5.0, shape: [8, 8, 1]}
board: ultra96v2
"""


SHAPE = "must be three numbers (height, width, channels), two (length, channels) or one (features)"
FORMAT = "must have 1 to 32 bits and a frac of -21 to 21"


def write(folder: Path, text: str) -> Path:
    (folder / "design.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def test_a_minimal_design_loads(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD))
    assert design.name == "small" and design.content.input.shape == (8, 8, 1)
    assert design.content.training.widths == (4,)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD + "traning: {}\n", 6, "did you mean 'training'?"),
        (GOOD + "training:\n  epochs: 3\n", 7, "training.epochs must be one of the known keys (float, fixed, "),
        (GOOD.replace("name: small", "name: 7"), 1, "name must be a string, not 7"),
        (
            GOOD.replace("name: small", "name: My-Net"),
            1,
            "name must start with a small letter and have at most 40 small letters, digits and "
            "underscores, not 'My-Net'",
        ),
        (GOOD.replace("board: ultra96v2\n", ""), 1, "board must be given, but is missing"),
        (
            GOOD.replace("model.py:Net", "model.Net"),
            2,
            "model must name something in a Python file of the design, such as model.py:Net, not 'model.Net'",
        ),
        (
            GOOD.replace("u5.0", "q5"),
            4,
            "input.format must be a format with one binary point, such as u8.0, not 'q5'",
        ),
        (GOOD.replace("[8, 8, 1]", "[8, 0, 1]"), 4, "input.shape.1 must be greater than 0, not 0"),
        (GOOD + "target: {cycles: fast}\n", 6, "target.cycles must be an integer, not 'fast'"),
        (
            GOOD + "target:\n  cycles: 64\n  clock_mhz: -3\n",
            8,
            "target.clock_mhz must be greater than or equal to 1, not -3",
        ),
        (GOOD + "target: {clock_mhz: 2000}\n", 6, "target.clock_mhz must be less than or equal to 1000, not 2000"),
        (GOOD + "target: {clock_mhz: .nan}\n", 6, "target.clock_mhz must be "),
        (
            GOOD + "target: {cycles: 1000000000001}\n",
            6,
            "target.cycles must be less than or equal to 1000000000000, not 1000000000001",
        ),
        (GOOD + "training:\n  float: {epochs: 0, lr: 0.1}\n", 7, "training.float.epochs must be greater than 0, not 0"),
        (
            GOOD + "training:\n  float:\n    epochs: 9\n    lr: 0.1\n    schedule: {kind: step, milestones: [4, 9]}\n",
            10,
            "training.float.schedule must have milestones before the last epoch, 9, not 9",
        ),
        (
            GOOD + "training:\n  fixed: {epochs: 9, lr: 0.1, schedule: {kind: step}}\n",
            7,
            "training.fixed.schedule must have milestones where kind is step",
        ),
        (
            GOOD + "training:\n  fixed: {epochs: 9, lr: 0.1, schedule: {milestones: [3]}}\n",
            7,
            "training.fixed.schedule.milestones must be left out where kind is cosine, not [3]",
        ),
        (
            GOOD + "training: {precision: float16}\n",
            6,
            "training.precision must be 'float32' or 'bfloat16', not 'float16'",
        ),
        (GOOD + "training: {accumulate: 65}\n", 6, "training.accumulate must be at most the batch, 64, not 65"),
        (GOOD + "training: {ema: 1}\n", 6, "training.ema must be less than 1, not 1"),
        (GOOD + "training: {clip: 0}\n", 6, "training.clip must be greater than 0, not 0"),
        (GOOD + "training: {checkpoint: 0}\n", 6, "training.checkpoint must be greater than 0, not 0"),
        (GOOD + "training:\n  widths: [4, 99]\n", 7, "training.widths.1 must be less than or equal to 16, not 99"),
        (GOOD.replace("[8, 8, 1]", "[]"), 4, f"input.shape {SHAPE}, not []"),
        (GOOD.replace("[8, 8, 1]", "[1, 2, 3, 4]"), 4, f"input.shape {SHAPE}, not [1, 2, 3, 4]"),
        (GOOD.replace("u5.0", "u40.0"), 4, f"input.format {FORMAT}, not 'u40.0'"),
        (GOOD.replace("u5.0", "u0.0"), 4, f"input.format {FORMAT}, not 'u0.0'"),
        (GOOD.replace("u5.0", "u8.22"), 4, f"input.format {FORMAT}, not 'u8.22'"),
        (GOOD.replace("[8, 8, 1]", "8"), 4, "input.shape must be a list, not 8"),
        (GOOD.replace("{format: u5.0, shape: [8, 8, 1]}", "u8.0"), 4, "input must be a mapping, not 'u8.0'"),
        (GOOD + "training:\n  widths: []\n", 7, "training.widths must have at least 1 item, not []"),
        (GOOD + "training:\n  widths: [0]\n", 7, "training.widths.0 must be greater than or equal to 1, not 0"),
        (GOOD + "training:\n  seed: 4294967296\n", 7, "training.seed must be less than 4294967296, not 4294967296"),
        (GOOD + "training:\n  ema: high\n", 7, "training.ema must be a number, not 'high'"),
        (GOOD + "training:\n  clip: .nan\n", 7, "training.clip must be greater than 0, not nan"),
        (
            GOOD + "training:\n  float: {checkpoint: ''}\n",
            7,
            "training.float.checkpoint must have at least 1 character, not ''",
        ),
        (
            GOOD + "training:\n  float: {checkpoint: net.th, epochs: 3, lr: 0.1}\n",
            7,
            "training.float must have either checkpoint or epochs and lr",
        ),
        (GOOD + "recipe: [4]\n", 6, "recipe must be a mapping, not [4]"),
        (GOOD + "0: 1\n", 6, "0 must be one of the known keys (name, model, "),
        (GOOD + "2026-01-01: 1\n", 6, "2026-01-01 must be one of the known keys (name, model, "),
        (GOOD + "recipe: {[a]: 4}\n", 6, "recipe must have keys of text, not a list or a mapping"),
        (GOOD + "training:\n  widths: [4, 4]\n", 7, "training.widths must be different widths, not [4, 4]"),
        (GOOD + "accuracy: {minimum: 120}\n", 6, "accuracy.minimum must be less than or equal to 100, not 120"),
        (GOOD + "board: pynq\n", 6, "board must stand once, not twice"),
        ("name: [", 1, "the file must be YAML"),
    ],
)
def test_a_wrong_design_is_refused_with_line_key_and_value(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(DesignError) as caught:
        Design.load(write(tmp_path, text))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'design.yaml'}:{line}: "), message
    assert said in message
    assert not re.search("Value error|after validation|Assertion|pattern", message)


def test_a_module_path_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD + "recipe:\n  layers: {0: {weight: 4}, 1.10: {weight: 4}}\n"))
    assert list(design.content.recipe["layers"]) == ["0", "1.10"]


def test_a_learning_rate_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD + "training:\n  fixed: {epochs: 3, lr: 1e-3}\n"))
    assert design.content.training.fixed.lr == 0.001


def test_a_folder_without_design_says_what_a_design_is(tmp_path: Path) -> None:
    with pytest.raises(
        DesignError, match=r"a design must be a folder with a design.yaml, or one of the shipped designs"
    ):
        Design.load(tmp_path)


def test_a_shipped_design_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Design.load("digits").folder == resources.path("designs") / "digits"


def test_results_of_a_writable_design_go_into_its_folder(tmp_path: Path) -> None:
    assert Design.load(write(tmp_path, GOOD)).build_folder == tmp_path / "build"


def test_results_of_an_installed_design_go_below_the_current_folder(tmp_path: Path) -> None:
    installed = tmp_path / "qfx" / "_data" / "designs" / "small"
    installed.mkdir(parents=True)
    assert Design.load(write(installed, GOOD)).build_folder == Path("build") / "small"


def test_python_that_does_not_load_is_named_with_its_line(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD))
    (tmp_path / "model.py").write_text("x = 1\ny = x + z\n")
    with pytest.raises(DesignError) as caught:
        design.object(design.content.model, "model")
    said = f"{tmp_path / 'model.py'}:2: the design's Python must load, but NameError: name 'z' is not defined"
    assert str(caught.value) == said


def test_python_with_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD))
    (tmp_path / "model.py").write_text("x = 1\nclass\n")
    with pytest.raises(DesignError, match=r"model.py:2: the design's Python must load, but SyntaxError"):
        design.object(design.content.model, "model")


def test_a_name_that_the_python_lacks_is_refused_with_the_key(tmp_path: Path) -> None:
    design = Design.load(write(tmp_path, GOOD))
    (tmp_path / "model.py").write_text("class Nett: ...\n")
    with pytest.raises(
        DesignError, match=r"design.yaml:2: model must name something in model.py, which has Nett, not 'Net'"
    ):
        design.object(design.content.model, "model")


def test_a_new_design_loads_and_bears_its_name(tmp_path: Path) -> None:
    folder = create(tmp_path / "mine")
    assert Design.load(folder).name == "mine"
    assert "NAME" not in "".join(path.read_text() for path in folder.iterdir())


@pytest.mark.parametrize("name", ["Mine", "3d", "a-b", ".."])
def test_a_new_design_needs_a_legal_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DesignError, match="the name of a design must start with a small letter"):
        create(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_new_design_is_made_in_a_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert Design.load(create(Path("../up"))).name == "up" and (tmp_path / "up" / "model.py").is_file()
    with pytest.raises(DesignError, match="^b must be a folder, in which c is made, but is none: make it$"):
        create(Path("b/c"))
    assert not Path("b").exists()


def test_a_new_design_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DesignError, match="must not exist yet, but it does: choose another name"):
        create(tmp_path / "mine")
