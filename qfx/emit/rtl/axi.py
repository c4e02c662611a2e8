"""The design behind AXI: `<name>_shell.sv` joins core and qfx_shell, `<name>_axi.v` is for block designs."""

from __future__ import annotations

from dataclasses import dataclass

from qfx.graph import Graph
from qfx.plan.dataflow import Network, Stream

TDATA_WIDTHS = (32, 64, 128)
VERSION = 1  # of the design, in the register of that name
MAX_ELEMENT = 32  # bits of an element that a container holds


@dataclass(frozen=True, slots=True)
class AxiPort:
    """One wire of the top: its signal in the interface, its direction and its width."""

    name: str
    signal: str
    output: bool
    width: int

    @property
    def interface(self) -> str:
        """The bus that the wire belongs to."""
        return self.name.rsplit("_", 1)[0]


def can_have_shell(network: Network) -> bool:
    """Whether the shell fits: one output, elements of at most 32 bits."""
    streams = (network.input, *network.outputs)
    return len(network.outputs) == 1 and all(stream.lane_width <= MAX_ELEMENT for stream in streams)


def shell_text(graph: Graph, network: Network, name: str, tdata: int) -> str:
    """Return the module that joins the core and the shell, in SystemVerilog."""
    ports = [port for port in axi_ports(tdata) if "prot" not in port.name]
    entry, exit_ = network.input, network.outputs[0]
    result = graph.by_name[exit_.node].type.fixed
    parameters = {
        "TDataWidth": str(tdata),
        **_layout("In", graph, entry),
        **_layout("Out", graph, exit_),
        "OutSigned": f"1'b{int(result.signed)}",
        "Version": str(VERSION),
    }
    lines = [f"// The core {name} behind qfx_shell; written by qfx, do not edit.", f"module {name}_shell ("]
    lines += ["  input  logic clk_i,", "  input  logic rst_ni,"]
    lines += [f"  {_direction(p)} logic {_range(p)}{_pin(p)}," for p in ports]
    lines[-1] = lines[-1].removesuffix(",")
    lines += [");", "", "  logic in_valid, in_ready, out_valid, out_ready;"]
    lines += [f"  logic [{entry.width - 1}:0] in_data;", f"  logic [{exit_.width - 1}:0] out_data;", ""]
    lines += [
        "  qfx_shell #(",
        ",\n".join(f"    .{key}({value})" for key, value in parameters.items()),
        "  ) u_shell (",
    ]
    pins = ["clk_i", "rst_ni", *(_pin(p) for p in ports)]
    links = [f"    .{pin}({pin})" for pin in pins]
    links += [f"    .core_in_{s}_{'i' if s == 'ready' else 'o'}(in_{s})" for s in ("valid", "ready", "data")]
    links += [f"    .core_out_{s}_{'o' if s == 'ready' else 'i'}(out_{s})" for s in ("valid", "ready", "data")]
    lines += [",\n".join(links), "  );", "", f"  {name} u_core ("]
    core = ["    .clk_i(clk_i)", "    .rst_ni(rst_ni)"]
    core += [f"    .in_{s}_{'o' if s == 'ready' else 'i'}(in_{s})" for s in ("valid", "ready", "data")]
    core += [f"    .out_{s}_{'i' if s == 'ready' else 'o'}(out_{s})" for s in ("valid", "ready", "data")]
    return "\n".join([*lines, ",\n".join(core), "  );", "", "endmodule", ""])


def axi_text(name: str, tdata: int) -> str:
    """Return the top for block designs, in plain Verilog with its interfaces named."""
    ports = axi_ports(tdata)
    associated = "ASSOCIATED_BUSIF s_axis:m_axis:s_axil, ASSOCIATED_RESET aresetn"
    lines = [
        f"// The network {name} as an IP with AXI-Stream and AXI-Lite; written by qfx, do not edit.",
        f"module {name}_axi (",
        '  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)',
        f'  (* X_INTERFACE_PARAMETER = "{associated}" *)',
        "  input  wire aclk,",
        '  (* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)',
        '  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)',
        "  input  wire aresetn,",
    ]
    for port in ports:
        kind = "aximm" if port.interface == "s_axil" else "axis"
        lines.append(f'  (* X_INTERFACE_INFO = "xilinx.com:interface:{kind}:1.0 {port.interface} {port.signal}" *)')
        lines.append(f"  {_direction(port)} wire {_range(port)}{port.name},")
    lines[-1] = lines[-1].removesuffix(",")
    links = ["    .clk_i(aclk)", "    .rst_ni(aresetn)"]
    links += [f"    .{_pin(port)}({port.name})" for port in ports if "prot" not in port.name]
    return "\n".join(
        [
            *lines,
            ");",
            "",
            "  // AXI-Lite's protection bits mean nothing here.",
            "  wire unused = &{1'b0, s_axil_awprot, s_axil_arprot};",
            "",
            f"  {name}_shell u_shell (",
            ",\n".join(links),
            "  );",
            "",
            "endmodule",
            "",
        ]
    )


def axi_ports(tdata: int) -> list[AxiPort]:
    """The wires of the three interfaces (rtl/README.md, section 6)."""
    found = []
    for bus, output in (("s_axis", False), ("m_axis", True)):
        widths = {"tdata": tdata, "tkeep": tdata // 8, "tlast": 1, "tvalid": 1}
        found += [AxiPort(f"{bus}_{s}", s.upper(), output, width) for s, width in widths.items()]
        found.append(AxiPort(f"{bus}_tready", "TREADY", not output, 1))
    driven = {"awaddr": 8, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "bready": 1}
    driven |= {"araddr": 8, "arprot": 3, "arvalid": 1, "rready": 1}
    found += [AxiPort(f"s_axil_{s}", s.upper(), False, width) for s, width in driven.items()]
    given = {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1, "arready": 1, "rdata": 32, "rresp": 2, "rvalid": 1}
    return found + [AxiPort(f"s_axil_{s}", s.upper(), True, width) for s, width in given.items()]


def _layout(prefix: str, graph: Graph, stream: Stream) -> dict[str, str]:
    kind = graph.by_name[stream.node].type
    return {
        f"{prefix}Width": str(stream.lane_width),
        f"{prefix}Lanes": str(stream.lanes),
        f"{prefix}Channels": str(kind.channels),
        f"{prefix}Pixels": str(kind.size // kind.channels),
    }


def _direction(port: AxiPort) -> str:
    return "output" if port.output else "input "


def _range(port: AxiPort) -> str:
    return f"[{port.width - 1}:0] " if port.width > 1 else ""


def _pin(port: AxiPort) -> str:
    return f"{port.name}_{'o' if port.output else 'i'}"
