// SPDX-License-Identifier: Apache-2.0
// Memory with one write port and one read port on one clock.
//
//   rdata_o(t + 2) = mem[raddr_i(t)], as the writes of the cycles before t left it
//
// Latency 2 cycles, one read and one write per cycle. A read of the word that is written in the same cycle gives the
// old word. No reset: a word that was never written is arbitrary. Beside qfx_rom the only module with an array.
module qfx_ram_sdp #(
  parameter int unsigned Width = 8,   // bits a word, at least 1
  parameter int unsigned Depth = 16,  // words, at least 2
  parameter string Style = "auto",    // ram_style attribute: "auto", "block", "distributed" or "ultra"
  localparam int unsigned AddrWidth = $clog2(Depth)
) (
  input  logic                 clk_i,
  input  logic                 we_i,
  input  logic [AddrWidth-1:0] waddr_i,
  input  logic [Width-1:0]     wdata_i,
  input  logic [AddrWidth-1:0] raddr_i,
  output logic [Width-1:0]     rdata_o
);

  if (Width < 1) begin : gen_check_width
    $fatal(1, "qfx_ram_sdp: Width must be at least 1, not %0d", Width);
  end
  if (Depth < 2) begin : gen_check_depth
    $fatal(1, "qfx_ram_sdp: Depth must be at least 2, not %0d", Depth);
  end

  if (Style != "auto" && Style != "block" && Style != "distributed" && Style != "ultra") begin : gen_check_style
    $fatal(1, "qfx_ram_sdp: Style must be auto, block, distributed or ultra, not %s", Style);
  end

  (* ram_style = Style *)
  logic [Width-1:0] mem [Depth];
  logic [Width-1:0] read_q;

  always_ff @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= wdata_i;
    read_q  <= mem[raddr_i];
    rdata_o <= read_q;
  end

  // Assertions: none here. There is no reset, and before one the write port of a user is arbitrary: the users watch their
  // write addresses.

endmodule
