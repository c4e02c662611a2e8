// SPDX-License-Identifier: Apache-2.0
// Square deformable depthwise convolution 3x3: one integer dilation per pixel, from a second stream.
//
//   out[y][x][c] = bias[c] + sum over ky, kx of in[y + (ky-1)*d][x + (kx-1)*d][c] * weight[ky][kx][c],  d = offset[y][x]
//   with in = 0 outside the image, 0 <= d <= MaxDilation (0: all taps on the centre), stride 1, size kept
//
// Loops: row, column, channel fold, ky, kx (innermost), one tap a cycle: a frame takes exactly Height*Width*Folds*9 cycles in
// steady state, Folds = ceil(Channels/Lanes), given enough Rows and Credits. Padding costs nothing. The ring holds
// 2*MaxDilation + 2 rows: every row that the largest d can reach, and the one being written; no tap ever reads a stale row.
// Latency from the last step of a word of the result to its output: 12 cycles; out_valid_o has no ready: a FIFO of Credits
// words must follow within the segment, its pop_o on give_i. The sampler does not clamp d: the graph proves its range. Where
// image and offset stem from one fork, a FIFO of at least (MaxDilation + 1)*Width offsets stands before this part.
//
// WeightFile: Folds*9 words, address (fold*3 + ky)*3 + kx, of one constant a lane, lane 0 low: a code of WeightWidth bits, or
// for "khot" Digits fields {enable, negative, shift}. Idle lanes are 0. BiasFile: Folds words of Lanes codes, lane 0 low.
module qfx_deform #(
  parameter int unsigned InWidth      = 8,     // bits of an activation
  parameter bit          InSigned     = 1'b0,  // activations are two's complement
  parameter int unsigned Height       = 8,     // rows of the image
  parameter int unsigned Width        = 8,     // columns of the image
  parameter int unsigned Channels     = 1,     // channels
  parameter int unsigned Lanes        = 1,     // channels a step
  parameter int unsigned MaxDilation  = 7,     // largest offset, at least 1
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
  parameter int unsigned Rows         = 2 * MaxDilation + 2, // rows of the ring
  parameter string       RamStyle     = "auto", // ram_style of the ring
  parameter int unsigned Credits      = 4,     // depth of the FIFO that closes the segment
  localparam int unsigned OffsetWidth = $clog2(MaxDilation + 1)
) (
  input  logic                        clk_i,
  input  logic                        rst_ni,
  input  logic                        in_valid_i,
  output logic                        in_ready_o,
  input  logic [Lanes*InWidth-1:0]    in_data_i,
  input  logic                        offset_valid_i,
  output logic                        offset_ready_o,
  input  logic [OffsetWidth-1:0]      offset_data_i,
  input  logic                        give_i,
  output logic                        out_valid_o,
  output logic [Lanes*AccWidth-1:0]   out_data_o
);

  localparam int unsigned Folds    = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned WordBits = Lanes * InWidth;

  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_deform: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
  end
  if (MaxDilation < 1) begin : gen_check_dilation
    $fatal(1, "qfx_deform: MaxDilation must be at least 1, not %0d", MaxDilation);
  end
  if (Rows < 2 * MaxDilation + 2) begin : gen_check_rows
    $fatal(1, "qfx_deform: Rows must be at least 2*MaxDilation + 2 = %0d, not %0d", 2 * MaxDilation + 2, Rows);
  end

  logic                step, first, last;
  logic [WordBits-1:0] data;

  qfx_agu_window #(
    .WordBits(WordBits), .Height(Height), .Width(Width), .KernelH(3), .KernelW(3),
    .StrideH(1), .StrideW(1), .DilationH(MaxDilation), .DilationW(MaxDilation),
    .PadTop(MaxDilation), .PadBottom(MaxDilation), .PadLeft(MaxDilation), .PadRight(MaxDilation),
    .Groups(Folds), .Folds(1), .Words(1), .TapLanes(1), .Square(1'b1), .Rows(Rows), .Credits(Credits), .RamStyle(RamStyle)
  ) u_window (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .dilation_valid_i(offset_valid_i),
    .dilation_ready_o(offset_ready_o),
    .dilation_data_i (offset_data_i),
    .give_i,
    .step_o          (step),
    .first_o         (first),
    .last_o          (last),
    .data_o          (data)
  );

  qfx_mac #(
    .Lanes       (Lanes),
    .Terms       (1),
    .AWidth      (InWidth),
    .ASigned     (InSigned),
    .WeightWidth (WeightWidth),
    .WeightSigned(WeightSigned),
    .Arithmetic  (Arithmetic),
    .Digits      (Digits),
    .ShiftWidth  (ShiftWidth),
    .AccWidth    (AccWidth),
    .BiasWidth   (BiasWidth),
    .WeightDepth (Folds * 9),
    .BiasDepth   (Folds),
    .WeightFile  (WeightFile),
    .BiasFile    (BiasFile),
    .WeightStyle (WeightStyle)
  ) u_mac (
    .clk_i,
    .rst_ni,
    .step_i (step),
    .first_i(first),
    .last_i (last),
    .a_i    (data),
    .out_valid_o,
    .out_data_o
  );

  // Assertions: those of qfx_agu_window and qfx_mac.

endmodule
