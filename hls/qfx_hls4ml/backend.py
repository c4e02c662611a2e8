"""The backend of the plug-in: which passes of hls4ml run, and what is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hls4ml.backends import VitisBackend, VivadoBackend
from hls4ml.model.flow import get_flow, register_flow
from hls4ml.model.layers import layer_map, register_layer
from hls4ml.model.optimizer import OptimizerPass

from qfx_hls4ml import BACKEND
from qfx_hls4ml.layers import QfxKernel, QfxKernelCall, QfxKernelConfig
from qfx_hls4ml.writer import QfxVitisWriter

# Of hls4ml's passes only these: none of them infers, fuses or changes a type.
_STREAMING = ["vivado:clone_output", "vivado:insert_zero_padding_before_conv2d"]
_IMPLEMENTATION = [
    "vivado:transform_types",
    "vivado:apply_resource_strategy",
    "vivado:generate_conv_im2col",
    "vivado:set_pipeline_style",
]


class NodeStatements(OptimizerPass):
    """Put the graph node's name and, for csim, the record of its codes around each node's call."""

    def match(self, node: Any) -> bool:
        """Return whether the layer computes a node of the graph and is not treated yet."""
        return node.get_attr("qfx_record") is not None and not node.get_attr("qfx_recorded", False)

    def transform(self, model: Any, node: Any) -> bool:
        """Extend the call to a list of lines."""
        result = node.get_output_variable()
        record = f"qfx::trace({result.name}, {node.get_attr('qfx_record')}, {result.size()});"
        call = node.get_attr("function_cpp")
        lines = [f'// graph node "{node.get_attr("qfx_node")}"', call, "#ifndef __SYNTHESIS__", record, "#endif"]
        node.set_attr("function_cpp", lines)
        node.set_attr("include_header", [*node.get_attr("include_header"), "qfx/csim.hpp"])
        node.set_attr("qfx_recorded", True)
        return False


class FreeRunning(OptimizerPass):
    """Make a streaming top level free-running: no start signal, frames follow the streams (HLS `ap_ctrl_none`)."""

    def match(self, node: Any) -> bool:
        """Return whether the layer is the input of a streaming project."""
        return node.class_name == "Input" and node.model.config.get_config_value("IOType") == "io_stream"

    def transform(self, model: Any, node: Any) -> bool:
        """Set the pragma as the input's statement, which stands first in the function."""
        node.set_attr(
            "function_cpp", ["// frames follow the streams", "#pragma HLS INTERFACE ap_ctrl_none port=return"]
        )
        return False


class QfxVitisBackend(VitisBackend):
    """hls4ml's Vitis backend with qfx's kernels."""

    def __init__(self) -> None:
        super(VivadoBackend, self).__init__(name=BACKEND)  # VitisBackend's own initialiser fixes the name "Vitis"
        self._register_layer_attributes()
        self.register_template(QfxKernelConfig)
        self.register_template(QfxKernelCall)
        self.register_pass("node_statements", NodeStatements)
        self.register_pass("free_running", FreeRunning)
        self._register_flows()

    def _register_flows(self) -> None:
        initializers = get_flow("vivado:init_layers").optimizers
        parts = [
            register_flow("init_layers", list(initializers), requires=[], backend=self.name),
            register_flow("streaming", _STREAMING, requires=[], backend=self.name),
            register_flow("implementation", _IMPLEMENTATION, requires=[], backend=self.name),
            register_flow("builtin_templates", get_flow("vivado:apply_templates").optimizers, backend=self.name),
            register_flow("apply_templates", self._get_layer_templates, requires=[], backend=self.name),
            register_flow("statements", [f"{self.name.lower()}:{name}" for name in _STATEMENTS], backend=self.name),
        ]
        self._default_flow = register_flow("ip", None, requires=parts, backend=self.name)
        write = ["make_stamp", f"{self.name.lower()}:write_hls"]
        self._writer_flow = register_flow("write", write, requires=[self._default_flow], backend=self.name)


_STATEMENTS = ["node_statements", "free_running"]


def register(register_backend: Callable[..., None], register_writer: Callable[..., None]) -> None:
    """Register layer, writer and backend."""
    if "QfxKernel" not in layer_map:
        register_layer("QfxKernel", QfxKernel)
    register_writer(BACKEND, QfxVitisWriter)  # before the backend, whose initialiser asks for it
    register_backend(BACKEND, QfxVitisBackend)
