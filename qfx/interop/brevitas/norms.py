"""What becomes of a float BatchNorm in a Brevitas network: merged as Brevitas does it, or kept in fixed point."""

from collections.abc import Callable
from typing import Any

import brevitas.nn as bnn
import torch
from torch import fx, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import Overflow, Rounding
from qfx.interop.brevitas.formats import BIAS_CLASS, Held, binary_point, started
from qfx.interop.brevitas.layers import Chain, Link, NotAtFault, Site
from qfx.nn.observe import Observer
from qfx.nn.quantizer import Quantizer, Spec

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CONSTANT = Spec(16, signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
_TRANSPOSED = (bnn.QuantConvTranspose1d, bnn.QuantConvTranspose2d)
_WEIGHTED = (bnn.QuantConv1d, bnn.QuantConv2d, bnn.QuantLinear, *_TRANSPOSED)
_READERS = (bnn.QuantIdentity, bnn.QuantReLU, bnn.QuantHardTanh)


def merge_norms(module: fx.GraphModule) -> dict[fx.Node, str]:
    """Merge every BatchNorm into the convolution or dense layer before it, by Brevitas' merge_bn, and take it out.

    Returns those that cannot be merged, and why.
    """
    problems: dict[fx.Node, str] = {}
    for node in list(module.graph.nodes):
        norm = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, NORMS):
            continue
        source = node.args[0]
        layer: Any = module.get_submodule(str(source.target)) if source.op == "call_module" else None
        calls = [other for other in module.graph.nodes if other.target in (source.target, node.target)]
        alone = len(source.users) == 1 and len(calls) == 2
        if reason := _unmergeable(norm, layer, alone):
            problems[node] = f"layer '{node.target}' {reason}"
            continue
        bare = layer.bias is None
        layer.merge_bn_in(norm)
        if bare and not layer.bias_quant.is_quant_enabled:  # Brevitas tells only now, of a bias that is there
            layer.bias = None
            problems[node] = (
                f"layer '{node.target}' ({type(norm).__name__}) must be merged into a layer that quantizes the bias it "
                f"gets by that; use bias_quant={BIAS_CLASS} for layer '{source.target}', though it has bias=False"
            )
            continue
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)
    module.recompile()
    return problems


def _unmergeable(norm: Any, layer: Any, alone: bool) -> str | None:
    """Return what a BatchNorm must be to be merged into the ``layer`` before it, or None."""
    if not isinstance(layer, _WEIGHTED) or not alone:
        return (
            f"({type(norm).__name__}) must stand alone behind a QuantConv or QuantLinear to be merged; use "
            "batch_norm='keep'"
        )
    if isinstance(layer, _TRANSPOSED) and layer.groups > 1:
        return (
            "must not be merged into a transposed convolution of groups, which Brevitas does not; use batch_norm='keep'"
        )
    if norm.weight is None or norm.running_mean is None:
        return "must have affine and track_running_stats to be merged"
    return None


def keep_norm(site: Site, layer: Any, readers: list[Any], keeps: bool) -> Chain:
    """Return the fixed-point BatchNorm of a float one, whose result has the binary point of the quantizer behind it."""
    name = f"layer '{site.path}' ({type(layer).__name__})"
    if not keeps:
        raise LowerError(
            f"{name} must not compute in float; use from_brevitas(model, batch_norm='merge'), which is exact, or "
            "'keep' for a fixed-point BatchNorm"
        )
    if not readers or not all(isinstance(reader, _READERS) for reader in readers) or layer.running_mean is None:
        raise LowerError(
            f"{name} must have running statistics, and only a QuantReLU or QuantIdentity behind it, to be kept"
        )
    points = _of_readers(readers, lambda reader: binary_point(site.path, reader.act_quant))
    if any((point is None) != (points[0] is None) for point in points):
        raise LowerError(f"{name} must not have both binary and other quantizers behind it; use a layer for each")
    site.operand()
    if points[0] is None:
        behind = _of_readers(readers, lambda reader: site.activation(reader.act_quant, site.path))
    else:
        behind = [_before_sign(point) for point in points]
    finest = max(behind, key=lambda quantizer: float(quantizer.frac_now))
    width = max(q.width + (not q.signed) + int((finest.frac_now - q.frac_now).item()) for q in behind)
    spec = Spec(width, None, True, finest.spec.rounding)
    new = qnn.BatchNorm2d.from_float(layer, CONSTANT, spec)
    new.output_quant.start_at(finest.frac_now, True)
    new.scale_quant.observer = Observer(0, constant=True)
    new.real_constants()  # the scale's quantizer looks on
    new.scale_quant.initialise()
    new.shift_quant.observer = observer = Observer(0, constant=True)
    observer.add(new.real_constants()[1])
    new.shift_quant.initialise()
    return [Link(new, Held.after(new.output_quant))]


def _of_readers(readers: list[Any], find: Callable[[Any], Any]) -> list[Any]:
    """Return what is found of each reader, which itself is refused where that cannot be found."""
    try:
        return [find(reader) for reader in readers]
    except LowerError as error:
        raise NotAtFault(str(error)) from error


def _before_sign(frac: int) -> Quantizer:
    """A format of which the sign is taken: rounded down, which keeps it, to twice the range that a gradient passes."""
    return started(Spec(8, None, True, Rounding.TRN), torch.tensor(frac + 6.0))
