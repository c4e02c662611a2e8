"""The .mem files of a design: the constants of each part as its ROM reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qfx.emit.rtl_memory import (
    CodeField,
    DigitField,
    Field,
    channel_words,
    conv_words,
    depthwise_words,
    mem_text,
    shift_field_width,
    shift_words,
    table_words,
)
from qfx.graph import Constant, Graph, Node
from qfx.graph.ops import Lookup, Requantize
from qfx.plan.dataflow import Network, Part
from qfx.plan.parts import requantize_shifts, signed_width


def memory_files(graph: Graph, network: Network) -> dict[str, str]:
    """Return the text of each .mem file by its name."""
    files = {}
    for part in network.parts:
        for parameter, name in part.memories.items():
            files[name] = _text(graph, graph.by_name[part.node], part, parameter)
    return files


def _text(graph: Graph, node: Node, part: Part, parameter: str) -> str:
    if isinstance(node.op, Requantize):
        shifts, lanes = requantize_shifts(graph, node), _int(part, "Lanes")
        return mem_text(shift_words(shifts, lanes=lanes), lanes * shift_field_width(shifts))
    constants = [graph.constants[name] for name in node.inputs if name in graph.constants]
    if isinstance(node.op, Lookup):
        signed, bits = graph.by_name[node.inputs[0]].type.fixed.signed, _int(part, "OutWidth")
        return mem_text(table_words(constants[0].codes, signed=signed, field=CodeField(bits)), bits)
    if parameter in ("BiasFile", "OffsetFile"):
        lanes = _int(part, "CoLanes" if "CoLanes" in part.parameters else "Lanes")
        field = CodeField(signed_width(constants[1]))
        return mem_text(channel_words(constants[1].codes, lanes=lanes, field=field), lanes * field.bits)
    return _weights(part, constants[0])


def _weights(part: Part, weight: Constant) -> str:
    field = _field(part, weight)
    codes = weight.codes
    if part.module == "qfx_conv":
        ci, co, taps = _int(part, "CiLanes"), _int(part, "CoLanes"), _int(part, "TapLanes")
        codes = codes.reshape(1, 1, *codes.shape) if codes.ndim == 2 else codes
        words: Sequence[int] = conv_words(
            codes, groups=_int(part, "Groups"), ci_lanes=ci, co_lanes=co, tap_lanes=taps, field=field
        )
        return mem_text(words, ci * co * taps * field.bits)
    lanes = _int(part, "Lanes")
    if part.module == "qfx_affine":
        return mem_text(channel_words(codes, lanes=lanes, field=field), lanes * field.bits)
    taps = _int(part, "TapLanes") if "TapLanes" in part.parameters else 1
    words = depthwise_words(_channels_last(codes), lanes=lanes, tap_lanes=taps, field=field)
    return mem_text(words, lanes * taps * field.bits)


def _channels_last(codes: np.ndarray) -> np.ndarray:
    """A depthwise kernel as (KH, KW, C): the graph's Conv2d has (KH, KW, 1, C)."""
    return codes[:, :, 0, :] if codes.ndim == 4 else codes


def _field(part: Part, constant: Constant) -> Field:
    if part.parameters["Arithmetic"] == "khot":
        return DigitField(constant.fixed.width, _int(part, "Digits"), constant.signed_digits)
    return CodeField(constant.fixed.width)


def _int(part: Part, name: str) -> int:
    return int(part.parameters[name])
