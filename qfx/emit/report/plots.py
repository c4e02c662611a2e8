"""The pictures of the report, as SVG text to stand in the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, LINE = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, PALE, ORANGE, RED, GREEN = "#2563eb", "#a9c4f5", "#ea8c1c", "#d64545", "#2f9e62"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "grid.color": LINE,
    "svg.hashsalt": "qfx",
}
_WIDTH = 8.6  # inches
_ROW = 0.26


def _draw(rows: int, name: str, draw: Any, extra: float = 0.7, panels: int = 1) -> Markup:
    """Let ``draw`` fill an axis, or several of one height, with room for ``rows`` rows, and return the picture."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, rows * _ROW + extra), layout="constrained")
        draw(*figure.subplots(1, panels, sharey=True, squeeze=False)[0])
        return _svg(figure, name)


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an SVG element that scales with the page; its ids are made unique to it."""
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r'<svg \1\2role="img"', text, count=1)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"', r'<svg \1\2role="img"', text, count=1)
    return Markup(text)  # our own drawing; the names in it were escaped by matplotlib


def _names(axis: Axes, names: Sequence[str]) -> None:
    """Put one name beside each row, the first on top."""
    axis.set_yticks(range(len(names)), [_clip(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)


def _clip(name: str, longest: int = 44) -> str:
    text = name if len(name) <= longest else f"…{name[1 - longest :]}"
    return text.replace("$", r"\$")


def accuracy(rows: Sequence[Mapping[str, Any]], minimum: float | None) -> Markup:
    """Bars of test accuracy, one for each stage, on an axis that starts near the worst."""

    def draw(axis: Axes) -> None:
        values = [row["value"] for row in rows]
        low = max(0.0, min([*values, *([minimum] if minimum else [])]) - 2)
        low = low - low % 2
        for place, row in enumerate(rows):
            colour = GREY if row["stage"] == "float" else BLUE if "trained" in row["stage"] else PALE
            axis.barh(place, row["value"] - low, left=low, height=0.62, color=colour)
            axis.text(row["value"], place, f"  {row['value']:.2f}", va="center", ha="left")
        if minimum is not None:
            axis.axvline(minimum, color=RED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
            axis.text(minimum, -0.75, f"target {minimum:g}", color=RED, ha="center", va="bottom", fontsize=8)
        _names(axis, [row["stage"] for row in rows])
        axis.set_xlim(low, 100 + (100 - low) * 0.06)
        axis.set_xlabel(f"test accuracy, %  (the axis starts at {low:g})")
        axis.grid(axis="x")

    return _draw(len(rows), "accuracy", draw, 0.9)


def front(rows: Sequence[Mapping[str, Any]], resources: Sequence[str]) -> Markup:
    """Accuracy against each resource of which the networks take different amounts; hollow: off the front."""
    takes = {name: [row["counts"][number]["takes"] for row in rows] for number, name in enumerate(resources)}
    shown = {name: counts for name, counts in takes.items() if len(set(counts)) > 1} or takes

    def draw(*panels: Axes) -> None:
        for axis, (name, counts) in zip(panels, shown.items(), strict=True):
            on = sorted((x, row["accuracy"]) for x, row in zip(counts, rows, strict=True) if not row["dominated"])
            if len(shown) == 1:  # of several resources, none alone orders the front
                axis.plot(*zip(*on, strict=True), color=PALE, linewidth=1.4, zorder=1, drawstyle="steps-post")
            for number, (x, row) in enumerate(zip(counts, rows, strict=True)):
                edge = ORANGE if number == 0 else BLUE
                face, above = "white" if row["dominated"] else edge, 3 if number == 0 else 2
                axis.scatter([x], [row["accuracy"]], s=34, facecolor=face, edgecolor=edge, zorder=above)
            axis.set_xlabel(f"{name} of the plan")
            axis.locator_params(axis="x", integer=True, nbins=max(6 // len(shown), 2))
            axis.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
            axis.margins(x=0.14, y=0.16)
            axis.grid()
        panels[0].set_ylabel("test accuracy, %", color=GREY)
        _legend(panels[-1], {"this build": ORANGE, "the other budgets (hollow: off the front)": BLUE})
        panels[0].figure.draw_without_rendering()  # a label's place depends on its size, which is known from here on
        for axis, counts in zip(panels, shown.values(), strict=True):
            _label(axis, [(x, row["accuracy"], row["name"]) for x, row in zip(counts, rows, strict=True)])

    return _draw(9, "front", draw, 0.7, len(shown))


def _label(axis: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's name beside it, where nothing else stands and there is room; those of one point together."""
    from matplotlib.transforms import Bbox

    names: dict[tuple[float, float], list[str]] = {}
    for x, y, name in points:
        names.setdefault((x, y), []).append(name)
    reach = 4 * axis.figure.dpi / 72
    taken = [Bbox([place - reach, place + reach]) for place in axis.transData.transform([*names])]
    for place, of in names.items():
        for side, row in product((1, -1), (1, -1)):
            label = axis.annotate(", ".join(of), place, (6 * side, 4 * row), textcoords="offset points", fontsize=8)
            label.set(ha="left" if side > 0 else "right", va="bottom" if row > 0 else "top")
            box = label.get_window_extent()
            fits = axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1 and not box.count_overlaps(taken)
            if fits or (side, row) == (-1, -1):
                break
            label.remove()
        taken.append(box)


def cycles(nodes: Mapping[str, int]) -> Markup:
    """Bars of cycles a frame for each node that takes any."""
    most = max(nodes.values(), default=1)

    def draw(axis: Axes) -> None:
        for place, count in enumerate(nodes.values()):
            axis.barh(place, count, height=0.62, color=ORANGE if count == most else PALE)
            axis.text(count, place, f"  {count:,}", va="center", fontsize=8)
        _names(axis, list(nodes))
        axis.set_xlim(0, most * 1.12)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("cycles a frame; the slowest node sets the rate")
        axis.grid(axis="x")

    return _draw(max(len(nodes), 1), "cycles", draw)


def formats(nodes: Sequence[Mapping[str, Any]]) -> Markup:
    """Each tensor's bits as a bar around the binary point, and its constants' beside it."""
    rows = [(node["name"], node["op"], _spans(node)) for node in nodes]

    def draw(axis: Axes) -> None:
        for place, (_, _, spans) in enumerate(rows):
            for number, (kind, width, low, high) in enumerate(spans):
                colour = BLUE if kind == "tensor" else ORANGE
                tall = 0.3 if len(spans) > 1 else 0.5
                y = place + (0.34 * number - 0.17 if len(spans) > 1 else 0)
                axis.barh(y, high - low + width, left=low - width, height=tall, color=colour, alpha=0.35, linewidth=0)
                common = max(low - high + width, 0)  # bits that all channels have
                axis.barh(y, common, left=high - width, height=tall, color=colour, linewidth=0)
        axis.axvline(0, color=INK, linewidth=1.2)
        _names(axis, [name for name, _, _ in rows])
        axis.set_xlabel(
            "left of the line: bits before the binary point; right: behind it (pale: only in some channels)"
        )
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.xaxis.set_major_formatter(lambda value, position: f"{abs(value):g}")
        axis.grid(axis="x")
        _legend(axis, {"tensor": BLUE, "weights": ORANGE})

    return _draw(max(len(rows), 1), "formats", draw, 1.0)


def _spans(node: Mapping[str, Any]) -> list[tuple[str, int, int, int]]:
    """Kind, width, smallest and largest frac of a node's result and of its first constant."""
    entries = [("tensor", node["width"], node["fracs"])]
    entries += [("constant", constant["width"], constant["fracs"]) for constant in node["constants"][:1]]
    return [(kind, width, low, high) for kind, width, (low, high) in entries]


def moves(found: Mapping[str, Mapping[str, Sequence[int]]]) -> Markup:
    """A line from the first to the learned binary point of each quantizer; one that stands still is grey."""

    def draw(axis: Axes) -> None:
        for place, move in enumerate(found.values()):
            pairs = sorted(set(zip(move["before"], move["now"], strict=True)))
            for before, now in pairs:
                colour = GREY if before == now else BLUE
                axis.plot([before, now], [place, place], color=colour, linewidth=1.6, alpha=0.7, zorder=1)
            still = sorted({now for before, now in pairs if before == now})
            starts = sorted({before for before, now in pairs if before != now})
            ends = sorted({now for before, now in pairs if before != now})
            axis.scatter(still, [place] * len(still), s=18, color=GREY, zorder=2)
            axis.scatter(starts, [place] * len(starts), s=26, facecolor="white", edgecolor=BLUE, zorder=3)
            axis.scatter(ends, [place] * len(ends), s=26, color=BLUE, zorder=4)
        _names(axis, list(found))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel(
            "frac: bits behind the binary point. Grey: where it was calibrated; hollow to full: moved in training"
        )
        axis.grid(axis="x")

    return _draw(max(len(found), 1), "moves", draw)


def resources(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Counted and estimated use of each resource as a share of the board."""

    def draw(axis: Axes) -> None:
        for place, row in enumerate(rows):
            axis.barh(place, 100, height=0.7, color="#f1f3f5")
            estimate = _share(row["estimate"], row["budget"])
            counted = None if row["counted"] is None else _share(row["counted"], row["budget"])
            if counted is not None:
                axis.barh(place - 0.14, counted, height=0.34, color=RED if counted > 100 else BLUE)
            axis.barh(place + 0.2, estimate, height=0.22, color=PALE)
            shown = estimate if counted is None else counted
            axis.text(max(shown, estimate, 0) + 1, place, f"{shown:.1f} %", va="center", fontsize=8)
        _names(axis, [row["name"] for row in rows])
        axis.set_xlim(0, 108)
        axis.set_xlabel("% of the board")
        axis.grid(axis="x")
        known = {"counted by yosys": BLUE} if rows[0]["counted"] is not None else {}
        _legend(axis, {**known, "the plan's estimate": PALE})

    return _draw(len(rows), "resources", draw, 1.1)


def _share(count: float, limit: float) -> float:
    return 100 * count / limit if limit else 0.0


def _legend(axis: Axes, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=label) for label, colour in colours.items()]
    axis.figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False, fontsize=8)
