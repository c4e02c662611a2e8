// SPDX-License-Identifier: Apache-2.0
// Product of two integers in logic, without a DSP block.
//
//   p_o(t + 3) = a_i(t) * b_i(t), signed, exact
//
// Latency 3 cycles, none reset, one product per cycle: b is cut in two halves, whose products are added in the last
// stage. Put the narrower operand on b.
module qfx_mul_lut #(
  parameter int unsigned AWidth  = 8,    // bits of a, at least 1
  parameter bit          ASigned = 1'b1, // a is two's complement
  parameter int unsigned BWidth  = 4,    // bits of b, at least 1
  parameter bit          BSigned = 1'b1, // b is two's complement
  localparam int unsigned PWidth = AWidth + BWidth + ((ASigned || BSigned) ? 0 : 1)
) (
  input  logic                     clk_i,
  input  logic [AWidth-1:0]        a_i,
  input  logic [BWidth-1:0]        b_i,
  output logic signed [PWidth-1:0] p_o
);

  localparam int unsigned LowBits = (BWidth + 1) / 2;

  if (AWidth < 1 || BWidth < 1) begin : gen_check_width
    $fatal(1, "qfx_mul_lut: AWidth and BWidth must be at least 1, not %0d and %0d", AWidth, BWidth);
  end

  logic [AWidth-1:0] a_q;
  logic [BWidth-1:0] b_q;
  logic [PWidth-1:0] a_ext, low_d, high_d, low_q, high_q;

  assign a_ext = (ASigned && a_q[AWidth-1]) ? {{(PWidth-AWidth){1'b1}}, a_q} : {{(PWidth-AWidth){1'b0}}, a_q};

  // Partial products; the top bit of a signed b weighs -2**(BWidth-1).
  always_comb begin
    low_d  = '0;
    high_d = '0;
    for (int unsigned i = 0; i < BWidth; i++) begin
      if (BSigned && i == BWidth - 1) high_d -= b_q[i] ? a_ext << i : '0;
      else if (i < LowBits) low_d += b_q[i] ? a_ext << i : '0;
      else high_d += b_q[i] ? a_ext << i : '0;
    end
  end

  always_ff @(posedge clk_i) begin
    a_q    <= a_i;
    b_q    <= b_i;
    low_q  <= low_d;
    high_q <= high_d;
    p_o    <= low_q + high_q;
  end

endmodule
