"""What becomes of a float BatchNorm in a Brevitas network: merged as Brevitas does it, or kept in fixed point."""

from typing import Any

import brevitas.nn as bnn
import torch
from torch import fx, nn

import qfx.nn as qnn
from qfx.errors import LowerError
from qfx.fixed import Overflow, Rounding
from qfx.interop.brevitas.formats import Held, binary_point, started
from qfx.interop.brevitas.layers import Chain, Link, Site
from qfx.nn.observe import Observer
from qfx.nn.quantizer import Quantizer, Spec

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CONSTANT = Spec(16, signed=True, overflow=Overflow.SAT_SYM, per_channel=True)
_TRANSPOSED = (bnn.QuantConvTranspose1d, bnn.QuantConvTranspose2d)
_WEIGHTED = (bnn.QuantConv1d, bnn.QuantConv2d, bnn.QuantLinear, *_TRANSPOSED)
_READERS = (bnn.QuantIdentity, bnn.QuantReLU, bnn.QuantHardTanh)


def merge_norms(module: fx.GraphModule) -> None:
    """Merge every BatchNorm into the convolution or dense layer before it, by Brevitas' merge_bn, and take it out."""
    problems = []
    for node in list(module.graph.nodes):
        norm = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, NORMS):
            continue
        source = node.args[0]
        layer = module.get_submodule(str(source.target)) if source.op == "call_module" else None
        calls = [other for other in module.graph.nodes if other.target in (source.target, node.target)]
        if not isinstance(layer, _WEIGHTED) or len(source.users) > 1 or len(calls) > 2:
            problems.append(
                f"- layer '{node.target}' ({type(norm).__name__}) must stand alone behind a QuantConv or QuantLinear "
                "to be merged; use batch_norm='keep'"
            )
            continue
        if isinstance(layer, _TRANSPOSED) and layer.groups > 1:
            problems.append(
                f"- layer '{node.target}' must not be merged into a transposed convolution of groups, which Brevitas "
                "does not; use batch_norm='keep'"
            )
            continue
        if norm.weight is None or norm.running_mean is None:
            problems.append(f"- layer '{node.target}' must have affine and track_running_stats to be merged")
            continue
        layer.merge_bn_in(norm)
        node.replace_all_uses_with(source)
        module.graph.erase_node(node)
    if problems:
        raise LowerError("each BatchNorm must be merged, but:\n" + "\n".join(problems))
    module.recompile()


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
    site.operand()
    points = [binary_point(site.path, reader.act_quant) for reader in readers]
    if any((point is None) != (points[0] is None) for point in points):
        raise LowerError(f"{name} must not have both binary and other quantizers behind it; use a layer for each")
    behind = [
        site.activation(reader.act_quant, site.path) if point is None else _before_sign(point)
        for reader, point in zip(readers, points, strict=True)
    ]
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


def _before_sign(frac: int) -> Quantizer:
    """A format of which the sign is taken: rounded down, which keeps it, to twice the range that a gradient passes."""
    return started(Spec(8, None, True, Rounding.TRN), torch.tensor(frac + 6.0))
