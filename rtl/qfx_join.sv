// SPDX-License-Identifier: Apache-2.0
// Source of a segment with two inputs: pairs the words of two streams into a free-running pipe while a credit is there.
//
//   out_data_o = {b, a} for the n-th word of a and the n-th word of b
//
// Latency 2 cycles, one pair per cycle. give_i returns one credit: connect it to pop_o of the FIFO that closes the segment.
module qfx_join #(
  parameter int unsigned WidthA  = 8, // bits a word of stream a, at least 1
  parameter int unsigned WidthB  = 8, // bits a word of stream b, at least 1
  parameter int unsigned Credits = 4  // depth of the FIFO that closes the segment, at least 1
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     a_valid_i,
  output logic                     a_ready_o,
  input  logic [WidthA-1:0]        a_data_i,
  input  logic                     b_valid_i,
  output logic                     b_ready_o,
  input  logic [WidthB-1:0]        b_data_i,
  output logic                     out_valid_o,
  output logic [WidthB+WidthA-1:0] out_data_o,
  input  logic                     give_i
);

  logic              a_valid, b_valid, credit, take;
  logic [WidthA-1:0] a_data;
  logic [WidthB-1:0] b_data;

  // Each input has a buffer of its own, so that its ready does not depend on the other's valid.
  qfx_fifo_shift #(.Width(WidthA), .Depth(2)) u_a (
    .clk_i,
    .rst_ni,
    .in_valid_i (a_valid_i),
    .in_ready_o (a_ready_o),
    .in_data_i  (a_data_i),
    .out_valid_o(a_valid),
    .out_ready_i(take),
    .out_data_o (a_data)
  );

  qfx_fifo_shift #(.Width(WidthB), .Depth(2)) u_b (
    .clk_i,
    .rst_ni,
    .in_valid_i (b_valid_i),
    .in_ready_o (b_ready_o),
    .in_data_i  (b_data_i),
    .out_valid_o(b_valid),
    .out_ready_i(take),
    .out_data_o (b_data)
  );

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (take),
    .give_i,
    .available_o(credit)
  );

  assign take = a_valid && b_valid && credit;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) out_valid_o <= 1'b0;
    else out_valid_o <= take;
  end

  always_ff @(posedge clk_i) out_data_o <= {b_data, a_data};

  // Assertions: those of qfx_fifo_shift and qfx_credit.

endmodule
