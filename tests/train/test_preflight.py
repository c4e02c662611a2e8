"""What cannot work is refused before anything is trained."""

from pathlib import Path

import pytest
import torch

from qfx import steps
from qfx.design import Design
from qfx.errors import QfxError, RecipeError
from qfx.nn import quantizers
from qfx.train import runs
from qfx.train.preflight import preflight

MICRO = Path(__file__).resolve().parents[1] / "steps" / "micro"


def changed(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the micro design with one change."""
    for source in MICRO.iterdir():
        if source.is_file():
            text = source.read_text()
            assert source.name != file or old in text
            (folder / source.name).write_text(text.replace(old, new) if source.name == file else text)
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "model.py",
            "nn.Linear(2, 2)",
            "nn.Linear(3, 2)",
            r"/design.yaml:2: model model.py:Net must take an input of shape 1x3x3, but",
        ),
        (
            "model.py",
            "return self.classify(",
            "return x, self.classify(",
            r"/design.yaml:2: model model.py:Net must give one score a class.* not tuple",
        ),
        ("model.py", "return self.classify(", "return self.conv(x) if 1 else (", r"not \(2, 2, 1, 1\)"),
        (
            "model.py",
            "[:, 0, 0].sum(1)).long()",
            "[:, 0, 0].sum(1)).long() * 7",
            r"/design.yaml:3: train labels of model.py:data must lie in 0..1, since .*:Net gives 2 scores, not in 0..7",
        ),
        (
            "model.py",
            ".float()",
            ".byte()",
            r"/design.yaml:3: train data of model.py:data must be float32, not uint8: use .float\(\)",
        ),
        ("model.py", "torch.relu(", "torch.erf(", r"erf .*use qfx.nn.Table\(torch.erf\)\(x\) instead"),
        ("design.yaml", "[3, 3, 1]", "[3, 3, 2]", r"/design.yaml:3: train data must have shape \(N, 2, 3, 3\), "),
        (
            "design.yaml",
            "model.py:Net",
            "nope.py:Net",
            r"/design.yaml:2: model must name a file .* /.*nope.py is missing$",
        ),
        (
            "design.yaml",
            "model.py:Net",
            "model.py:Nope",
            r"/design.yaml:2: model must name something in model.py, which has Net, data, not 'Nope'$",
        ),
        (
            "design.yaml",
            "board:",
            "augment: model.py:jitter\nboard:",
            r"/design.yaml:5: augment must name something in model.py, which has Net, data, not 'jitter'$",
        ),
        (
            "design.yaml",
            "board:",
            "augment: model.py:__name__\nboard:",
            r"/design.yaml:5: augment must name a function, not model.py:__name__, a str$",
        ),
        (
            "design.yaml",
            "float: {epochs: 2, lr: 0.02}",
            "float: {checkpoint: model.py}",
            r"/design.yaml:10: /.*/model.py must be a checkpoint of tensors alone",
        ),
        (
            "design.yaml",
            "board: ultra96v2",
            "board: no.yaml",
            r"/design.yaml:5: .*/no.yaml must exist, but there is no ",
        ),
        (
            "model.py",
            "def data() -> Data:\n",
            "def data() -> Data:\n    raise SystemExit('no data here')\n",
            r"/model.py:\d+: data model.py:data must work when called without arguments, but SystemExit: no data here$",
        ),
        (
            "model.py",
            "def data() -> Data:\n",
            "def data() -> Data:\n    import sys; sys.exit()\n",
            r"/model.py:\d+: data model.py:data must work when called without arguments, but SystemExit$",
        ),
        (
            "model.py",
            "def data() -> Data:\n",
            "def data() -> Data:\n    return open('/nowhere')\n",
            r"/model.py:\d+: data model.py:data must .*, but FileNotFoundError: .*/nowhere'$",
        ),
        (
            "model.py",
            "def data() -> Data:\n",
            "def data() -> Data:\n    return {}\n",
            r"/design.yaml:3: data model.py:data must return a qfx.train.Data, not dict$",
        ),
        (
            "model.py",
            "def data() -> Data:\n",
            "raise SystemExit\ndef data() -> Data:\n",
            r"/model.py:\d+: the design's Python must load, but SystemExit$",
        ),
        (
            "model.py",
            "super().__init__()",
            "super().__init__(); self.scale = 1 / 0",
            r"/model.py:\d+: model model.py:Net must work .*, but ZeroDivisionError: division by zero$",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, file, old, new, said) -> None:
    with pytest.raises(QfxError, match=said):
        steps.train(changed(tmp_path, file, old, new))
    assert not (tmp_path / "build").exists()


def test_data_off_the_grid_of_the_input_is_a_warning(tmp_path) -> None:
    result = steps.train(changed(tmp_path, "model.py", ".float()\n", ".float() / 3\n"))
    assert any("should be values of input.format" in w and "are not, and are rounded" in w for w in result.warnings)


def test_a_format_that_the_weights_of_a_checkpoint_do_not_fit_is_refused_before_training(tmp_path) -> None:
    old = "float: {epochs: 2, lr: 0.02}"
    folder = changed(tmp_path, "design.yaml", old, "float: {checkpoint: net.th}")
    text = (folder / "design.yaml").read_text()
    given = "default: {weight: 3, activation: 3}"
    assert given in text
    design = Design.load(folder)
    torch.save(runs.float_model(design).state_dict(), folder / "net.th")
    assert preflight(design, runs.load_data(design)) == []
    (folder / "design.yaml").write_text(text.replace(given, f"{given}\n  layers: {{conv: {{weight: s3.18}}}}"))
    design = Design.load(folder)
    with pytest.raises(
        QfxError, match=r"design.yaml:\d+: quantizer 'conv.weight_quant' must hold the values that reach"
    ):
        preflight(design, runs.load_data(design))


def test_an_unknown_board_is_refused_before_training(tmp_path) -> None:
    text = (MICRO / "design.yaml").read_text()
    board = next(line for line in text.splitlines() if line.startswith("board:"))
    with pytest.raises(
        QfxError, match=r"/design.yaml:5: board must be one of ultra96v2 or the path of a .yaml file, not 'ultra97'"
    ):
        steps.train(changed(tmp_path, "design.yaml", board, "board: ultra97"))


DEFAULTS = "default: {weight: 3, activation: 3}"


@pytest.mark.parametrize(
    ("given", "point", "stated"),
    [
        ("{weight: 4, activation: 3}", "weight", 4),
        ("{weight: 3, activation: u4.2}", "activation", 4),
        ("{activation: {width: 8, frac: 2}}", "activation", 8),
    ],
)
def test_a_default_of_another_width_than_the_first_of_widths_is_refused(tmp_path, given, point, stated) -> None:
    with pytest.raises(RecipeError) as caught:
        steps.train(changed(tmp_path, "design.yaml", DEFAULTS, f"default: {given}"))
    assert str(caught.value) == (
        f"{tmp_path}/design.yaml:8: recipe key 'default.{point}' must have the first width of training.widths, 3, "
        f"not {stated}: begin widths with {stated}, or state the width in layers, at '*', where it holds in every run"
    )


@pytest.mark.parametrize(
    ("recipe", "width", "weight", "activation"),
    [
        (DEFAULTS, 3, "s3", "3"),
        (DEFAULTS, 2, "s2", "2"),
        ("default: {}", 3, "s3", "3"),
        ("default: {activation: u3.1}", 3, "s3", "u3.1"),
        ("default: {activation: u3.1}", 2, "s2", "2"),
        ("default: {weight: {}, activation: {frac: 1, signed: false}}", 3, "s3", "u3.1"),
        ("default: {activation: {frac: 1, signed: false}}", 2, "s2", "u2.1"),
        ('layers: {"*": {activation: 8}}', 3, "s3", "8"),
        ('layers: {"*": {activation: 8}}', 2, "s2", "8"),
    ],
)
def test_a_run_has_the_width_that_it_is_called_by(tmp_path, recipe, width, weight, activation) -> None:
    design = Design.load(changed(tmp_path, "design.yaml", DEFAULTS, recipe))
    found = quantizers(runs.fixed_model(design, runs.float_model(design), width))
    specs = [found[f"classify.{name}_quant"].spec for name in ("weight", "input")]
    assert f"s{specs[0].width}" == weight
    sign = "" if specs[1].frac is None else f"u{specs[1].width}.{specs[1].frac}"
    assert (sign or str(specs[1].width)) == activation


def test_a_batch_larger_than_the_training_set_is_a_warning(tmp_path) -> None:
    result = steps.train(changed(tmp_path, "design.yaml", "batch: 16", "batch: 65"))
    said = "training.batch should be at most the 64 training inputs, not 65: each step takes all of them"
    assert said in result.warnings


@pytest.mark.parametrize(("k", "signed", "most"), [(1, "false", 0), (2, "false", 2), (1, "true", 0), (2, "true", 2)])
def test_digits_that_leave_nothing_out_are_a_warning(tmp_path, k: int, signed: str, most: int) -> None:
    weight = f"{{width: 3, digits: {{k: {k}, signed: {signed}}}}}"
    design = Design.load(changed(tmp_path, "design.yaml", "weight: 3", f"weight: {weight}"))
    warnings = [w for w in preflight(design, runs.load_data(design)) if "digits" in w]
    said = (
        f"digits of conv.weight_quant should leave out some codes of 3 bits, but none has more than {most} digits: "
        f"state k below {most}, or leave digits out"
    )
    assert (warnings[:1] == [said]) if most else not warnings
