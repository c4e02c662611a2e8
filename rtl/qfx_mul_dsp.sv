// SPDX-License-Identifier: Apache-2.0
// Product of two integers in one DSP block.
//
//   p_o(t + 3) = a_i(t) * b_i(t), signed, exact
//
// Latency 3 cycles (input, M and P register, none reset), one product per cycle. Fits one DSP48E2 up to 27 x 18 bits (one
// DSP48E1 up to 25 x 18), an unsigned operand counting one bit more.
module qfx_mul_dsp #(
  parameter int unsigned AWidth  = 8,    // bits of a, at least 1
  parameter bit          ASigned = 1'b1, // a is two's complement
  parameter int unsigned BWidth  = 8,    // bits of b, at least 1
  parameter bit          BSigned = 1'b1, // b is two's complement
  localparam int unsigned PWidth = AWidth + BWidth + ((ASigned || BSigned) ? 0 : 1)
) (
  input  logic                     clk_i,
  input  logic [AWidth-1:0]        a_i,
  input  logic [BWidth-1:0]        b_i,
  output logic signed [PWidth-1:0] p_o
);

  if (AWidth < 1 || BWidth < 1) begin : gen_check_width
    $fatal(1, "qfx_mul_dsp: AWidth and BWidth must be at least 1, not %0d and %0d", AWidth, BWidth);
  end

  logic signed [AWidth:0] a_q;
  logic signed [BWidth:0] b_q;
  (* use_dsp = "yes" *)
  logic signed [PWidth-1:0] m_q;

  always_ff @(posedge clk_i) begin
    a_q <= {ASigned && a_i[AWidth-1], a_i};
    b_q <= {BSigned && b_i[BWidth-1], b_i};
    m_q <= PWidth'(a_q * b_q);
    p_o <= m_q;
  end

endmodule
