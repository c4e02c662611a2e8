"""Emitters: each writes files and a manifest from a graph, and runs nothing."""

from qfx.emit.hls import hls as hls
from qfx.emit.rtl import rtl as rtl
from qfx.emit.vectors import vectors as vectors
