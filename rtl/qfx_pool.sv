// SPDX-License-Identifier: Apache-2.0
// Pooling: the maximum or the exact sum of each window (an average is a sum with an Affine and a Requantize behind it).
//
//   out[oy][ox][c] = maximum or sum over ky, kx of in[oy*StrideH - PadTop + ky][ox*StrideW - PadLeft + kx][c]
//   with in = the smallest code ("max") or 0 ("sum") outside the image
//
// Loops: row, column, channel fold, ky, kx (innermost), one step a cycle: a frame takes exactly
// max(OutHeight*OutWidth*Folds*KyFolds*KxFolds, Height*Width*Folds) cycles in steady state, Folds = ceil(Channels/Lanes), given
// enough Rows (qfx.plan.rows.enough_rows) and Credits. Padding costs nothing. Latency from the last step of a word of the
// result to its output: 10 + clog2(TapLanes) cycles; out_valid_o has no ready: a FIFO of Credits words must follow within
// the segment, its pop_o on give_i. TapLanes = 1: KyFolds = KernelH, KxFolds = KernelW; KernelW: KxFolds = 1;
// KernelH*KernelW: both 1.
module qfx_pool #(
  parameter string       Reduction    = "max", // max or sum
  parameter int unsigned InWidth      = 8,     // bits of an activation
  parameter bit          InSigned     = 1'b0,  // activations are two's complement
  parameter int unsigned OutWidth     = 8,     // bits of a result, signed as the activations: InWidth, or what holds every sum
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
  output logic [Lanes*OutWidth-1:0]   out_data_o
);

  localparam bit          Maximum  = Reduction == "max";
  localparam int unsigned Folds    = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned WordBits = Lanes * InWidth;

  // The smallest code has its top bit alone where codes are signed, and no bit where they are not.
  localparam logic [InWidth-1:0] Outside = InWidth'(Maximum && InSigned) << (InWidth - 1);

  if (Reduction != "max" && Reduction != "sum") begin : gen_check_reduction
    $fatal(1, "qfx_pool: Reduction must be max or sum, not %s", Reduction);
  end
  if (Maximum && OutWidth != InWidth) begin : gen_check_width
    $fatal(1, "qfx_pool: OutWidth of a maximum must be InWidth %0d, not %0d", InWidth, OutWidth);
  end
  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_pool: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
  end

  logic                         step, first, last;
  logic [TapLanes*WordBits-1:0] data;
  logic                         dilation_ready_unused;

  qfx_agu_window #(
    .WordBits(WordBits), .Outside({Lanes{Outside}}), .Height(Height), .Width(Width), .KernelH(KernelH), .KernelW(KernelW),
    .StrideH(StrideH), .StrideW(StrideW), .DilationH(1), .DilationW(1),
    .PadTop(PadTop), .PadBottom(PadBottom), .PadLeft(PadLeft), .PadRight(PadRight),
    .Groups(Folds), .Folds(1), .Words(1), .TapLanes(TapLanes), .Rows(Rows), .Credits(Credits), .RamStyle(RamStyle)
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

  localparam int unsigned Levels    = $clog2(TapLanes);
  localparam int unsigned TreeDelay = 2 + 1 + Levels;            // from step to the result of the step's taps
  localparam int unsigned TermWidth = InWidth + 32'(!InSigned);  // a tap in two's complement
  localparam int unsigned SumWidth  = (TermWidth + Levels < OutWidth) ? TermWidth + Levels : OutWidth;
  localparam int unsigned TreeWidth = Maximum ? TermWidth : SumWidth;

  // The same number in two's complement
  function automatic logic signed [TermWidth-1:0] term(logic [InWidth-1:0] code);
    return TermWidth'(signed'({InSigned && code[InWidth-1], code}));
  endfunction

  logic [TreeDelay:0]   step_q, last_q;
  logic [TreeDelay-1:0] first_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= '0;
    else step_q <= {step_q[TreeDelay-1:0], step};
  end

  always_ff @(posedge clk_i) begin
    first_q <= {first_q[TreeDelay-2:0], first};
    last_q  <= {last_q[TreeDelay-1:0], last};
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [TapLanes*TermWidth-1:0] taps_q;
    logic [TreeWidth-1:0]          reduced;
    logic [OutWidth-1:0]           result_q;

    for (genvar tap = 0; tap < TapLanes; tap++) begin : gen_tap
      always_ff @(posedge clk_i) taps_q[tap*TermWidth +: TermWidth] <= term(data[tap*WordBits + lane*InWidth +: InWidth]);
    end

    qfx_tree #(.Reduction(Reduction), .Terms(TapLanes), .InWidth(TermWidth), .OutWidth(TreeWidth)) u_tree (
      .clk_i,
      .terms_i(taps_q),
      .out_o  (reduced)
    );

    if (Maximum) begin : gen_max
      logic larger;

      assign larger = signed'(reduced) > term(result_q);
      always_ff @(posedge clk_i) begin
        if (step_q[TreeDelay-1] && (first_q[TreeDelay-1] || larger)) result_q <= OutWidth'(reduced);
      end
    end else begin : gen_sum
      always_ff @(posedge clk_i) begin
        if (step_q[TreeDelay-1]) result_q <= (first_q[TreeDelay-1] ? '0 : result_q) + OutWidth'(signed'(reduced));
      end
    end
    assign out_data_o[lane*OutWidth +: OutWidth] = result_q;
  end

  assign out_valid_o = step_q[TreeDelay] && last_q[TreeDelay];

  // Assertions: those of qfx_agu_window.

endmodule
