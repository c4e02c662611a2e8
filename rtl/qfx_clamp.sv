// SPDX-License-Identifier: Apache-2.0
// Limits codes to a range: ReLU, ReLU6 and the like; the binary point stays.
//
//   out = min(max(in, Low), High)
//
// Latency 2 cycles, one word per cycle, no back-pressure.
module qfx_clamp #(
  parameter int unsigned InWidth   = 8,    // bits of an input code, 1 to 63
  parameter bit          InSigned  = 1'b1, // input codes are two's complement
  parameter int unsigned OutWidth  = 8,    // bits of a result, 1 to 63
  parameter bit          OutSigned = 1'b1, // results are two's complement
  parameter int unsigned Lanes     = 1,    // codes a word, at least 1
  parameter longint      Low       = 0,    // lower bound, a code of the output format (64'sd...)
  parameter longint      High      = 127   // upper bound, at least Low, a code of the output format
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      in_valid_i,
  input  logic [Lanes*InWidth-1:0]  in_data_i,
  output logic                      out_valid_o,
  output logic [Lanes*OutWidth-1:0] out_data_o
);

  localparam int unsigned Latency  = 2;
  localparam longint      OutFirst = OutSigned ? -(64'sd1 <<< (OutWidth - 1)) : 64'sd0;
  localparam longint      OutFinal = (64'sd1 <<< (OutWidth - 32'(OutSigned))) - 64'sd1;

  if (InWidth < 1 || InWidth > 63 || OutWidth < 1 || OutWidth > 63) begin : gen_check_width
    $fatal(1, "qfx_clamp: InWidth and OutWidth must lie in 1..63, not %0d and %0d", InWidth, OutWidth);
  end
  if (Lanes < 1) begin : gen_check_lanes
    $fatal(1, "qfx_clamp: Lanes must be at least 1, not %0d", Lanes);
  end
  if (Low > High || Low < OutFirst || High > OutFinal) begin : gen_check_bounds
    $fatal(1, "qfx_clamp: Low and High must be ordered codes of the output format, not %0d and %0d", Low, High);
  end

  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Latency'({valid_q, in_valid_i});
  end
  assign out_valid_o = valid_q[Latency-1];

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [InWidth-1:0] code;
    logic signed [63:0] value;
    logic [OutWidth-1:0] code_q;
    logic               below_q, above_q;

    assign code  = in_data_i[lane*InWidth +: InWidth];
    assign value = {{(64-InWidth){InSigned && code[InWidth-1]}}, code};

    always_ff @(posedge clk_i) begin
      code_q  <= OutWidth'(value);
      below_q <= value < Low;
      above_q <= value > High;
      out_data_o[lane*OutWidth +: OutWidth] <= below_q ? OutWidth'(Low) : above_q ? OutWidth'(High) : code_q;
    end
  end

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
