"""Graphs and plans as plain figures: what records, tables and reports say of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qfx.boards import Board
from qfx.fixed import Fixed
from qfx.graph import Graph, Node
from qfx.plan import Plan

RESOURCES = (("lut", "LUT"), ("ff", "FF"), ("bram18", "BRAM18"), ("dsp", "DSP"))
"""The budgeted resources: key in figures, name for people."""


def graph_facts(graph: Graph) -> dict[str, Any]:
    """What tables and reports say of a graph: its nodes, formats, and the work in it."""
    nodes = []
    for node in graph.nodes:
        weights = [graph.constants[name] for name in node.inputs if name in graph.constants]
        nodes.append(
            {
                "name": node.name,
                "op": type(node.op).__name__,
                "shape": list(node.type.shape),
                "format": _short(node.type.fixed),
                "width": node.type.fixed.width,
                "fracs": _fracs(node.type.fixed),
                "constants": [
                    {
                        "shape": list(c.codes.shape),
                        "format": _short(c.fixed),
                        "width": c.fixed.width,
                        "fracs": _fracs(c.fixed),
                        "digits": c.max_digits,
                    }
                    for c in weights
                ],
                "macs": _macs(graph, node),
            }
        )
    return {
        "nodes": nodes,
        "macs": sum(node["macs"] for node in nodes),
        "parameters": int(sum(constant.codes.size for constant in graph.constants.values())),
        "weight_bits": int(sum(c.codes.size * c.fixed.width for c in graph.constants.values())),
    }


def _fracs(fixed: Fixed) -> list[int]:
    """The smallest and the largest frac of any channel."""
    fracs = fixed.frac if isinstance(fixed.frac, tuple) else (fixed.frac,)
    return [min(fracs), max(fracs)]


def _short(fixed: Fixed) -> str:
    """A format in a few characters: many binary points as their range."""
    sign, (low, high) = "s" if fixed.signed else "u", _fracs(fixed)
    return f"{sign}{fixed.width}.{low}" if low == high else f"{sign}{fixed.width}.{low}..{high}"


def _macs(graph: Graph, node: Node) -> int:
    """Multiplications of one frame by constants, padding counted."""
    kind = type(node.op).__name__
    if kind not in ("Conv2d", "DeformConv2d", "Dense", "Affine"):
        return 0
    constant = next(graph.constants[name].codes for name in node.inputs if name in graph.constants)
    pixels = node.type.size // node.type.channels
    return int(pixels * constant.size)


def plan_facts(made: Plan, board: Board) -> dict[str, Any]:
    """What tables and reports say of a plan."""
    return {
        "board": {"name": board.name, "title": board.title, "part": board.part, "budget": budget_of(board)},
        "clock_mhz": made.clock_mhz,
        "interval": made.interval,
        "latency": made.latency,
        "frames_per_second": made.frames_per_second,
        "bottleneck": made.bottleneck,
        "resources": asdict(made.resources),
        "nodes": {
            name: {"unroll": dict(n.unroll), "arithmetic": n.arithmetic, "memory": n.memory, "cycles": n.cycles}
            for name, n in made.nodes.items()
        },
        "fifos": dict(made.depths),
    }


def budget_of(board: Board) -> dict[str, float]:
    """The board's resources under the names that figures use."""
    budget = board.budget
    return {"lut": budget.lut, "ff": budget.ff, "bram18": 2 * budget.bram36, "dsp": budget.dsp}
