"""The networks of a front, one for each hardware budget: what each was asked for, takes and reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qfx.design import Design
from qfx.steps.facts import RESOURCES


def front_facts(design: Design, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What tables and reports say of a front, given what each network reached, by the name of its run."""
    entries = [each.content.training.budget for each in design.along_front]
    named = {name for entry in entries if entry for name in entry.counts}
    resources = [name for name, _ in RESOURCES if name in named]
    networks = [
        {"name": name, **{key: run[key] for key in ("quantized", "accuracy", "budget")}} for name, run in found.items()
    ]
    better = dominated([_merits(network, resources) for network in networks])
    names = list(found)
    return {
        "resources": resources,
        "networks": [
            {**network, "dominated": [names[number] for number in by]}
            for network, by in zip(networks, better, strict=True)
        ],
    }


def front_lines(front: Mapping[str, Any]) -> list[str]:
    """A line for each network: what it reaches and takes, which others dominate it, and that the first one goes on."""
    units = [(key, name) for key, name in RESOURCES if key in front["resources"]]
    rows = []
    for network in front["networks"]:
        takes = [f"{network['budget']['reached'][key]:,} {name}" for key, name in units]
        rows.append([network["name"], f"{network['accuracy']:.2f} %", *takes])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for network, (name, *cells) in zip(front["networks"], rows, strict=True):
        by = network["dominated"]
        said = f"dominated by {', '.join(by)}" if by else "on the front"
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned, said]))
    lines[0] += "; the steps that follow build this one"
    return lines


def _merits(network: Mapping[str, Any], resources: Sequence[str]) -> tuple[float, ...]:
    """A network's accuracy, and what it leaves of each resource that the front is about: more is better."""
    return network["accuracy"], *(-network["budget"]["reached"][name] for name in resources)


def dominated(merits: Sequence[Sequence[float]]) -> list[list[int]]:
    """Which others are as good in everything and better in something: of a network on the Pareto front, none."""
    return [
        [
            number
            for number, other in enumerate(map(tuple, merits))
            if other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
        ]
        for mine in map(tuple, merits)
    ]
