"""The code on docs/brevitas.md runs, and its tables are complete."""

import re
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("brevitas", reason="the extra 'brevitas' is not installed")

import brevitas.nn as bnn

from qfx.interop import brevitas
from qfx.interop.brevitas.layers import LAYERS
from qfx.interop.brevitas.norms import NORMS

PAGE = (Path(__file__).parents[2] / "docs" / "brevitas.md").read_text(encoding="utf-8")


def test_the_code_on_the_page_runs() -> None:
    torch.manual_seed(0)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2 and names["scores"].shape == (16, 10)


def test_every_layer_and_every_quantizer_is_on_the_page() -> None:
    for layer in (*LAYERS, *NORMS):
        name = layer.__name__ if hasattr(bnn, layer.__name__) else f"nn.{layer.__name__}"
        assert f"`{name}`" in PAGE
    ours = [name for name in vars(brevitas) if name[0].isupper()]
    assert len(ours) == 4 and all(f"| `{name}` |" in PAGE for name in ours)


def test_brevitas_own_quant_cat_does_not_run() -> None:
    """What the page says of it; when this fails, translate it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = bnn.QuantCat()
    with pytest.raises(AttributeError, match="type object 'QuantTensor' has no attribute 'cat'"):
        layer([torch.ones(1, 1), torch.ones(1, 1)])
