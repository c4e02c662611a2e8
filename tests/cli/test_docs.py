"""The guides: docs/designs.md, of which everything is run; in all of them commands, files and names are real ones."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from qfx import steps
from qfx.cli import app
from qfx.design import Design, DesignFile
from qfx.errors import DesignError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "designs.md").read_text(encoding="utf-8")
FOLDERS = ("docs", "designs", "designs/*", "hls", "rtl", "sim", "boards", "qfx/graph", "qfx/templates/new")
PAGES = [ROOT / "README.md", *sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}/*.md"))]


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def keys(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        found.add(field.alias or name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= keys(kind)
    return found


def test_the_design_on_the_page_loads_and_names_every_key(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "design.yaml").write_text(text, encoding="utf-8")
    assert Design.load(tmp_path).content.training.widths == (4, 3, 2)
    assert [key for key in keys(DesignFile) if not re.search(rf"\b{key}:", text)] == []


def test_the_error_on_the_page_is_the_real_one(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "design.yaml").write_text(text.replace("cycles: 4096", "cycles: -5"), encoding="utf-8")
    with pytest.raises(DesignError) as caught:
        Design.load(tmp_path)
    assert f"`{str(caught.value).replace(f'{tmp_path}/', '')}`" in PAGE


def test_the_table_has_every_step_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE, flags=re.MULTILINE)
    assert [name for name, _ in rows] == [step.name for step in steps.STEPS]
    for name, takes in rows[1:-1]:
        assert tuple(takes.split(", ")) == next(step.needs for step in steps.STEPS if step.name == name)


def test_the_python_on_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "docs/designs.md", "exec"), {})
    accuracy, _, warnings = capsys.readouterr().out.strip().partition(" ")
    assert float(accuracy) >= 90 and warnings == "()"  # what `qfx new` makes reaches its target
    assert Path("small/build/lower/graph/graph.json").is_file()


def test_the_bench_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python", (ROOT / "sim" / "README.md").read_text(encoding="utf-8"))
    file = tmp_path / "test_of_the_guide.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.test_fifo_keeps_words_and_order(2)


def wrong_links(page: str, folder: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    return [link for link in re.findall(r"\]\(([^)#:]+)\)", page) if not (folder / link).exists()]


def wrong_names(page: str) -> list[str]:
    """The Python names of ours, with a module before them, that do not exist."""
    return [name for name in re.findall(r"`((?:qfx|qfx_sim)(?:\.\w+)+)", page) if not exists(name)]


def exists(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def wrong_commands(page: str) -> list[str]:
    """What stands as a command of ours in code, and is none."""
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    code = "\n".join([*re.findall(r"`([^`\n]+)`", page), *re.findall(r"^ {4}(\S.*)", page, flags=re.MULTILINE)])
    return [name for name in re.findall(r"(?:^|\s)qfx (\w+)", code, flags=re.MULTILINE) if name not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_names_and_commands_of_a_guide_are_real(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert (wrong_links(text, page.parent), wrong_names(text), wrong_commands(text)) == ([], [], [])


def test_a_planted_link_name_and_command_are_found() -> None:
    page = (
        "[a](nowhere.md) `qfx.no_such.thing(1)` `qfx.exact` `qfx bild DESIGN`\n\n    qfx trian x  # no\n    qfx plan\n"
    )
    assert wrong_links(page, ROOT) == ["nowhere.md"]
    assert wrong_names(page) == ["qfx.no_such.thing"]
    assert wrong_commands(page) == ["bild", "trian"]


def test_every_suite_has_a_row_in_the_budget() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\btests/(\w+)", page.partition("## Budget")[2].partition("What keeps")[0]))
    suites = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert named - {"test_"} == suites
