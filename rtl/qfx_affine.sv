// SPDX-License-Identifier: Apache-2.0
// Multiplies and adds a constant per channel, exactly: a fixed-point BatchNorm.
//
//   out[c] = in[c] * scale[c] + shift[c]
//
// Latency 6 cycles, one word per cycle, no back-pressure. Limit: OutWidth holds every result, not every product.
//
// ScaleFile: ceil(Channels/Lanes) words; word g holds, lane 0 low, the scale of channel g*Lanes + lane: a code of ScaleWidth
// bits, or for "khot" Digits fields {enable, negative, shift} of ShiftWidth + 2 bits, digit 0 low, as qfx_mul_khot takes
// them. OffsetFile: likewise the shifts, codes of OffsetWidth bits on the grid f_in + f_scale; "" for none. Idle lanes 0.
module qfx_affine #(
  parameter int unsigned InWidth     = 8,     // bits of an input code
  parameter bit          InSigned    = 1'b1,  // input codes are two's complement
  parameter int unsigned ScaleWidth  = 8,     // bits of a scale's code
  parameter bit          ScaleSigned = 1'b1,  // scales are two's complement
  parameter int unsigned OffsetWidth = 16,    // bits of a shift's code, two's complement
  parameter int unsigned OutWidth    = 18,    // bits of a result, two's complement; must hold every result
  parameter int unsigned Lanes       = 1,     // channels a word, at least 1
  parameter int unsigned Channels    = 1,     // channels a pixel, at least 1
  parameter string       Arithmetic  = "dsp", // dsp, lut or khot
  parameter int unsigned Digits      = 2,     // digits a scale, for khot
  parameter int unsigned ShiftWidth  = 3,     // bits of a digit's shift, for khot
  parameter string       ScaleFile   = "",    // scales by channel group (layout above)
  parameter string       OffsetFile  = ""     // shifts by channel group (layout above), "" for none
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      in_valid_i,
  input  logic [Lanes*InWidth-1:0]  in_data_i,
  output logic                      out_valid_o,
  output logic [Lanes*OutWidth-1:0] out_data_o
);

  localparam int unsigned Groups = (Channels + Lanes - 1) / Lanes;

  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_affine: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
  end

  // One step of a multiply-accumulate is one word: the data arrives with the constants, two cycles behind the step.
  logic [Lanes*InWidth-1:0] data_q, data_q2;

  always_ff @(posedge clk_i) begin
    data_q  <= in_data_i;
    data_q2 <= data_q;
  end

  qfx_mac #(
    .Lanes       (Lanes),
    .Terms       (1),
    .AWidth      (InWidth),
    .ASigned     (InSigned),
    .WeightWidth (ScaleWidth),
    .WeightSigned(ScaleSigned),
    .Arithmetic  (Arithmetic),
    .Digits      (Digits),
    .ShiftWidth  (ShiftWidth),
    .AccWidth    (OutWidth),
    .BiasWidth   (OffsetWidth),
    .WeightDepth (Groups),
    .BiasDepth   (Groups),
    .WeightFile  (ScaleFile),
    .BiasFile    (OffsetFile)
  ) u_mac (
    .clk_i,
    .rst_ni,
    .step_i (in_valid_i),
    .first_i(1'b1),
    .last_i (1'b1),
    .a_i    (data_q2),
    .out_valid_o,
    .out_data_o
  );

  // Assertions: those of qfx_mac.

endmodule
