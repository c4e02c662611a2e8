"""The hls4ml plug-in of qfx: a Vitis backend that calls qfx's kernels and never changes a type."""

import hls4ml as hls4ml  # first, so that it is never met half imported: it loads qfx_hls4ml.plugin on its way

from qfx_hls4ml.backend import BACKEND as BACKEND
from qfx_hls4ml.backend import register as register
from qfx_hls4ml.backend import require_registered as require_registered
from qfx_hls4ml.layers import QfxKernel as QfxKernel
from qfx_hls4ml.layers import Table as Table
