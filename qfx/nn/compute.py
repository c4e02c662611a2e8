"""Convolution and dense layers in fixed point: quantized input and weights, exact result."""

from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.nn.affine import BatchNorm2d
from qfx.nn.arithmetic import convolution
from qfx.nn.constants import Codes, grid_codes, quantized_codes
from qfx.nn.functional import cast_to_grid
from qfx.nn.geometry import Pair, Quad, as_image, padded, pair, quad, shaped_like
from qfx.nn.integer import exact_product
from qfx.nn.quantizer import ACTIVATION, WEIGHT, Quantizer, Spec


class Convolving(nn.Module):
    """What convolutions share: quantized input and weights, an exact product, a folded BatchNorm.

    Args:
        like: the layer in float whose parameters it has.
    """

    axes = (2, 3, 1, 0)  # the weight (out, in/groups, y, x) in the graph's order

    def __init__(self, like: nn.Conv2d | nn.ConvTranspose2d, weight_spec: Spec, input_spec: Spec) -> None:
        super().__init__()
        self.weight, self.bias = like.weight, like.bias
        self.stride, self.dilation, self.groups = pair(like.stride), pair(like.dilation), like.groups
        self.input_quant = Quantizer(input_spec, axis=1)
        self.weight_quant = Quantizer(weight_spec, like.out_channels)
        self.norm: list[BatchNorm2d] = []  # at most one; a list, so that its parameters keep their own place
        self.exact = False

    def forward(self, x: Tensor) -> Tensor:
        image = as_image(self.input_quant(x))
        observed = None
        if self.norm and self.norm[0].observes_batches:
            observed = self._convolve(image, self._weight(), self.bias)
        return shaped_like(self.convolve(image, *quantized(self, *self.effective(observed), image.dtype)), x)

    def effective(self, observed: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the real weight as (out, in/groups, y, x), and the bias.

        A folded BatchNorm is included, by the statistics of the batch ``observed`` if that is given.
        """
        weight = self._weight()
        return self.norm[0].fold(weight, self.bias, observed) if self.norm else (weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of values that are given as they are, the weight as by ``effective``."""
        if self.exact:
            return exact_product(self._convolve, x, weight, bias, self.input_quant, self.weight_quant)
        return self._convolve(x, weight, bias)

    def _weight(self) -> Tensor:
        """The real weight as (out, in/groups, y, x)."""
        return as_image(self.weight)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


class Conv2d(Convolving):
    """``y = conv(input_quant(x), weight_quant(weight)) + bias``, exact; bias is on the grid f_x + f_w[c] (RND).

    With ``norm`` set, a BatchNorm is folded in: weight and bias are those of ``norm(conv(x))``, by batch statistics in
    training until they are frozen, by running ones otherwise. A torch.nn.Conv1d keeps its weight (out, in, x) here and
    takes signals (N, C, L), which are images of height 1.

    Args:
        padding: of both axes, of each, or top, bottom, left, right; zeros.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Quad = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_spec: Spec = WEIGHT,
        input_spec: Spec = ACTIVATION,
    ) -> None:
        like = nn.Conv2d(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        super().__init__(like, weight_spec, input_spec)
        self.padding = quad(padding)

    @classmethod
    def from_float(cls, layer: nn.Conv2d | nn.Conv1d, weight: Spec, activation: Spec) -> Self:
        """Return the fixed-point layer that shares ``layer``'s parameters."""
        new = cls(
            layer.in_channels,
            layer.out_channels,
            pair(layer.kernel_size),
            pair(layer.stride),
            conv_padding(layer),
            pair(layer.dilation),
            layer.groups,
            layer.bias is not None,
            weight_spec=weight,
            input_spec=activation,
        )
        new.weight, new.bias = layer.weight, layer.bias
        return new

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = padded(x, self.padding)
        conv2d = convolution(x.device.type) if self.exact else F.conv2d
        return conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def constants(self) -> dict[str, Codes]:
        """Return ``weight`` (kh, kw, in/groups, out) and, if there is one, ``bias`` (out,)."""
        return layer_constants(self, self.axes)


class Linear(nn.Module):
    """``y = input_quant(x) @ weight_quant(weight).T + bias``, exact; bias is on the grid f_x + f_w[c] (RND)."""

    axes = (1, 0)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_spec: Spec = WEIGHT,
        input_spec: Spec = ACTIVATION,
    ) -> None:
        super().__init__()
        like = nn.Linear(in_features, out_features, bias)
        self.weight, self.bias = like.weight, like.bias
        self.input_quant = Quantizer(input_spec, axis=1)
        self.weight_quant = Quantizer(weight_spec, out_features)
        self.exact = False

    @classmethod
    def from_float(cls, layer: nn.Linear, weight: Spec, activation: Spec) -> Self:
        """Return the fixed-point layer that shares ``layer``'s parameters."""
        bias = layer.bias is not None
        new = cls(layer.in_features, layer.out_features, bias, weight_spec=weight, input_spec=activation)
        new.weight, new.bias = layer.weight, layer.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_quant(x)
        weight, bias = quantized(self, self.weight, self.bias, x.dtype)
        if self.exact:
            return exact_product(F.linear, x, weight, bias, self.input_quant, self.weight_quant)
        return F.linear(x, weight, bias)

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Return the real weight and bias."""
        return self.weight, self.bias

    def constants(self) -> dict[str, Codes]:
        """Return ``weight`` (in, out) and, if there is one, ``bias`` (out,)."""
        return layer_constants(self, self.axes)


class ComputeLayer(Protocol):
    """What a layer with weights offers to exact evaluation and to lowering."""

    input_quant: Quantizer
    weight_quant: Quantizer

    def effective(self) -> tuple[Tensor, Tensor | None]: ...


def quantized(
    layer: ComputeLayer, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Return the fixed-point weight, and the bias on the accumulator's grid; plain ones while calibration observes."""
    weight = layer.weight_quant(weight).to(dtype)
    if bias is None:
        return weight, None
    if layer.input_quant.observer is None and layer.weight_quant.observer is None:
        bias = cast_to_grid(bias, layer.input_quant.frac_now + layer.weight_quant.frac_now)
    return weight, bias.to(dtype)


@torch.no_grad()
def layer_constants(layer: ComputeLayer, axes: tuple[int, ...]) -> dict[str, Codes]:
    """Return the integer ``weight`` in the graph's axes and, if there is one, ``bias``."""
    weight, bias = layer.effective()
    found = {"weight": quantized_codes(layer.weight_quant, weight, axes)}
    if bias is not None:
        fracs = layer.input_quant.format().scalar_frac + found["weight"].fixed.fracs(len(bias))
        grid = torch.as_tensor(fracs, device=bias.device)
        found["bias"] = grid_codes(cast_to_grid(bias.double(), grid), fracs)
    return found


def conv_padding(layer: nn.Conv2d | nn.Conv1d) -> Quad:
    """Return a torch convolution's padding as top, bottom, left, right."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    if layer.padding == "same":
        height, width = (d * (k - 1) for d, k in zip(pair(layer.dilation), pair(layer.kernel_size), strict=True))
        return height // 2, height - height // 2, width // 2, width - width // 2
    assert isinstance(layer.padding, tuple)
    return quad(pair(layer.padding, of_height=0))
