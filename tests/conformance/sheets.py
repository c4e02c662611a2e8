"""Many cases in one graph, so that an engine that compiles a graph for seconds compiles few."""

import numpy as np

from qfx.fixed import Fixed, Overflow, Rounding
from qfx.graph import GraphBuilder
from qfx.graph.ops import Clamp, Input, Requantize
from qfx.graph.passes import remove_dead
from tests.conformance.cases import Case, case_named, case_names

FAN_OUT = 6  # readers of one tensor; HLS streams are copied at most seven times


def sheets(size: int) -> list[Case]:
    """Return all cases, in graphs of at most ``size`` cases of one input shape."""
    by_shape: dict[tuple[int, ...], list[Case]] = {}
    for name in case_names():
        case = case_named(name)
        by_shape.setdefault(case.graph.input.type.shape, []).append(case)
    made = []
    for shape, cases in by_shape.items():
        for start in range(0, len(cases), size):
            name = f"sheet_{'x'.join(map(str, shape))}_{start}"
            made.append(merged(name, cases[start : start + size]))
    return made


def merged(name: str, cases: list[Case]) -> Case:
    """Put cases of one input shape side by side behind one input; each one's codes are among the frames.

    The common input has as many fraction bits as the finest case. A case reads it through a Requantize that truncates
    and wraps to the case's own format, so that every code of it occurs.
    """
    formats = [case.graph.input.type.fixed for case in cases]
    frac = max(fixed.scalar_frac for fixed in formats)
    width = max(fixed.width + frac - fixed.scalar_frac for fixed in formats) + 1
    build = GraphBuilder(name)
    common = build.add("x", Input(cases[0].graph.input.type.shape, Fixed(width, frac)))
    all_codes = Clamp(-(1 << (width - 1)), (1 << (width - 1)) - 1)
    hubs = [common]
    while len(hubs) * FAN_OUT < len(cases):
        hubs = [
            build.add(f"hub{len(hubs)}.{i}.{j}", all_codes, hub) for i, hub in enumerate(hubs) for j in range(FAN_OUT)
        ][: -(-len(cases) // FAN_OUT)]
    outputs = [_placed(build, case, hubs[i // FAN_OUT]) for i, case in enumerate(cases)]
    codes = [case.codes << (frac - fixed.scalar_frac) for case, fixed in zip(cases, formats, strict=True)]
    return Case(name, "all", remove_dead(build.build(*outputs)), np.concatenate(codes))


def _placed(build: GraphBuilder, case: Case, source: str) -> str:
    """Add a case's nodes under its name and return the name of its last one."""

    def renamed(name: str) -> str:
        return f"{case.name}.{name}"

    for name, constant in case.graph.constants.items():
        build.constants[renamed(name)] = constant
    for node in case.graph.nodes:
        if isinstance(node.op, Input):
            build.add(renamed(node.name), Requantize(node.op.fixed, Rounding.TRN, Overflow.WRAP), source)
        else:
            build.add(renamed(node.name), node.op, *map(renamed, node.inputs))
    (output,) = case.graph.outputs
    return renamed(output)
