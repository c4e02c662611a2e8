"""check: what blocks a network, all of it at once, and the facts of one that nothing blocks."""

import json
import re
from pathlib import Path

import pytest
from torch import Tensor, nn

from qfx import cli
from qfx.check import check
from qfx.errors import DesignError


class Small(nn.Module):
    """A network that fits anything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.pool(self.conv(x).relu()).flatten(1))


class Signal(nn.Sequential):
    """A network of signals."""

    def __init__(self) -> None:
        layers = nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(16, 3)
        super().__init__(*layers)


class Blocked(nn.Module):
    """A network with three things that have no fixed-point form."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.LPPool2d(2, 2)
        self.norm = nn.GroupNorm(1, 2)
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.up(self.conv(x))).log_softmax(1)


class Huge(nn.Module):
    """A network of which nothing fits into memory."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(1 << 24, 1 << 26)


class Needy(nn.Module):
    """A network that asks for an argument."""

    def __init__(self, channels: int) -> None:
        super().__init__()


HERE = Path(__file__)
ME = str(HERE)


def test_a_network_that_fits_has_formats_work_and_rate() -> None:
    found = check(f"{ME}:Small", "2x4x4", input_format="u4.0")
    assert found.ok and found.problems == () and found.graph and found.plan
    nodes = {node["name"]: node for node in found.graph["nodes"]}
    assert nodes["conv"]["shape"] == [4, 4, 4] and nodes["conv"]["macs"] == 16 * 9 * 2 * 4
    assert nodes["classify"]["macs"] == 48 and found.graph["macs"] == 1152 + 48
    assert found.graph["parameters"] == 72 + 4 + 48 + 3
    assert found.input == "2x4x4 u4.0" and found.plan["frames_per_second"] == 250e6 / found.plan["interval"]


def test_a_network_of_signals_is_checked_in_channels_and_length() -> None:
    found = check(f"{ME}:Signal", "2x8", input_format="s4.0")
    assert found.ok and found.graph and found.input == "2x8 s4.0"
    nodes = {node["name"]: node for node in found.graph["nodes"]}
    assert nodes["0"]["shape"] == [1, 8, 4] and found.graph["macs"] >= 8 * 3 * 2 * 4 + 48
    turned = check(f"{ME}:Signal", "8x2", input_format="s4.0")
    assert turned.problems[0].startswith("the network must take an input of shape 8x2, but torch says:")


def test_everything_that_blocks_a_network_is_said_at_once() -> None:
    found = check(f"{ME}:Blocked", "2x4x4")
    assert not found.ok and found.graph is None and found.plan is None
    assert [problem.split(" ")[0] for problem in found.problems] == ["up", "norm", "log_softmax"]
    assert "no fixed-point form" in found.problems[0] and "use nn.BatchNorm2d instead" in found.problems[1]


def test_a_network_that_is_too_slow_is_blocked_with_node_and_cycles() -> None:
    found = check(f"{ME}:Small", "2x4x4", cycles=2)
    assert not found.ok and found.graph and "must take at most 2 cycles a frame" in found.problems[0]


def test_a_single_cycle_is_said_as_one() -> None:
    found = check(f"{ME}:Small", "2x4x4", cycles=1)
    assert "must take at most 1 cycle a frame" in found.problems[0]


@pytest.mark.parametrize(("network", "shape"), [("Huge", "2x4x4"), ("Small", "2x9000000x9000000")])
def test_a_network_for_which_memory_is_short_is_said_in_own_words(network: str, shape: str) -> None:
    with pytest.raises(DesignError, match=rf"^memory must hold {network} and an input of {shape}, but is short: "):
        check(f"{ME}:{network}", shape)


def test_a_network_that_does_not_fit_names_the_resource(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from qfx import resources

    text = (resources.path("boards") / "ultra96v2.yaml").read_text(encoding="utf-8")
    small = text.replace("ultra96v2", "tiny").replace("lut: 70560", "lut: 7")
    assert small != text.replace("ultra96v2", "tiny")
    (tmp_path / "tiny.yaml").write_text(small, encoding="utf-8")
    found = check(f"{ME}:Small", "2x4x4", str(tmp_path / "tiny.yaml"))
    assert not found.ok and found.plan and found.graph
    assert re.search(
        r"must fit tiny, but needs [\d,]+ of 7 LUT \(node '\w+': [\d,]+\).*fewer channels", found.problems[0]
    )
    assert "target" not in found.problems[0]
    assert cli.run(["check", f"{ME}:Small", "--input", "2x4x4", "--board", str(tmp_path / "tiny.yaml")]) == 1
    said = capsys.readouterr().out
    assert "share" in said and " 7 " in said and "cycles a frame:" in said and said.count("blocked: ") == 1


def test_an_input_of_the_wrong_shape_is_said_in_a_sentence() -> None:
    found = check(f"{ME}:Small", "3x4x4")
    assert not found.ok and found.problems[0].startswith(
        "the network must take an input of shape 3x4x4, but torch says:"
    )


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("Small", "a network must be named as pkg.mod:Net or path/model.py:Net, not 'Small'"),
        ("nowhere.py:Net", "nowhere.py must exist, but there is no such file"),
        (f"{ME}:Big", f"{ME} must have 'Big', but has Blocked, Huge, Needy, Signal, Small"),
        (f"{ME}:Needy", "must make a network when called without arguments, but TypeError"),
        (f"{ME}:HERE", "must make a network when called without arguments, but TypeError"),
    ],
)
def test_a_network_that_is_not_there_is_refused_in_a_sentence(network: str, said: str) -> None:
    with pytest.raises(DesignError) as caught:
        check(network, "2x4x4")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: {wight: 4}\n", ":1: recipe key 'default.wight' must be one of input, weight, "),
        ("default:\n  weight: 4\n  activation: {width: four}\n", ":3: recipe key 'default.activation.width' must be "),
        ("defaults: {}\n", ":1: recipe key 'defaults' must be one of default, layers"),
        ("default:\n- 4\n", ":1: recipe key 'default' must be a mapping, not [4]"),
        (
            "default:\n  weight: {frac: few}\n",
            ":2: recipe key 'default.weight.frac' must be learn or an integer",
        ),
        ("layers:\n  conv:\n    weight: 99\n", ":3: "),
        ("layers:\n  co.*.nv:\n    weight: {width: 4}\n", ":2: recipe pattern 'layers.co.*.nv' must match a layer of"),
        (
            "layers:\n  co*:\n    weight: 4\n    constant: 4\n",
            ":4: recipe key 'layers.co*.constant' must match a",
        ),
        ("layers:\n  pool:\n    fold: true\n", ":3: recipe key 'layers.pool.fold' must match a"),
        (
            "layers:\n  classifi:\n    weight: 4\n",
            ":2: recipe pattern 'layers.classifi' must match a layer of the model that has quantization points, but "
            "matches none; the nearest is 'classify'",
        ),
        (
            "default: {weight: 4.5}\n",
            ":1: recipe key 'default.weight' must be a width, a format such as 's8.3', or a mapping, not 4.5",
        ),
        ("", ":1: the file must be a mapping of keys to values, but is empty"),
        ("default: {weight: 4, weight: 5}\n", ":1: default.weight must stand once, not twice"),
    ],
)
def test_a_wrong_recipe_file_is_refused_with_line_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert cli.run(["check", f"{ME}:Small", "--input", "2x4x4", "--recipe", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {file}{said}")


def test_the_command_prints_tables_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", f"{ME}:Small", "--input", "2x4x4"]) == 0
    said = capsys.readouterr().out
    assert "fits ultra96v2" in said and "frames/s at 250 MHz" in said and "classify" in said
    assert cli.run(["check", f"{ME}:Blocked", "--input", "2x4x4", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and len(found["problems"]) == 3


def test_the_help_says_what_formats_and_recipes_look_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["check", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("u8.0 is unsigned, 8 bits, 0 of them fractional; s8.7", "`default: {weight: 4,", "without arguments"):
        assert part in said


@pytest.mark.parametrize("package", [False, True])
def test_a_module_with_the_name_of_one_of_pythons_is_refused(tmp_path: Path, monkeypatch, package: bool) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ("code/net.py" if package else "code.py")
    file.parent.mkdir(exist_ok=True)
    file.write_text("from torch import nn\n\nNet = nn.Sequential(nn.Linear(4, 3))\n")
    name = "code.net" if package else "code"
    message = (
        f"{name} must not have the name of another module, 'code', which Python takes instead: rename it, or name the "
        f"file, {name.replace('.', '/')}.py:Net"
    )
    with pytest.raises(DesignError, match=f"^{re.escape(message)}$"):
        check(f"{name}:Net", "4")
    assert check(f"{file.relative_to(tmp_path)}:Net", "4").ok
