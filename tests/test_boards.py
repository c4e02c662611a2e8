"""Boards load from their files, and a wrong file is refused with line and key."""

import re
from pathlib import Path

import pytest

from qfx import boards, resources
from qfx.boards import Board, Proof
from qfx.errors import DesignError

ULTRA96 = resources.path("boards") / "ultra96v2.yaml"


def test_ultra96_has_the_budget_of_a_zu3eg():
    board = Board.load("ultra96v2")
    budget = board.budget
    assert (budget.lut, budget.ff, budget.bram36, budget.dsp, budget.uram) == (70_560, 141_120, 216, 360, 0)
    assert board.part == "xczu3eg-sbva484-1-i" and board.clocks_mhz == (250.0, 200.0) and board.clock_mhz == 250.0
    assert board.proved is Proof.SIMULATION


@pytest.mark.parametrize("name", boards.names())
def test_every_shipped_board_loads(name):
    assert Board.load(name).name == name


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("lut:", "luts:", "budget.luts must be one of the known keys (lut, ff, bram36, uram, dsp), not 'luts'"),
        ("dsp: 360", "dsp: -1", "budget.dsp must be greater than or equal to 0, not -1"),
        ("[250.0, 200.0]", "[200, 250]", "clocks_mhz must be different clocks, the fastest first, not [200, 250]"),
        ("-1-i #", " #", "part must be a part as Vivado names it, with package and speed, such as xczu3eg-sbva484-1-i"),
        ("family: xcup", "family: ice40", "family must be 'xcup', 'xcu' or 'xc7', not 'ice40'"),
        (
            "name: u",
            "name: U",
            "name must start with a small letter and have small letters, digits and underscores only",
        ),
        ("[250.0, 200.0]", "[]", "clocks_mhz must have at least 1 item, not []"),
        ("[250.0, 200.0]", "[1001]", "clocks_mhz.0 must be less than or equal to 1000, not 1001"),
        ("[250.0, 200.0]", "fast", "clocks_mhz must be a list, not 'fast'"),
        ("simulation only", "works", "proved must be 'simulation only', 'vendor synthesis' or 'on the board', not"),
    ],
)
def test_a_wrong_board_file_is_refused_with_line_and_key(tmp_path, old, new, complaint):
    text = ULTRA96.read_text(encoding="utf-8")
    line = text[: text.index(old)].count("\n") + 1
    path = tmp_path / "ultra96v2.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DesignError, match=re.escape(complaint)) as caught:
        Board.load(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_an_unknown_board_is_refused_with_those_that_exist():
    with pytest.raises(
        DesignError, match=r"board must be one of .*ultra96v2.* or the path of a \.yaml file, not 'u96'"
    ):
        Board.load("u96")


def test_a_board_is_named_like_its_file(tmp_path):
    path = Path(tmp_path / "mine.yaml")
    path.write_text(ULTRA96.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DesignError, match="name must be that of the file, 'mine', not 'ultra96v2'"):
        Board.load(path)
