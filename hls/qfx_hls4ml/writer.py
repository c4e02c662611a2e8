"""The writer of the plug-in: hls4ml's Vitis project with tables, the qfx headers and a csim on integer codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hls4ml.writer.vitis_writer import VitisWriter

from qfx.resources import path as resource
from qfx_hls4ml.layers import QfxKernel
from qfx_hls4ml.table import Table

_CSIM = """\
// SPDX-License-Identifier: Apache-2.0
// C simulation on integer codes: qfx_csim INPUT OUTPUT
// INPUT holds frames of {size} codes. For each frame OUTPUT gets the codes of every node but the input, in the graph's
// order. Both are plain 64-bit integers of this machine.
#include "firmware/{top}.cpp"
#include "firmware/qfx/csim.hpp"

int main(int argc, char **argv) {{
    if (argc != 3) {{
        std::fprintf(stderr, "error: qfx_csim needs two files: INPUT OUTPUT\\n");
        return 2;
    }}
    std::FILE *input = std::fopen(argv[1], "rb");
    std::FILE *output = std::fopen(argv[2], "wb");
    if (!input || !output) {{
        std::fprintf(stderr, "error: cannot open %s\\n", input ? argv[2] : argv[1]);
        return 2;
    }}
    std::vector<std::int64_t> codes;
    while (qfx::read_codes(input, codes, {size})) {{
{declarations}
        qfx::feed(codes, {source});
        {top}({arguments});
{drains}
        if (!qfx::write_records(output, {nodes})) {{
            std::fprintf(stderr, "error: cannot write %s\\n", argv[2]);
            return 1;
        }}
    }}
    if (std::fclose(output) != 0) {{
        std::fprintf(stderr, "error: cannot write %s\\n", argv[2]);
        return 1;
    }}
    return 0;
}}
"""

_DRAIN = """\
        if (!qfx::drain({name}, {size})) {{
            std::fprintf(stderr, "error: output {name} does not hold one frame\\n");
            return 1;
        }}"""


class QfxVitisWriter(VitisWriter):
    """Write an hls4ml project; every file depends on the model alone, not on the folder or the time."""

    def write_nnet_utils(self, model: Any) -> None:
        """Copy hls4ml's headers and the qfx headers."""
        super().write_nnet_utils(model)
        target = _folder(model) / "firmware" / "qfx"
        target.mkdir(exist_ok=True)
        for header in sorted((resource("hls") / "include" / "qfx").glob("*.hpp")):
            (target / header.name).write_bytes(header.read_bytes())

    def write_weights(self, model: Any) -> None:
        """Write hls4ml's weights and the tables of the qfx kernels."""
        super().write_weights(model)
        for layer in model.get_layers():
            if isinstance(layer, QfxKernel):
                for role, table in layer.get_attr("tables").items():
                    name = layer.table_name(role)
                    path = _folder(model) / "firmware" / "weights" / f"{name}.h"
                    path.write_text(_table_header(name, table), encoding="utf-8")

    def write_yml(self, model: Any) -> None:
        """Write hls4ml's settings, without the place where they were written."""
        text = yaml.safe_dump({**model.config.config, "OutputDir": "."}, sort_keys=True)
        (_folder(model) / "hls4ml_config.yml").write_text(text, encoding="utf-8")

    def write_hls(self, model: Any, is_multigraph: bool = False) -> None:
        """Write the project and the csim program."""
        model.config.config["Stamp"] = "qfx"  # hls4ml's is random
        super().write_hls(model)
        (_folder(model) / "qfx_csim.cpp").write_text(_csim_source(model), encoding="utf-8")


def _folder(model: Any) -> Path:
    return Path(model.config.get_output_dir())


def _table_header(name: str, table: Table) -> str:
    rows = table.entries()
    body = ",\n".join("    " + ", ".join(rows[start : start + 8]) for start in range(0, len(rows), 8))
    return (
        f"// {len(rows)} constants of {table.width} bits\n"
        f"#ifndef {name.upper()}_H_\n#define {name.upper()}_H_\n\n"
        '#include "../qfx/multiply.hpp"\n#include "ap_int.h"\n#include <cstdint>\n\n'
        f"#ifdef __SYNTHESIS__\ntypedef {table.element} {name}_t;\n"
        f"#else\ntypedef {table.native} {name}_t;\n#endif\n\n"
        f"static const {name}_t {name}[{len(rows)}] = {{\n{body}}};\n\n#endif\n"
    )


def _csim_source(model: Any) -> str:
    (source,), results = model.get_input_variables(), model.get_output_variables()
    indent = " " * 8
    return _CSIM.format(
        top=model.config.get_project_name(),
        size=source.size(),
        source=source.name,
        declarations="\n".join(f"{indent}{variable.definition_cpp()};" for variable in (source, *results)),
        arguments=", ".join(variable.name for variable in (source, *results)),
        drains="\n".join(_DRAIN.format(name=variable.name, size=variable.size()) for variable in results),
        nodes=sum(layer.get_attr("qfx_record") is not None for layer in model.get_layers()),
    )
