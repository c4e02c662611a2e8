// SPDX-License-Identifier: Apache-2.0
// Sum pooling: the exact sum of each window (an average is an Affine and a Requantize behind it).
//
//   out[oy][ox][c] = sum over ky, kx of in[oy*StrideH - PadTop + ky][ox*StrideW - PadLeft + kx][c]
//   with in = 0 outside the image
//
// Loops: row, column, channel fold, ky, kx (innermost), one step a cycle: a frame takes exactly
// max(OutHeight*OutWidth*Folds*KyFolds*KxFolds, Height*Width*Folds) cycles in steady state, Folds = ceil(Channels/Lanes), given
// enough Rows (qfx.plan.parts.enough_rows) and Credits. Padding costs nothing. Latency from the last step of a word of the
// result to its output: 10 + clog2(TapLanes) cycles; out_valid_o has no ready: a FIFO of Credits words must follow within
// the segment, its pop_o on give_i. TapLanes = 1: KyFolds = KernelH, KxFolds = KernelW; KernelW: KxFolds = 1;
// KernelH*KernelW: both 1. OutWidth must hold every sum.
module qfx_sumpool #(
  parameter int unsigned InWidth      = 8,     // bits of an activation
  parameter bit          InSigned     = 1'b0,  // activations are two's complement
  parameter int unsigned Height       = 8,     // rows of the image
  parameter int unsigned Width        = 8,     // columns of the image
  parameter int unsigned Channels     = 1,     // channels
  parameter int unsigned KernelH      = 3,     // rows of the kernel
  parameter int unsigned KernelW      = 3,     // columns of the kernel
  parameter int unsigned StrideH      = 1,
  parameter int unsigned StrideW      = 1,
  parameter int unsigned PadTop       = 1,     // rows and columns of padding
  parameter int unsigned PadBottom    = 1,
  parameter int unsigned PadLeft      = 1,
  parameter int unsigned PadRight     = 1,
  parameter int unsigned Lanes        = 1,     // channels a step
  parameter int unsigned TapLanes     = 1,     // taps a step: 1, KernelW or KernelH*KernelW
  parameter int unsigned OutWidth      = 12,    // bits of a sum, signed as the activations
  parameter int unsigned Rows         = KernelH + StrideH, // rows of the ring
  parameter string       RamStyle     = "auto", // ram_style of the ring
  parameter int unsigned Credits      = 4      // depth of the FIFO that closes the segment
) (
  input  logic                        clk_i,
  input  logic                        rst_ni,
  input  logic                        in_valid_i,
  output logic                        in_ready_o,
  input  logic [Lanes*InWidth-1:0]    in_data_i,
  input  logic                        give_i,
  output logic                        out_valid_o,
  output logic [Lanes*OutWidth-1:0]    out_data_o
);

  localparam int unsigned Folds    = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned WordBits = Lanes * InWidth;

  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_sumpool: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
  end

  logic                          step, first, last;
  logic [TapLanes*WordBits-1:0]  data;
  logic [TapLanes-1:0]           in_image;
  logic                          dilation_ready_unused;

  qfx_agu_window #(
    .WordBits (WordBits),
    .Height   (Height),
    .Width    (Width),
    .KernelH  (KernelH),
    .KernelW  (KernelW),
    .StrideH  (StrideH),
    .StrideW  (StrideW),
    .DilationH(1),
    .DilationW(1),
    .PadTop   (PadTop),
    .PadBottom(PadBottom),
    .PadLeft  (PadLeft),
    .PadRight (PadRight),
    .Groups   (Folds),
    .Folds    (1),
    .Words    (1),
    .TapLanes (TapLanes),
    .Rows     (Rows),
    .Credits  (Credits),
    .RamStyle (RamStyle)
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
    .data_o          (data),
    .in_image_o        (in_image)
  );

  localparam int unsigned Levels    = (TapLanes > 1) ? $clog2(TapLanes) : 0;
  localparam int unsigned SumDelay  = 2 + 1 + Levels; // from step to the sum of the step's taps
  localparam int unsigned TermWidth = InWidth + 32'(!InSigned); // a tap in two's complement
  localparam int unsigned TreeWidth = (TermWidth + Levels < OutWidth) ? TermWidth + Levels : OutWidth;

  logic [SumDelay:0]   step_q, last_q;
  logic [SumDelay-1:0] first_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= '0;
    else step_q <= {step_q[SumDelay-1:0], step};
  end

  always_ff @(posedge clk_i) begin
    first_q <= {first_q[SumDelay-2:0], first};
    last_q  <= {last_q[SumDelay-1:0], last};
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [TapLanes*TermWidth-1:0] taps_q;
    logic [TreeWidth-1:0]          sum;
    logic [OutWidth-1:0]            acc_q;

    for (genvar tap = 0; tap < TapLanes; tap++) begin : gen_tap
      logic [InWidth-1:0] code;

      assign code = data[tap*WordBits + lane*InWidth +: InWidth];
      if (InSigned) begin : gen_signed
        always_ff @(posedge clk_i) taps_q[tap*TermWidth +: TermWidth] <= in_image[tap] ? code : '0;
      end else begin : gen_unsigned
        always_ff @(posedge clk_i) taps_q[tap*TermWidth +: TermWidth] <= in_image[tap] ? {1'b0, code} : '0;
      end
    end

    qfx_mac_tree #(.Terms(TapLanes), .InWidth(TermWidth), .OutWidth(TreeWidth)) u_tree (
      .clk_i,
      .terms_i(taps_q),
      .sum_o  (sum)
    );

    always_ff @(posedge clk_i) begin
      if (step_q[SumDelay-1]) acc_q <= (first_q[SumDelay-1] ? '0 : acc_q) + OutWidth'(signed'(sum));
    end
    assign out_data_o[lane*OutWidth +: OutWidth] = acc_q;
  end

  assign out_valid_o = step_q[SumDelay] && last_q[SumDelay];

  // Assertions: those of qfx_agu_window.

endmodule
