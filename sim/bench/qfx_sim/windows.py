"""The walk of a window part's bench case, in the planner's terms: the cycles it must take and the rows it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qfx.plan.rows import enough_rows
from qfx.plan.timing import Window
from qfx_sim.reference import Padding


def window(p: Mapping[str, Any], *, pixel_words: int, pixel_steps: int) -> Window:
    """Return the planner's window for RTL parameters ``p``, with enough rows.

    Dilation and repeats are 1 where there are none.
    ``pixel_words`` are the words of an image pixel, ``pixel_steps`` the steps of a result pixel.
    """
    stride = (p["StrideH"], p["StrideW"])
    reach = ((p["KernelH"] - 1) * p.get("DilationH", 1), (p["KernelW"] - 1) * p.get("DilationW", 1))
    top, bottom, left, right = padding(p)
    height, width = p["Height"], p["Width"]
    repeat = (p.get("RepeatH", 1), p.get("RepeatW", 1))
    out = (
        ((height + top + bottom - reach[0] - 1) // stride[0] + 1) * repeat[0],
        ((width + left + right - reach[1] - 1) // stride[1] + 1) * repeat[1],
    )
    rows = max(reach[0] + 1 + stride[0], 2)
    return enough_rows(
        Window((height, width), out, stride, (top, left), reach, rows, pixel_words, 1, pixel_steps, 1, repeat=repeat)
    )


def padding(p: Mapping[str, Any]) -> Padding:
    """Return the padding of RTL parameters ``p``: top, bottom, left, right."""
    return p["PadTop"], p["PadBottom"], p["PadLeft"], p["PadRight"]
