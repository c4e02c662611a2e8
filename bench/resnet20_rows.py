"""The recipes of the accuracy rows of designs/resnet20, by name."""

from typing import Any

import yaml

from qfx.design import Design


def recipes() -> dict[str, dict[str, Any]]:
    """Return the recipe of each row by its name."""
    design = Design.load("resnet20")
    row_a, row_b = design.content.recipe, yaml.safe_load((design.folder / "row_b.yaml").read_text())
    found: dict[str, dict[str, Any]] = {"A": row_a, "B": row_b}
    for width in (8, 6, 5, 3):
        found[f"W{width}A{width}"] = {**row_a, "default": {"weight": width, "activation": width}}
    for name, k, signed in (("1-hot", 1, False), ("2-hot", 2, False), ("3-hot", 3, False), ("2-hot signed", 2, True)):
        weight = {"width": 8, "digits": {"k": k, "signed": signed}}
        found[name] = {"default": {"weight": weight, "activation": 8}}
    return found
