// SPDX-License-Identifier: Apache-2.0
// Exact products of two words of codes: a gate or an attention, behind a qfx_join.
//
//   out = a * b, lane by lane
//
// Latency 3 cycles, one word per cycle, no back-pressure. Limit: OutWidth holds every product (two's complement where a or b
// is); idle lanes, which hold 0, stay 0.
module qfx_multiply #(
  parameter int unsigned AWidth     = 8,     // bits of a code of a, at least 1
  parameter bit          ASigned    = 1'b1,  // codes of a are two's complement
  parameter int unsigned BWidth     = 8,     // bits of a code of b, at least 1
  parameter bit          BSigned    = 1'b1,  // codes of b are two's complement
  parameter int unsigned OutWidth   = 16,    // bits of a product, at least 1
  parameter string       Arithmetic = "dsp", // dsp or lut
  parameter int unsigned Lanes      = 1      // codes a word, at least 1
) (
  input  logic                             clk_i,
  input  logic                             rst_ni,
  input  logic                             in_valid_i,
  input  logic [Lanes*(BWidth+AWidth)-1:0] in_data_i, // {b, a} as qfx_join gives it, Lanes codes each
  output logic                             out_valid_o,
  output logic [Lanes*OutWidth-1:0]        out_data_o
);

  localparam int unsigned Latency = 3; // of the multiplier leaves
  localparam int unsigned PWidth  = AWidth + BWidth + ((ASigned || BSigned) ? 0 : 1);
  localparam int unsigned Extend  = (OutWidth > PWidth) ? OutWidth : PWidth;

  if (AWidth < 1 || BWidth < 1 || OutWidth < 1 || Lanes < 1) begin : gen_check_sizes
    $fatal(1, "qfx_multiply: AWidth, BWidth, OutWidth and Lanes must be at least 1, not %0d, %0d, %0d and %0d",
           AWidth, BWidth, OutWidth, Lanes);
  end
  if (Arithmetic != "dsp" && Arithmetic != "lut") begin : gen_check_arithmetic
    $fatal(1, "qfx_multiply: Arithmetic must be dsp or lut, not %s", Arithmetic);
  end

  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Latency'({valid_q, in_valid_i});
  end
  assign out_valid_o = valid_q[Latency-1];

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [AWidth-1:0]        a;
    logic [BWidth-1:0]        b;
    /* verilator lint_off UNUSEDSIGNAL */ // a result narrower than a product of any two words drops its top bits
    logic signed [PWidth-1:0] product;
    /* verilator lint_on UNUSEDSIGNAL */

    assign a = in_data_i[lane*AWidth +: AWidth];
    assign b = in_data_i[Lanes*AWidth + lane*BWidth +: BWidth];

    if (Arithmetic == "dsp") begin : gen_dsp
      qfx_mul_dsp #(.AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned)) u_mul (
        .clk_i,
        .a_i(a),
        .b_i(b),
        .p_o(product)
      );
    end else if (AWidth >= BWidth) begin : gen_lut // the narrower operand is the multiplier
      qfx_mul_lut #(.AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned)) u_mul (
        .clk_i,
        .a_i(a),
        .b_i(b),
        .p_o(product)
      );
    end else begin : gen_lut_swapped
      qfx_mul_lut #(.AWidth(BWidth), .ASigned(BSigned), .BWidth(AWidth), .BSigned(ASigned)) u_mul (
        .clk_i,
        .a_i(b),
        .b_i(a),
        .p_o(product)
      );
    end

    assign out_data_o[lane*OutWidth +: OutWidth] = OutWidth'(Extend'(product));
  end

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
