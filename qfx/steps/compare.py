"""Comparing the integers of two engines, and naming the first node at which they part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qfx.errors import MismatchError
from qfx.fixed import decode
from qfx.graph import Graph


@dataclass(frozen=True)
class Mismatch:
    """The first code, in the order of the graph, the frames and the pixels, that is not what it must be."""

    engine: str
    node: str
    op: str
    frame: int
    position: tuple[int, ...]  # row, column, channel; or the element
    expected: int
    found: int
    expected_value: float
    found_value: float
    format: str
    wrong: int  # codes of this node that differ
    codes: int  # codes of this node that were compared
    equal_before: int  # nodes before this one that were compared and are equal

    def __str__(self) -> str:
        *pixel, channel = self.position
        where = f"pixel ({pixel[0]}, {pixel[1]}), channel {channel}" if len(pixel) == 2 else f"element {channel}"
        return (
            f"{self.engine}: node {self.node!r} ({self.op}) must give code {self.expected} ({self.expected_value:g}) "
            f"at frame {self.frame}, {where}, not {self.found} ({self.found_value:g}), in {self.format}; "
            f"{self.wrong} of its {self.codes} codes differ, and {self.equal_before} nodes before it are equal"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields, and the sentence."""
        return {**asdict(self), "sentence": str(self)}


class UnequalCodes(MismatchError):
    """Two engines computed different integers; ``figures`` is what the step's record keeps of it."""

    def __init__(self, mismatch: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        super().__init__(mismatch["sentence"])
        self.figures = {**figures, "equal": False, "mismatch": mismatch}


def first_mismatch(
    graph: Graph, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], engine: str
) -> Mismatch | None:
    """Return the first difference over the nodes that both have, or None.

    Args:
        expected: the reference's codes (N, *shape) by node name.
        found: the codes of ``engine``; frames that it did not deliver are a difference too.
    """
    equal = 0
    for node in graph.nodes:
        if node.name not in found or node.name not in expected:
            continue
        right, other = np.asarray(expected[node.name]), np.asarray(found[node.name])
        if other.shape != right.shape:
            raise MismatchError(
                f"{engine}: node {node.name!r} must give codes of shape {right.shape}, not {other.shape}"
            )
        if np.array_equal(right, other):
            equal += 1
            continue
        first = tuple(int(i) for i in np.argwhere(right != other)[0])
        a, b = int(right[first]), int(other[first])
        value_a, value_b = (float(decode(np.full(node.type.channels, c), node.type.fixed)[first[-1]]) for c in (a, b))
        return Mismatch(
            engine=engine,
            node=node.name,
            op=type(node.op).__name__,
            frame=first[0],
            position=first[1:],
            expected=a,
            found=b,
            expected_value=value_a,
            found_value=value_b,
            format=str(node.type.fixed),
            wrong=int((right != other).sum()),
            codes=right.size,
            equal_before=equal,
        )
    return None


def require_equal(
    graph: Graph,
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    engine: str,
    figures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what was compared, for the record, or raise UnequalCodes.

    Raises:
        MismatchError: there is nothing to compare: that must not pass for equality.
    """
    common = [node.name for node in graph.nodes if node.name in expected and node.name in found]
    missing = [name for name in graph.outputs if name not in common]
    if missing or not len(expected[graph.outputs[0]]):
        raise MismatchError(f"{engine}: the codes of output {(missing or graph.outputs)[0]!r} must be there to compare")
    compared = {
        **(figures or {}),
        "frames": len(expected[graph.outputs[0]]),
        "nodes": len(common),
        "codes": int(sum(np.asarray(expected[name]).size for name in common)),
        "output_codes": int(sum(np.asarray(expected[name]).size for name in graph.outputs)),
    }
    mismatch = first_mismatch(graph, expected, found, engine)
    if mismatch:
        raise UnequalCodes(mismatch.to_json(), compared)
    return {**compared, "equal": True}
