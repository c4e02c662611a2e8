"""The verifier: one check for each numbered rule of SPEC.md."""

import numpy as np

from qfx.arguments import LEGAL_NAME, NAME
from qfx.errors import GraphError, QfxError
from qfx.fixed import Fixed
from qfx.graph.bounds import static_ranges
from qfx.graph.graph import Graph, Node, require_graph
from qfx.graph.ops import DeformConv2d, Input, Lookup, Requantize


def verify(graph: Graph) -> None:
    """Raise GraphError, with the rule's number and the node's name, if the graph breaks a rule of SPEC.md."""
    require_graph(graph)
    _check_names(graph)
    _check_order(graph)
    _check_outputs(graph)
    for name, constant in graph.constants.items():
        _check_constant(graph, name)
        _require(
            constant.keeps_digits(),
            "G7",
            f"constant {name!r} must have at most {constant.max_digits} non-zero digits in each code",
        )
    for node in graph.nodes:
        _check_operands(graph, node)
    _check_types(graph)


def _check_names(graph: Graph) -> None:
    names = [node.name for node in graph.nodes] + list(graph.constants)
    for name in names:
        _require(
            bool(NAME.fullmatch(name)),
            "G1",
            f"a name must be {LEGAL_NAME}, but is {name!r}",
        )
    doubled = {name for name in names if names.count(name) > 1}
    _require(not doubled, "G1", f"each name must be used once, but these are used twice: {sorted(doubled)}")


def _check_order(graph: Graph) -> None:
    inputs = [node.name for node in graph.nodes if isinstance(node.op, Input)]
    _require(len(inputs) == 1, "G2", f"a graph must have exactly one Input, not {len(inputs)}")
    known = set(graph.constants)
    for node in graph.nodes:
        for name in node.inputs:
            _require(name in known, "G3", f"node {node.name!r} must read nodes that come before it, not {name!r}")
        known.add(node.name)


def _check_outputs(graph: Graph) -> None:
    _require(bool(graph.outputs), "G4", "a graph must have at least one output")
    for name in graph.outputs:
        _require(name in graph.by_name, "G4", f"an output must name a node, not {name!r}")


def _check_constant(graph: Graph, name: str) -> None:
    constant = graph.constants[name]
    fixed, codes = constant.fixed, constant.codes
    inside = codes.size == 0 or (codes.min() >= fixed.min_code and codes.max() <= fixed.max_code)
    _require(inside, "G6", f"the codes of constant {name!r} must lie in {fixed.min_code}..{fixed.max_code} ({fixed})")
    if isinstance(fixed.frac, tuple):
        channels = codes.shape[-1] if codes.ndim else 0
        _require(
            len(fixed.frac) == channels,
            "G6",
            f"constant {name!r} must have a binary point for each of its {channels} channels, not {len(fixed.frac)}",
        )


def _check_operands(graph: Graph, node: Node) -> None:
    kind = type(node.op)
    where = f"node {node.name!r} ({kind.__name__})"
    _require(
        len(node.inputs) in kind.arity,
        "G5",
        f"{where} must have {' or '.join(map(str, kind.arity))} operands, not {len(node.inputs)}",
    )
    for position, name in enumerate(node.inputs):
        wanted = position in kind.constants
        _require(
            (name in graph.constants) == wanted,
            "G5",
            f"{where} must have a {'constant' if wanted else 'tensor'} as operand {position}, not {name!r}",
        )


def _check_types(graph: Graph) -> None:
    """G8 (types are the inferred ones, or narrower and proved), G9 (offsets are in range)."""
    for node in graph.nodes:
        try:
            inferred = node.op.infer(graph.operands(node))
        except QfxError as error:
            raise GraphError(f"rule G8: node {node.name!r} ({type(node.op).__name__}): {error}") from error
        _require(
            node.type.shape == inferred.shape,
            "G8",
            f"node {node.name!r} must have shape {inferred.shape}, not {node.type.shape}",
        )
        _require(
            _same_fracs(node.type.fixed, inferred.fixed, inferred.channels),
            "G8",
            f"node {node.name!r} must have frac {inferred.fixed.frac}, not {node.type.fixed.frac}",
        )
        _require(
            node.type.fixed == inferred.fixed or not isinstance(node.op, (Input, Requantize, Lookup)),
            "G8",
            f"node {node.name!r} must have its operation's format {inferred.fixed}, not {node.type.fixed}",
        )
    ranges = static_ranges(graph)
    for node in graph.nodes:
        low, high, fixed = int(ranges[node.name].low.min()), int(ranges[node.name].high.max()), node.type.fixed
        _require(
            fixed.min_code <= low and high <= fixed.max_code,
            "G8",
            f"node {node.name!r} must hold its static range {low}..{high}, which {fixed} does not",
        )
        if isinstance(node.op, DeformConv2d):
            offset = ranges[node.inputs[1]]
            reach = int(np.max(offset.high))
            _require(
                int(np.min(offset.low)) >= 0 and reach <= node.op.max_dilation,
                "G9",
                f"the offset of node {node.name!r} must be proved to lie in 0..{node.op.max_dilation}, "
                f"but may reach {reach}",
            )


def _same_fracs(a: Fixed, b: Fixed, channels: int) -> bool:
    if any(isinstance(fixed.frac, tuple) and len(fixed.frac) != channels for fixed in (a, b)):
        return False
    return bool((a.fracs(channels) == b.fracs(channels)).all())


def _require(condition: bool, rule: str, sentence: str) -> None:
    if not condition:
        raise GraphError(f"rule {rule}: {sentence}")
