"""The comparison of hls4ml's converted model with the graph: types, shapes and weights, all equal or an error."""

from __future__ import annotations

from typing import Any

import numpy as np

from qfx.emit.hls.layers import LayerSpec
from qfx.errors import EmitError
from qfx.fixed import Fixed, Overflow, Rounding

_PLAIN = (Rounding.TRN, Overflow.WRAP)


def check_model(model: Any, specs: list[LayerSpec]) -> None:
    """Raise EmitError, naming layer and type, where hls4ml holds anything but what the specs say."""
    by_name = {spec.name: spec for spec in specs}
    for layer in model.get_layers():
        spec = by_name.pop(layer.name, None)
        if spec is None:
            _check_inserted(layer)
        else:
            _check_layer(layer, spec)
    if by_name:
        raise EmitError(f"hls4ml must keep every layer, but dropped {sorted(by_name)}")


def _check_layer(layer: Any, spec: LayerSpec) -> None:
    where = f"layer {spec.name!r} (node {spec.node.name!r})"
    result = layer.get_output_variable()
    if tuple(result.shape) != spec.node.type.shape:
        raise EmitError(
            f"{where}: the shape must stay {spec.node.type.shape}, but hls4ml made it {tuple(result.shape)}"
        )
    _check_type(result.type.precision, spec.types["result"], spec.modes, f"{where}: the result type")
    if "accum" in spec.types:
        _check_type(layer.get_attr("accum_t").precision, spec.types["accum"], _PLAIN, f"{where}: the accum type")
    for role, values in spec.extra.items():
        weight = layer.get_weights(role)
        _check_type(weight.type.precision, spec.types[role], _PLAIN, f"{where}: the {role} type")
        if not np.array_equal(np.asarray(weight.data).ravel(), _stored(layer, values).ravel()):
            raise EmitError(f"{where}: the {role} must stay as the graph has it, but hls4ml changed it")


def _stored(layer: Any, values: np.ndarray) -> np.ndarray:
    """The order in which hls4ml keeps weights: its resource strategy transposes them."""
    if layer.get_attr("strategy") != "resource" or values.ndim < 2:
        return values
    return np.transpose(values, {2: (1, 0), 4: (3, 0, 1, 2)}[values.ndim])


def _check_inserted(layer: Any) -> None:
    """A layer that hls4ml put in (copies of a stream, padding) must hand on its input's type."""
    source = layer.get_input_variable().type.precision
    for variable in layer.get_variables():
        if _text(variable.type.precision) != _text(source):
            raise EmitError(
                f"layer {layer.name!r}: the type of {variable.name} must be {_text(source)} as its input's, "
                f"but hls4ml made it {_text(variable.type.precision)}"
            )


def _check_type(found: Any, fixed: Fixed, modes: tuple[Rounding, Overflow], what: str) -> None:
    wanted = (fixed.width, fixed.width - fixed.scalar_frac, fixed.signed, *(mode.value for mode in modes))
    actual = (
        found.width, found.integer, found.signed, str(found.rounding_mode), str(found.saturation_mode)
    )  # fmt: skip
    if actual != wanted:
        sign = "" if fixed.signed else "u"
        raise EmitError(
            f"{what} must stay {sign}fixed<{wanted[0]},{wanted[1]},{wanted[3]},{wanted[4]}> ({fixed}), "
            f"but hls4ml made it {_text(found)}"
        )


def _text(precision: Any) -> str:
    return str(precision)
