"""ResNet-20 of HGQ2's layers (Keras 3 on torch) with its learned widths, which start at those of the recipe.

As by HGQ2's defaults, each weight and each element of an activation has a width of its own, activations wrap and
weights saturate; BatchNorm and the sum are quantized too. It runs eagerly: torch.compile (2.13) breaks it into 34
graphs, and the step took 1.3 times as long.
"""

import math
import os

import torch
from torch import Tensor, nn

os.environ["KERAS_BACKEND"] = "torch"

import keras
from hgq.config import QuantizerConfig
from hgq.layers import QAdd, QBatchNormalization, QConv2D, QDense, QGlobalAveragePooling2D

FIRST = {"data_format": "channels_first"}


def _data(width: int, signed: bool) -> QuantizerConfig:
    return QuantizerConfig("kif", "datalane", k0=signed, i0=1, f0=width - 1 - signed)


def _weight(width: int, inputs: int) -> QuantizerConfig:
    """Return a width whose range is that of initial weights, ``1 / sqrt(inputs)``."""
    return QuantizerConfig("kbi", "weight", b0=width - 1, i0=math.ceil(-math.log2(inputs) / 2))


def _constant(place: str) -> QuantizerConfig:
    return QuantizerConfig("kbi", place, b0=7)


def _conv(x: keras.KerasTensor, filters: int, stride: int, entry: QuantizerConfig, width: int) -> keras.KerasTensor:
    formats = {"iq_conf": entry, "kq_conf": _weight(width, 9 * x.shape[1])}
    x = QConv2D(filters, 3, stride, "same", use_bias=False, **formats, **FIRST)(x)
    constants = {"kq_conf": _constant("weight"), "bq_conf": _constant("bias")}
    return QBatchNormalization(axis=1, iq_conf=_data(8, True), **constants)(x)


def _block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    y = keras.ops.relu(_conv(x, filters, stride, _data(4, False), 4))
    y = _conv(y, filters, 1, _data(4, False), 4)
    if stride > 1:
        more = (filters - x.shape[1]) // 2
        x = keras.ops.pad(x[:, :, ::stride, ::stride], ((0, 0), (more, more), (0, 0), (0, 0)))
    return keras.ops.relu(QAdd(iq_confs=[_data(8, True), _data(8, False)])([y, x]))


def _network() -> keras.Model:
    images = keras.Input((3, 32, 32))
    x = keras.ops.relu(_conv(images / 255 - 0.5, 16, 1, _data(8, True), 8))
    for filters, stride in [(16, 1)] * 3 + [(32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)]:
        x = _block(x, filters, stride)
    x = QGlobalAveragePooling2D(iq_conf=_data(8, False), **FIRST)(x)
    scores = QDense(10, iq_conf=_data(8, False), kq_conf=_weight(8, 64), bq_conf=_constant("bias"))(x)
    return keras.Model(images, scores)


class Hgq2ResNet(nn.Module):
    """(N, 3, 32, 32) bytes to ten scores; ``penalty`` is the cost of the widths, which HGQ2 adds to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, training=self.training)

    def penalty(self) -> Tensor:
        return torch.stack(self.network.losses).sum()
