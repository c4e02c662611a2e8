// SPDX-License-Identifier: Apache-2.0
// FIFO between two streams: a shift register up to 32 words, a memory beyond.
//
//   words leave in the order in which they came; in_ready_o = fewer than Depth words inside
//
// Latency 1 cycle up to Depth 32, 4 cycles beyond; one word per cycle for Depth >= 2. Ready and valid come from state
// only. pop_o tells that a word leaves in this cycle; it follows out_ready_i combinationally and is meant for the give_i
// of the source of the segment that this FIFO closes (a credit counter, so the path ends in a register).
module qfx_fifo #(
  parameter int unsigned Width = 8, // bits a word, at least 1
  parameter int unsigned Depth = 2  // words held, at least 1
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             in_valid_i,
  output logic             in_ready_o,
  input  logic [Width-1:0] in_data_i,
  output logic             out_valid_o,
  input  logic             out_ready_i,
  output logic [Width-1:0] out_data_o,
  output logic             pop_o
);

  localparam int unsigned ShiftDepthMax = 32;

  assign pop_o = out_valid_o && out_ready_i;

  if (Depth <= ShiftDepthMax) begin : gen_shift
    qfx_fifo_shift #(.Width(Width), .Depth(Depth)) u_shift (
      .clk_i,
      .rst_ni,
      .in_valid_i,
      .in_ready_o,
      .in_data_i,
      .out_valid_o,
      .out_ready_i,
      .out_data_o
    );
  end else begin : gen_ram
    qfx_fifo_ram #(.Width(Width), .Depth(Depth)) u_ram (
      .clk_i,
      .rst_ni,
      .in_valid_i,
      .in_ready_o,
      .in_data_i,
      .out_valid_o,
      .out_ready_i,
      .out_data_o
    );
  end

endmodule
