// SPDX-License-Identifier: Apache-2.0
// Max pooling.
//
//   out[oy][ox][c] = maximum over ky, kx of in[oy*StrideH - PadTop + ky][ox*StrideW - PadLeft + kx][c]
//   with in = the smallest code outside the image
//
// Loops: row, column, channel fold, ky, kx (innermost), one step a cycle: a frame takes exactly
// max(OutHeight*OutWidth*Folds*KyFolds*KxFolds, Height*Width*Folds) cycles in steady state, Folds = ceil(Channels/Lanes), given
// enough Rows (qfx.plan.parts.enough_rows) and Credits. Padding costs nothing. Latency from the last step of a word of the
// result to its output: 10 + clog2(TapLanes) cycles; out_valid_o has no ready: a FIFO of Credits words must follow within
// the segment, its pop_o on give_i. TapLanes = 1: KyFolds = KernelH, KxFolds = KernelW; KernelW: KxFolds = 1;
// KernelH*KernelW: both 1.
module qfx_maxpool #(
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
  output logic [Lanes*InWidth-1:0]    out_data_o
);

  localparam int unsigned Folds    = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned WordBits = Lanes * InWidth;

  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_maxpool: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
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

  localparam int unsigned Levels   = (TapLanes > 1) ? $clog2(TapLanes) : 0;
  localparam int unsigned MaxDelay = 2 + 1 + Levels; // from step to the maximum of the step's taps
  localparam logic [InWidth-1:0] Smallest = InSigned ? {1'b1, {(InWidth-1){1'b0}}} : '0;

  logic [MaxDelay:0]   step_q, last_q;
  logic [MaxDelay-1:0] first_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= '0;
    else step_q <= {step_q[MaxDelay-1:0], step};
  end

  always_ff @(posedge clk_i) begin
    first_q <= {first_q[MaxDelay-2:0], first};
    last_q  <= {last_q[MaxDelay-1:0], last};
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [TapLanes*InWidth-1:0] taps_q;
    logic [InWidth-1:0]          step_max, max_q;
    logic                        larger;

    for (genvar tap = 0; tap < TapLanes; tap++) begin : gen_tap
      always_ff @(posedge clk_i) begin
        taps_q[tap*InWidth +: InWidth] <= in_image[tap] ? data[tap*WordBits + lane*InWidth +: InWidth] : Smallest;
      end
    end

    qfx_maxpool_tree #(.Terms(TapLanes), .Width(InWidth), .Signed(InSigned)) u_tree (
      .clk_i,
      .terms_i(taps_q),
      .max_o  (step_max)
    );

    // With the sign bit turned over, two's complement compares like an unsigned number.
    assign larger = (step_max ^ Smallest) > (max_q ^ Smallest);

    always_ff @(posedge clk_i) begin
      if (step_q[MaxDelay-1] && (first_q[MaxDelay-1] || larger)) max_q <= step_max;
    end
    assign out_data_o[lane*InWidth +: InWidth] = max_q;
  end

  assign out_valid_o = step_q[MaxDelay] && last_q[MaxDelay];

  // Assertions: those of qfx_agu_window.

endmodule
