"""The README table of hls/ names every kernel, driver and op."""

import re
from pathlib import Path

import pytest

from qfx import resources
from qfx.graph.ops import OPS

README = (resources.path("hls") / "README.md").read_text()
HEADERS = sorted((resources.path("hls") / "include" / "qfx").glob("*.hpp"))


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_every_kernel_and_driver_stands_in_the_readme(header: Path) -> None:
    """A kernel is a struct with a config; a driver is a function that takes streams."""
    text = header.read_text()
    kernels = re.findall(r"struct (\w+) \{\n    typedef CONFIG_T config;", text)
    drivers = re.findall(r"\bvoid (\w+)\(hls::stream", text) if header.name != "csim.hpp" else []
    assert f"`{header.name}`" in README
    for name in {*kernels, *drivers}:
        assert f"`qfx::{name}`" in README or f"`{name}`" in README, name


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_op_stands_in_the_readme(op: str) -> None:
    """An op without a row has no kernel, or an undocumented one."""
    assert re.search(rf"^\| {op}\b", README, re.MULTILINE)
