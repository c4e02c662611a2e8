// SPDX-License-Identifier: Apache-2.0
// Exact sum of two words of codes on a common grid: the shortcut of a residual block, behind a qfx_join.
//
//   out = a * 2**ShiftA + b * 2**ShiftB,  ShiftX = max(f_a, f_b) - f_x
//
// Latency 1 cycle, one word per cycle, no back-pressure. Limit: OutWidth holds every sum (two's complement if OutSigned).
module qfx_add #(
  parameter int unsigned AWidth    = 8,    // bits of a code of a, at least 1
  parameter bit          ASigned   = 1'b1, // codes of a are two's complement
  parameter int unsigned BWidth    = 8,    // bits of a code of b, at least 1
  parameter bit          BSigned   = 1'b1, // codes of b are two's complement
  parameter int unsigned ShiftA    = 0,    // left shift of a; one of the two shifts is 0
  parameter int unsigned ShiftB    = 0,    // left shift of b
  parameter int unsigned OutWidth  = 9,    // bits of a sum, at least 1
  parameter int unsigned Lanes     = 1     // codes a word, at least 1
) (
  input  logic                             clk_i,
  input  logic                             rst_ni,
  input  logic                             in_valid_i,
  input  logic [Lanes*(BWidth+AWidth)-1:0] in_data_i, // {b, a} as qfx_join gives it, Lanes codes each
  output logic                             out_valid_o,
  output logic [Lanes*OutWidth-1:0]        out_data_o
);

  localparam int unsigned Latency = 1;

  if (AWidth < 1 || BWidth < 1 || OutWidth < 1 || Lanes < 1) begin : gen_check_sizes
    $fatal(1, "qfx_add: AWidth, BWidth, OutWidth and Lanes must be at least 1, not %0d, %0d, %0d and %0d",
           AWidth, BWidth, OutWidth, Lanes);
  end
  if (ShiftA != 0 && ShiftB != 0) begin : gen_check_shift
    $fatal(1, "qfx_add: ShiftA or ShiftB must be 0, not %0d and %0d", ShiftA, ShiftB);
  end

  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Latency'({valid_q, in_valid_i});
  end
  assign out_valid_o = valid_q[Latency-1];

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    // Codes are extended to the larger of their own width and the sum's; the sum is exact modulo 2**OutWidth.
    localparam int unsigned AExtend = (OutWidth > AWidth) ? OutWidth : AWidth;
    localparam int unsigned BExtend = (OutWidth > BWidth) ? OutWidth : BWidth;

    logic [AWidth-1:0] a;
    logic [BWidth-1:0] b;
    logic [OutWidth-1:0] a_aligned, b_aligned;

    assign a = in_data_i[lane*AWidth +: AWidth];
    assign b = in_data_i[Lanes*AWidth + lane*BWidth +: BWidth];
    if (ASigned) begin : gen_a_signed
      assign a_aligned = OutWidth'(AExtend'(signed'(a)) << ShiftA);
    end else begin : gen_a_unsigned
      assign a_aligned = OutWidth'(AExtend'(a) << ShiftA);
    end
    if (BSigned) begin : gen_b_signed
      assign b_aligned = OutWidth'(BExtend'(signed'(b)) << ShiftB);
    end else begin : gen_b_unsigned
      assign b_aligned = OutWidth'(BExtend'(b) << ShiftB);
    end

    always_ff @(posedge clk_i) out_data_o[lane*OutWidth +: OutWidth] <= a_aligned + b_aligned;
  end

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
