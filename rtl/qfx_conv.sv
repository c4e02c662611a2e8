// SPDX-License-Identifier: Apache-2.0
// Convolution with constant weights, any groups, stride, dilation and padding; dense layers as 1x1 on a 1x1 image.
//
//   out[oy][ox][co] = bias[co] + sum over ky, kx, ci of
//                     in[oy*StrideH - PadTop + ky*DilationH][ox*StrideW - PadLeft + kx*DilationW][ci] * weight[ky][kx][ci][co]
//   with in = 0 outside the image, ci within the group of co
//
// Loops: row, column, co fold, ky, kx, ci fold (innermost), one step a cycle: a frame takes exactly
// max(OutHeight*OutWidth*CoFolds*KyFolds*KxFolds*CiFolds, Height*Width*Groups*CiFolds) cycles in steady state, given enough
// Rows (qfx.plan.rows.enough_rows) and Credits. Padding costs nothing. Latency from the last step of a word of the
// result to its output: 12 + clog2(TapLanes*CiLanes) cycles; out_valid_o has no ready: a FIFO of Credits words must follow
// within the segment, its pop_o on give_i.
//
// CoFolds = Groups*ceil(Co/Groups/CoLanes), CiFolds = ceil(Ci/Groups/CiLanes). With Groups > 1 the lanes must divide the
// channels of a group. TapLanes = 1: KyFolds = KernelH, KxFolds = KernelW; KernelW: KxFolds = 1; KernelH*KernelW: both 1.
//
// WeightFile: CoFolds*KyFolds*KxFolds*CiFolds words, address ((cofold*KyFolds + ky)*KxFolds + kx)*CiFolds + cifold. A word
// holds, low end first, for each co lane, for each tap lane, for each ci lane (ci fastest), one constant: a code of
// WeightWidth bits, or for "khot" Digits fields {enable, negative, shift}. Tap lane p is kx = p, or (p / KernelW, p mod
// KernelW) when all taps are parallel. Idle lanes are 0. BiasFile: CoFolds words of CoLanes codes, lane 0 low, idle ones 0.
module qfx_conv #(
  parameter int unsigned InWidth      = 8,     // bits of an activation
  parameter bit          InSigned     = 1'b0,  // activations are two's complement
  parameter int unsigned Height       = 8,     // rows of the image
  parameter int unsigned Width        = 8,     // columns of the image
  parameter int unsigned Ci           = 1,     // input channels, a multiple of Groups
  parameter int unsigned Co           = 1,     // output channels, a multiple of Groups
  parameter int unsigned Groups       = 1,     // groups, at least 1
  parameter int unsigned KernelH      = 3,     // rows of the kernel
  parameter int unsigned KernelW      = 3,     // columns of the kernel
  parameter int unsigned StrideH      = 1,
  parameter int unsigned StrideW      = 1,
  parameter int unsigned DilationH    = 1,
  parameter int unsigned DilationW    = 1,
  parameter int unsigned PadTop       = 1,     // rows and columns of padding
  parameter int unsigned PadBottom    = 1,
  parameter int unsigned PadLeft      = 1,
  parameter int unsigned PadRight     = 1,
  parameter int unsigned CiLanes      = 1,     // input channels a step
  parameter int unsigned CoLanes      = 1,     // output channels a step
  parameter int unsigned TapLanes     = 1,     // taps a step: 1, KernelW or KernelH*KernelW
  parameter int unsigned WeightWidth  = 8,     // bits of a weight's code
  parameter bit          WeightSigned = 1'b1,  // weights are two's complement
  parameter int unsigned BiasWidth    = 16,    // bits of a bias, two's complement
  parameter int unsigned AccWidth     = 24,    // bits of a result, two's complement; must hold every result
  parameter string       Arithmetic   = "dsp", // dsp, lut or khot
  parameter int unsigned Digits       = 2,     // digits a weight, for khot
  parameter int unsigned ShiftWidth   = 3,     // bits of a digit's shift, for khot
  parameter string       WeightFile   = "",    // weights (layout above)
  parameter string       BiasFile     = "",    // biases (layout above), "" for none
  parameter string       WeightStyle  = "auto", // rom_style of the weights
  parameter int unsigned Rows         = (KernelH - 1) * DilationH + 1 + StrideH, // rows of the ring
  parameter string       RamStyle     = "auto", // ram_style of the ring
  parameter int unsigned Credits      = 4      // depth of the FIFO that closes the segment
) (
  input  logic                        clk_i,
  input  logic                        rst_ni,
  input  logic                        in_valid_i,
  output logic                        in_ready_o,
  input  logic [CiLanes*InWidth-1:0]  in_data_i,
  input  logic                        give_i,
  output logic                        out_valid_o,
  output logic [CoLanes*AccWidth-1:0] out_data_o
);

  localparam int unsigned CiFolds   = (Ci / Groups + CiLanes - 1) / CiLanes; // of one group
  localparam int unsigned CoFolds   = (Co / Groups + CoLanes - 1) / CoLanes; // of one group
  localparam int unsigned TapFolds  = KernelH * KernelW / TapLanes;
  localparam int unsigned Terms     = TapLanes * CiLanes;
  localparam int unsigned WordBits  = CiLanes * InWidth;

  if (Groups < 1 || Ci % Groups != 0 || Co % Groups != 0 || Ci < 1 || Co < 1) begin : gen_check_channels
    $fatal(1, "qfx_conv: Ci and Co must be positive multiples of Groups %0d, not %0d and %0d", Groups, Ci, Co);
  end
  if (Groups > 1 && ((Ci / Groups) % CiLanes != 0 || (Co / Groups) % CoLanes != 0)) begin : gen_check_lanes
    $fatal(1, "qfx_conv: CiLanes and CoLanes must divide the %0d and %0d channels of a group, not be %0d and %0d",
           Ci / Groups, Co / Groups, CiLanes, CoLanes);
  end

  logic                         step, first, last;
  logic [TapLanes*WordBits-1:0] data;
  logic                         dilation_ready_unused;

  qfx_agu_window #(
    .WordBits(WordBits), .Height(Height), .Width(Width), .KernelH(KernelH), .KernelW(KernelW),
    .StrideH(StrideH), .StrideW(StrideW), .DilationH(DilationH), .DilationW(DilationW),
    .PadTop(PadTop), .PadBottom(PadBottom), .PadLeft(PadLeft), .PadRight(PadRight),
    .Groups(Groups), .Folds(CoFolds), .Words(CiFolds), .TapLanes(TapLanes), .Rows(Rows), .Credits(Credits), .RamStyle(RamStyle)
  ) u_window (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .dilation_valid_i(1'b1),
    .dilation_ready_o(dilation_ready_unused),
    .dilation_data_i ('0),
    .give_i,
    .step_o          (step),
    .first_o         (first),
    .last_o          (last),
    .data_o          (data)
  );

  qfx_mac #(
    .Lanes       (CoLanes),
    .Terms       (Terms),
    .AWidth      (InWidth),
    .ASigned     (InSigned),
    .WeightWidth (WeightWidth),
    .WeightSigned(WeightSigned),
    .Arithmetic  (Arithmetic),
    .Digits      (Digits),
    .ShiftWidth  (ShiftWidth),
    .AccWidth    (AccWidth),
    .BiasWidth   (BiasWidth),
    .WeightDepth (Groups * CoFolds * TapFolds * CiFolds),
    .BiasDepth   (Groups * CoFolds),
    .WeightFile  (WeightFile),
    .BiasFile    (BiasFile),
    .WeightStyle (WeightStyle)
  ) u_mac (
    .clk_i,
    .rst_ni,
    .step_i (step),
    .first_i(first),
    .last_i (last),
    .a_i    ({CoLanes{data}}), // every output channel sees the same taps
    .out_valid_o,
    .out_data_o
  );

  // Assertions: those of qfx_agu_window and qfx_mac.

endmodule
