// SPDX-License-Identifier: Apache-2.0
// Copies each word of a stream to several streams, which take it at their own pace.
//
//   out[i] = in for each i < Outputs;  in_ready_o = every branch has room
//
// Latency 1 cycle, one word per cycle. A branch may run two words ahead of the slowest one; where branches meet again with
// different latencies, a qfx_fifo behind the short one makes up for it.
module qfx_fork #(
  parameter int unsigned Width   = 8, // bits a word, at least 1
  parameter int unsigned Outputs = 2  // branches, at least 1
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     in_valid_i,
  output logic                     in_ready_o,
  input  logic [Width-1:0]         in_data_i,
  output logic [Outputs-1:0]       out_valid_o,
  input  logic [Outputs-1:0]       out_ready_i,
  output logic [Outputs*Width-1:0] out_data_o // branch i at [i*Width +: Width]
);

  if (Outputs < 1) begin : gen_check_outputs
    $fatal(1, "qfx_fork: Outputs must be at least 1, not %0d", Outputs);
  end

  logic [Outputs-1:0] room;
  logic               push;

  assign in_ready_o = &room;
  assign push       = in_valid_i && in_ready_o;

  for (genvar i = 0; i < Outputs; i++) begin : gen_branch
    qfx_fifo_shift #(.Width(Width), .Depth(2)) u_buffer (
      .clk_i,
      .rst_ni,
      .in_valid_i (push),
      .in_ready_o (room[i]),
      .in_data_i,
      .out_valid_o(out_valid_o[i]),
      .out_ready_i(out_ready_i[i]),
      .out_data_o (out_data_o[i*Width +: Width])
    );
  end

  // Assertions: those of qfx_fifo_shift.

endmodule
