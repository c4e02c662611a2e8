"""Brevitas networks with power-of-two scales become networks of qfx.nn; Brevitas layers take the quantizers of qfx."""

from qfx.interop.brevitas.network import from_brevitas as from_brevitas
from qfx.interop.brevitas.quantizers import KHotWeight as KHotWeight
from qfx.interop.brevitas.quantizers import LearnedFixedPointAct as LearnedFixedPointAct
from qfx.interop.brevitas.quantizers import LearnedFixedPointUnsignedAct as LearnedFixedPointUnsignedAct
from qfx.interop.brevitas.quantizers import LearnedFixedPointWeight as LearnedFixedPointWeight
