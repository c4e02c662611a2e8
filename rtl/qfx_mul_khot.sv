// SPDX-License-Identifier: Apache-2.0
// Product of an integer and a K-hot constant: one shift and one addition a digit, no multiplier.
//
//   p_o(t + 3) = sum over digits i of enable_i * (-1)**negative_i * a_i(t) * 2**shift_i, signed, exact
//
// b_i holds the digits, digit i at [i*(ShiftWidth+2) +: ShiftWidth+2] = {enable, negative, shift}, shift in the low bits.
// Latency 3 cycles (input, shifted terms, sum; none reset), one product per cycle. The constant that the digits encode
// must be a code of BWidth bits (signed if BSigned): the product is exact modulo 2**PWidth.
module qfx_mul_khot #(
  parameter int unsigned AWidth     = 8,    // bits of a, at least 1
  parameter bit          ASigned    = 1'b1, // a is two's complement
  parameter int unsigned BWidth     = 8,    // bits of the constant's code, at least 1
  parameter bit          BSigned    = 1'b1, // the constant's code is two's complement
  parameter int unsigned Digits     = 2,    // digits a constant, at least 1
  parameter int unsigned ShiftWidth = 3,    // bits of a shift, at least 1
  localparam int unsigned FieldWidth = ShiftWidth + 2,
  localparam int unsigned PWidth     = AWidth + BWidth + ((ASigned || BSigned) ? 0 : 1)
) (
  input  logic                         clk_i,
  input  logic [AWidth-1:0]            a_i,
  input  logic [Digits*FieldWidth-1:0] b_i,
  output logic signed [PWidth-1:0]     p_o
);

  if (AWidth < 1 || BWidth < 1) begin : gen_check_width
    $fatal(1, "qfx_mul_khot: AWidth and BWidth must be at least 1, not %0d and %0d", AWidth, BWidth);
  end
  if (Digits < 1) begin : gen_check_digits
    $fatal(1, "qfx_mul_khot: Digits must be at least 1, not %0d", Digits);
  end
  if (ShiftWidth < 1) begin : gen_check_shift_width
    $fatal(1, "qfx_mul_khot: ShiftWidth must be at least 1, not %0d", ShiftWidth);
  end

  logic [AWidth-1:0]             a_q;
  logic [Digits*FieldWidth-1:0]  b_q;
  logic [PWidth-1:0]             a_ext, sum;
  logic [Digits-1:0][PWidth-1:0] term_d, term_q;

  assign a_ext = (ASigned && a_q[AWidth-1]) ? {{(PWidth-AWidth){1'b1}}, a_q} : {{(PWidth-AWidth){1'b0}}, a_q};

  for (genvar i = 0; i < Digits; i++) begin : gen_digit
    logic                  enable, negative;
    logic [ShiftWidth-1:0] shift;
    logic [PWidth-1:0]     shifted;

    assign {enable, negative, shift} = b_q[i*FieldWidth +: FieldWidth];
    assign shifted   = enable ? a_ext << shift : '0;
    assign term_d[i] = negative ? -shifted : shifted;
  end

  always_comb begin
    sum = '0;
    for (int unsigned i = 0; i < Digits; i++) sum += term_q[i];
  end

  always_ff @(posedge clk_i) begin
    a_q    <= a_i;
    b_q    <= b_i;
    term_q <= term_d;
    p_o    <= sum;
  end

endmodule
