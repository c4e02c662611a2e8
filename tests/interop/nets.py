"""Brevitas layers with fixed-point quantizers, as short as tests need them, and the comparison with our integers."""

import brevitas.nn as bnn
import numpy as np
import torch
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Int32Bias,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.graph.lower import lower
from qfx.interop.brevitas import from_brevitas

QUANT = {"return_quant_tensor": True}


class Ternary(ExtendedInjector):
    """Zero up to a threshold of half of the scale, by Brevitas' own TernaryQuant."""

    quant_type, bit_width_impl_type, bit_width = "ternary", "const", 2
    scaling_impl_type, restrict_scaling_type, scaling_per_output_channel = "const", "fp", False
    zero_point_impl, signed, narrow_range, threshold = ZeroZeroPoint, True, True, 0.5
    scaling_const = 0.125
    min_val, max_val = -0.5, 0.5


class TernaryWeight(Ternary, WeightQuantSolver):
    pass


class TernaryAct(Ternary, ActQuantSolver):
    pass


def identity(width: int = 8, **more) -> nn.Module:
    return bnn.QuantIdentity(**{"act_quant": Int8ActPerTensorFixedPoint, "bit_width": width, **QUANT, **more})


def relu(width: int = 8, **more) -> nn.Module:
    return bnn.QuantReLU(**{"act_quant": Uint8ActPerTensorFixedPoint, "bit_width": width, **QUANT, **more})


def conv(*args, width: int = 8, per_channel: bool = False, kind=bnn.QuantConv2d, **more) -> nn.Module:
    weight = Int8WeightPerChannelFixedPoint if per_channel else Int8WeightPerTensorFixedPoint
    given = {"weight_quant": weight, "weight_bit_width": width, "bias_quant": Int32Bias, **QUANT, **more}
    return kind(*args, **given)


def dense(*args, **more) -> nn.Module:
    return conv(*args, kind=bnn.QuantLinear, **more)


def transposed(*args, **more) -> nn.Module:
    return conv(*args, **{"kind": bnn.QuantConvTranspose2d, **more})


def add(**more) -> nn.Module:
    act = Int8ActPerTensorFixedPoint
    return bnn.QuantEltwiseAdd(**{"input_quant": act, "output_quant": act, **QUANT, **more})


def seen(model: nn.Module, x: Tensor, batches: int = 3) -> nn.Module:
    """Let a network see data, as Brevitas' quantizers take their scales from it."""
    model.train()
    for _ in range(batches):
        model(x + torch.randn_like(x) / 8)
    return model.eval()


def values(result: Tensor) -> np.ndarray:
    """The values of a Brevitas result, a QuantTensor or not."""
    return getattr(result, "value", result).detach().double().numpy()


def differences(
    model: nn.Module, x: Tensor, like: nn.Module | None = None, fault: bool = False, **options
) -> list[int]:
    """How many values our network, and its graph, give other than Brevitas': of ``like``, by default ``model``.

    With ``fault``, the binary point of the last weight, or of the input, is three bits off in ours.
    """
    ours = from_brevitas(model, **options)
    if fault:
        with torch.no_grad():
            found = qnn.quantizers(ours)
            weights = [quantizer for name, quantizer in found.items() if name.endswith("weight_quant")]
            [*found.values(), *weights][-1 if weights else 0].frac.sub_(3)
    with torch.no_grad():
        wanted = values((like or model)(x))
    evaluated = lower(ours, x).evaluate(x.numpy(), "NCHW" if x.dim() > 2 else "NHWC")
    return [int((found != wanted).sum()) for found in (qnn.exact(ours)(x).numpy(), evaluated)]
