"""Scripts for Vivado: out-of-context synthesis with its figures as JSON, and packaging of the AXI top as an IP."""

from __future__ import annotations

from collections.abc import Sequence

SYNTH, PACKAGE, CLOCK = "synth_ooc.tcl", "package_ip.tcl", "clock.xdc"


def clock_text(clock_mhz: float, port: str = "clk_i") -> str:
    """Return the constraint of the one clock."""
    return f"create_clock -name {port} -period {1000 / clock_mhz:.3f} [get_ports {port}]\n"


def synth_text(top: str, part: str, sources: Sequence[str]) -> str:
    """Return the script of an out-of-context synthesis: ``vivado -mode batch -source synth_ooc.tcl``."""
    return f"""# Out-of-context implementation of {top}; writes utilisation.json and timing.json. Written by qfx.
set here [file dirname [file normalize [info script]]]
cd $here
create_project -in_memory -part {part}
{_reads(sources)}
read_mem [glob -nocomplain *.mem]
read_xdc {CLOCK}
synth_design -top {top} -part {part} -mode out_of_context
opt_design
place_design
route_design
set timing [open timing.json w]
set path [get_timing_paths -max_paths 1 -nworst 1 -setup]
puts $timing [format {{{{"worst_slack_ns": %s, "logic_levels": %s}}}} \\
  [get_property SLACK $path] [get_property LOGIC_LEVELS $path]]
close $timing
proc count {{pattern}} {{ return [llength [get_cells -hierarchical -filter "REF_NAME =~ $pattern"]] }}
set used [open utilisation.json w]
puts $used [format {{{{"lut": %d, "ff": %d, "ramb36": %d, "ramb18": %d, "dsp": %d}}}} \\
  [count LUT*] [count FD*] [count RAMB36*] [count RAMB18*] [count DSP48*]]
close $used
"""


def package_text(name: str, part: str, sources: Sequence[str]) -> str:
    """Return the script that packages ``<name>_axi`` as an IP: ``vivado -mode batch -source package_ip.tcl``."""
    return f"""# Packages {name}_axi as an IP in ./ip. Written by qfx.
set here [file dirname [file normalize [info script]]]
cd $here
create_project -force {name}_ip ./ip_project -part {part}
add_files [list {" ".join(sources)}]
add_files [glob -nocomplain *.mem]
set_property top {name}_axi [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir ./ip -vendor qfx -library net -taxonomy /QFX -import_files -set_current true
set_property name {name} [ipx::current_core]
set_property version 1.0 [ipx::current_core]
set_property display_name {{{name} (qfx)}} [ipx::current_core]
ipx::infer_bus_interfaces xilinx.com:interface:axis_rtl:1.0 [ipx::current_core]
ipx::check_integrity [ipx::current_core]
ipx::save_core [ipx::current_core]
close_project
"""


def _reads(sources: Sequence[str]) -> str:
    return "\n".join(f"read_verilog {'-sv ' if source.endswith('.sv') else ''}{source}" for source in sources)
