"""docs/designs.md: its design.yaml loads and names every key, its Python runs, its table has every step."""

import re
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from qfx import steps
from qfx.design import Design, DesignFile, create
from qfx.errors import DesignError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "designs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


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


def test_the_python_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("build").mkdir()
    mine = create(Path("build/mine"))
    text = (mine / "design.yaml").read_text()
    (mine / "design.yaml").write_text(re.sub(r"epochs: \d+", "epochs: 1", text))
    for code in blocks("python"):
        exec(compile(code, "docs/designs.md", "exec"), {})
    assert (mine / "build" / "lower" / "graph" / "graph.json").is_file()
    shutil.rmtree(mine)
