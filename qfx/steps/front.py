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
    worse = dominated([_merits(network, resources) for network in networks])
    return {
        "resources": resources,
        "networks": [{**network, "dominated": by} for network, by in zip(networks, worse, strict=True)],
    }


def front_summary(front: Mapping[str, Any]) -> str:
    """The networks beside the one that goes on, in a few words."""
    units = [(key, name) for key, name in RESOURCES if key in front["resources"]]
    said = []
    for network in front["networks"][1:]:
        takes = ", ".join(f"{network['budget']['reached'][key]:,} {name}" for key, name in units)
        off = ", off the front" if network["dominated"] else ""
        said.append(f"{network['name']} {network['accuracy']:.2f} % ({takes}{off})")
    return ", ".join(said)


def _merits(network: Mapping[str, Any], resources: Sequence[str]) -> tuple[float, ...]:
    """A network's accuracy, and what it leaves of each resource that the front is about: more is better."""
    return network["accuracy"], *(-network["budget"]["reached"][name] for name in resources)


def dominated(merits: Sequence[Sequence[float]]) -> list[bool]:
    """Whether another one is as good in everything and better in something: it is not on the Pareto front then."""
    return [
        any(other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in map(tuple, merits))
        for mine in map(tuple, merits)
    ]
