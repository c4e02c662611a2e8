"""Cycles of the RTL parts that walk a window over a row ring: per frame, latency, and the rows that the ring needs."""

from dataclasses import dataclass
from itertools import pairwise

from qfx.errors import EmitError

AVAILABLE = 2  # cycles from the word that completes a pixel to the first step that may read it
RELEASED = 7  # cycles from the last step of an output row to the first word that may take a released row
WINDOW_LATENCY = 6  # cycles from a step's credit to its ring address (qfx_agu_window)
_SETTLED = 4  # frames, and those that the ring holds, after which a ring has settled; as many again are looked at

# Latencies of pipe parts, cycles
AFFINE_LATENCY = 6
CLAMP_LATENCY = 2
ADD_LATENCY = 1
REQUANT_LATENCY = {False: 3, True: 8}  # by PerChannel


def mac_latency(terms: int) -> int:
    """Cycles from the last step of a word (credit taken) to the output of qfx_conv, qfx_depthwise or qfx_deform.

    ``terms`` are the products of a lane and step: tap lanes times ci lanes; tap lanes in qfx_depthwise; 1 in deform.
    """
    return WINDOW_LATENCY + 6 + (terms - 1).bit_length()


def pool_latency(tap_lanes: int) -> int:
    """Cycles from the last step of a word (credit taken) to the output of qfx_maxpool or qfx_sumpool."""
    return WINDOW_LATENCY + 4 + (tap_lanes - 1).bit_length()


@dataclass(frozen=True, slots=True)
class Window:
    """The walk of a window over an image: what the parameters of qfx_agu_window fix.

    ``pixel_words`` are the ring words of a pixel (channel groups), ``pixel_steps`` the steps of an output pixel: words
    of the result times their serial taps and channel folds.
    """

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    pixel_words: int = 1
    pixel_steps: int = 1

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of the window, less 1."""
        return (self.kernel[0] - 1) * self.dilation[0], (self.kernel[1] - 1) * self.dilation[1]

    @property
    def out_height(self) -> int:
        """Rows of the result."""
        return (self.height + self.padding[0] + self.padding[1] - self.reach[0] - 1) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the result."""
        return (self.width + self.padding[2] + self.padding[3] - self.reach[1] - 1) // self.stride[1] + 1

    @property
    def compute_cycles(self) -> int:
        """Steps of a frame."""
        return self.out_height * self.out_width * self.pixel_steps

    @property
    def ingest_cycles(self) -> int:
        """Words of a frame."""
        return self.height * self.width * self.pixel_words

    @property
    def frame_cycles(self) -> int:
        """Cycles between frames in steady state, source always valid, sink always ready, rows and credits enough."""
        return max(self.compute_cycles, self.ingest_cycles)


def ring_rows(window: Window) -> int:
    """Return the fewest ring rows with which ``frame_cycles`` is reached exactly (parameter Rows).

    At least ``reach + 1 + stride``, which is enough but where padding does not make up for the kernel's reach, or a row
    of the image is shorter than the part's own latency.
    """
    least = max(window.reach[0] + 1 + window.stride[0], 2)
    for rows in range(least, least + 2 * window.height + 16):
        if set(_intervals(window, rows)) == {window.frame_cycles}:
            return rows
    raise EmitError(f"no number of ring rows reaches {window.frame_cycles} cycles a frame, in {window}")


def _intervals(window: Window, rows: int) -> list[int]:
    """Cycles between successive frames, once settled, by playing writer and reader of a ring of ``rows`` rows."""
    height, row_words = window.height, window.width * window.pixel_words
    written: list[int] = []  # cycle in which the first word of a row may come, by row since the start
    released: list[int] = []  # step that releases a row, likewise
    starts: list[int] = []
    cycle, settled = 0, _SETTLED + rows // height
    for frame in range(2 * settled):
        for out_row in range(window.out_height):
            top = out_row * window.stride[0] - window.padding[0]
            last = frame * height + min(max(top + window.reach[0], 0), height - 1)
            _write(written, released, last, rows, row_words)
            if out_row == 0:
                starts.append(max(cycle, _need(window, written[last], 0)))
            for out_col in range(window.out_width):
                cycle = max(cycle, _need(window, written[last], out_col)) + window.pixel_steps
            done = out_row == window.out_height - 1
            first = height if done else min(max(top + window.stride[0], 0), height)
            released.extend([cycle - 1] * (frame * height + first - len(released)))
    return [later - earlier for earlier, later in pairwise(starts[settled:])]


def _need(window: Window, row_start: int, out_col: int) -> int:
    """The first cycle in which the window of an output column is complete in its last row."""
    edge = min(max(out_col * window.stride[1] - window.padding[2] + window.reach[1] + 1, 1), window.width)
    return row_start + edge * window.pixel_words - 1 + AVAILABLE


def _write(written: list[int], released: list[int], last: int, rows: int, row_words: int) -> None:
    """Play the writer up to row ``last``."""
    while len(written) <= last:
        row = len(written)
        start = written[-1] + row_words if written else 0
        if row >= rows:
            start = max(start, released[row - rows] + RELEASED)
        written.append(start)
