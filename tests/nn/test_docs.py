"""The code on docs/training.md runs, from top to bottom, and its tables are complete."""

import re
from pathlib import Path

import torch

from qfx.nn import moves
from qfx.nn.recipe import POINTS
from qfx.nn.trace import FIXED_LAYERS

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def test_the_code_on_the_page_runs() -> None:
    torch.manual_seed(0)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert (
        len(blocks) >= 5 and names["scores"].shape == (64, 10) and names["moved"].keys() <= moves(names["model"]).keys()
    )


def test_every_point_and_every_layer_is_on_the_page() -> None:
    assert all(f"| `{point}` |" in PAGE for point in POINTS)
    assert all(f"`{layer.__name__}`" in PAGE for layer in FIXED_LAYERS if layer.__name__ != "Quantizer")
