"""The HLS emitter: the hls4ml project of a graph, every type pinned and compared after conversion."""

from qfx.emit.hls.project import hls as hls
