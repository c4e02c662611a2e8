// SPDX-License-Identifier: Apache-2.0
// Read-only memory, its contents from a file of hexadecimal words, one a line.
//
//   data_o(t + 2) = word number addr_i(t) of InitFile
//
// Latency 2 cycles, one read per cycle, no reset. The file is looked up by its bare name in the working directory of the
// tool; it must hold Depth words.
module qfx_rom #(
  parameter int unsigned Width = 8,  // bits a word, at least 1
  parameter int unsigned Depth = 16, // words, at least 1
  parameter string InitFile = "",    // name of the .mem file, not empty
  parameter string Style = "auto",   // rom_style attribute: "auto", "block" or "distributed"
  localparam int unsigned AddrWidth = (Depth > 1) ? $clog2(Depth) : 1
) (
  input  logic                 clk_i,
  input  logic [AddrWidth-1:0] addr_i,
  output logic [Width-1:0]     data_o
);

  if (Width < 1) begin : gen_check_width
    $fatal(1, "qfx_rom: Width must be at least 1, not %0d", Width);
  end
  if (Depth < 1) begin : gen_check_depth
    $fatal(1, "qfx_rom: Depth must be at least 1, not %0d", Depth);
  end

  if (Style != "auto" && Style != "block" && Style != "distributed") begin : gen_check_style
    $fatal(1, "qfx_rom: Style must be auto, block or distributed, not %s", Style);
  end

  (* rom_style = Style, ram_style = Style *)
  logic [Width-1:0] mem [Depth];
  logic [Width-1:0] read_q;

  initial $readmemh(InitFile, mem);

  always_ff @(posedge clk_i) begin
    read_q <= mem[addr_i];
    data_o <= read_q;
  end

  // Assertions
`ifndef SYNTHESIS
  // The file must be there: a missing one would read as zeros.
  initial begin : check_file
    automatic int fd = $fopen(InitFile, "r");
    if (fd == 0) $fatal(1, "qfx_rom: InitFile must name a readable file, not '%s'", InitFile);
    $fclose(fd);
  end
`endif

endmodule
