// SPDX-License-Identifier: Apache-2.0
// Source of a segment: lets a word of a stream into a free-running pipe while a credit is there.
//
//   in_ready_o = a credit is left;  out(t + 1) = the word transferred at t
//
// Latency 1 cycle, one word per cycle. give_i returns one credit: connect it to pop_o of the FIFO that closes the segment.
module qfx_gate #(
  parameter int unsigned Width   = 8, // bits a word, at least 1
  parameter int unsigned Credits = 4  // depth of the FIFO that closes the segment, at least 1
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             in_valid_i,
  output logic             in_ready_o,
  input  logic [Width-1:0] in_data_i,
  output logic             out_valid_o,
  output logic [Width-1:0] out_data_o,
  input  logic             give_i
);

  if (Width < 1) begin : gen_check_width
    $fatal(1, "qfx_gate: Width must be at least 1, not %0d", Width);
  end

  logic take;

  assign take = in_valid_i && in_ready_o;

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (take),
    .give_i,
    .available_o(in_ready_o)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) out_valid_o <= 1'b0;
    else out_valid_o <= take;
  end

  always_ff @(posedge clk_i) out_data_o <= in_data_i;

  // Assertions: those of qfx_credit.

endmodule
