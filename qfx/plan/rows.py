"""How many rows the ring of a window needs, so that it never waits for its own releases."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

from qfx.errors import PlanError
from qfx.plan.events import Series, Wire, solve
from qfx.plan.timing import Window


@lru_cache(maxsize=4096)
def enough_rows(window: Window) -> Window:
    """Return the window with as many rows in its ring as it takes not to wait for its own releases.

    The least is what window and stride span. More are needed where padding does not make up for the kernel's reach at
    the end of a frame, or where a row of the image is shorter than the part's own latency.
    """
    for rows in range(window.rows, window.rows + 2 * window.size[0] + 16):
        wider = replace(window, rows=rows)
        if _alone(wider) == {window.cycles}:
            return wider
    raise PlanError(f"no number of ring rows reaches {window.cycles} cycles a frame in {window}")


def _alone(window: Window) -> set[int]:
    """The cycles between settled frames of a window whose neighbours never make it wait; they may come in a pattern."""
    settled = 4 + window.rows // window.size[0]
    frames = 2 * settled
    image = Wire(Series(window.size[0] * window.size[1] * window.pixel_words, frames))
    dilation = [Wire(Series(len(window.needs), frames))] * window.square
    out = window.link(image, *dilation)
    solve([wire.series for wire in (image, *dilation, out)])
    return {int(later - earlier) for earlier, later in pairwise(out.ends[settled:])}
