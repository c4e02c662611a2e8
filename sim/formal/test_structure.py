"""Rule 5 of the stream contract for every part that computes: no combinational path crosses it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qfx import resources
from qfx_sim import structure

PARTS = ("qfx_conv", "qfx_depthwise", "qfx_deform", "qfx_pool", "qfx_upsample", "qfx_affine", "qfx_requant",
         "qfx_clamp", "qfx_lookup", "qfx_add", "qfx_multiply", "qfx_reduce", "qfx_ring")  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_no_path_crosses_the_part(part, tmp_path: Path):
    # What a ROM holds does not matter here, but its file must be there.
    rom = tmp_path / "zeros.mem"
    rom.write_text("0\n")
    code = (resources.path("rtl") / f"{part}.sv").read_text()
    files = re.findall(r"parameter string\s+(\w*File)\b", code)
    assert structure.stream_paths(part, parameters=dict.fromkeys(files, rom.name), data=[rom]) == []
