"""The one hls4ml layer of the plug-in: a call of a qfx kernel with a config struct and constant tables."""

from __future__ import annotations

from typing import Any

from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
from hls4ml.model.attributes import Attribute
from hls4ml.model.layers import Layer


class QfxKernel(Layer):
    """A node computed by a kernel of hls/include/qfx; which one, the emitter says."""

    _expected_attributes = [
        Attribute("headers", value_type=list),  # the kernel's headers, below qfx/
        Attribute("call", value_type=str),  # the C++ statement: {config}, {x[0]}, {x[1]} and {y} stand for the names
        Attribute("shape", value_type=list),  # of the result
        Attribute("constants", value_type=dict),  # name -> int, as `static constexpr`
        Attribute("tables", value_type=dict),  # name -> Table
    ]

    def initialize(self) -> None:
        """Declare the result; its type comes from the configuration."""
        self.add_output_variable(self.attributes["shape"])

    def table_name(self, role: str) -> str:
        """Return the C++ name of a table, which is also the name of its header."""
        return f"{self.name}_{role}"


class QfxKernelConfig(LayerConfigTemplate):
    """The config struct: integers, and tables read through static functions."""

    def __init__(self) -> None:
        super().__init__(QfxKernel)

    def format(self, node: QfxKernel) -> str:
        """Return the struct's text."""
        lines = [f"struct config{node.index} {{"]
        constants = {**node.get_attr("constants"), "reuse_factor": node.get_attr("reuse_factor")}
        for name, value in constants.items():
            kind = "int" if abs(value) < 1 << 31 else "long long"
            lines.append(f"    static constexpr {kind} {name} = {value};")
        for role in node.get_attr("tables"):
            table = node.table_name(role)
            lines.append(f"    static const {table}_t &{role}(int i) {{ return {table}[i]; }}")
        return "\n".join([*lines, "};\n"])


class QfxKernelCall(FunctionCallTemplate):
    """The statement that calls the kernel."""

    def __init__(self) -> None:
        super().__init__(QfxKernel)

    def transform(self, model: Any, node: QfxKernel) -> bool:
        """Set the call and the headers that it needs: the kernel's and the tables'."""
        super().transform(model, node)
        tables = [f"weights/{node.table_name(role)}.h" for role in node.get_attr("tables")]
        node.set_attr("include_header", [f"qfx/{name}" for name in node.get_attr("headers")] + tables)
        return False

    def format(self, node: QfxKernel) -> str:
        """Return the statement."""
        operands = [node.get_input_variable(name).name for name in node.inputs]
        return node.get_attr("call").format(config=f"config{node.index}", x=operands, y=node.get_output_variable().name)
