// SPDX-License-Identifier: Apache-2.0
// The taps of every window of an image: row ring, address generator and tap addresses; what convolution and pooling share.
//
//   for row, col of a window, group, fold, ky, kx, word (the order of qfx_agu): one step, TapLanes taps of the window
//
// Each row of windows is walked RepeatH times, each window RepeatW times in each of them; with Blocks the words of a pixel are
// RepeatH*RepeatW times as many, and each walk takes the next Groups*Words of them.
// A step is announced by step_o with first_o and last_o (of a word of the result); its data_o follows 2 cycles later, as
// from a memory. Tap lane p holds the tap (ky, kx) with TapLanes = 1: serial; KernelW: kx = p; KernelH*KernelW:
// ky = p / KernelW, kx = p mod KernelW. A tap outside the image is the word Outside.
//
// Square = 1 (kernel 3x3, stride 1, TapLanes 1): the taps lie at centre + (ky-1, kx-1)*d, d from the stream dilation, one
// per output pixel, 0 <= d <= DilationH; DilationH = DilationW is the largest d, PadTop and PadLeft must equal it.
// Square = 0: tie dilation_valid_i to 1.
//
// Latency from the step (credit taken) to step_o 6 cycles. One step per cycle: with enough Rows, credits and input a frame
// takes exactly OutHeight*RepeatH*OutWidth*RepeatW*Groups*Folds*(serial taps)*Words cycles, or Height*Width*Groups*Words where
// that is more.
module qfx_agu_window #(
  parameter int unsigned WordBits  = 8, // bits a word, at least 1
  parameter logic [WordBits-1:0] Outside = '0, // word of a tap in the padding
  parameter int unsigned Height    = 8, // rows of the image, at least 1
  parameter int unsigned Width     = 8, // columns of the image, at least 1
  parameter int unsigned KernelH   = 3, // rows of the kernel, at least 1
  parameter int unsigned KernelW   = 3, // columns of the kernel, at least 1
  parameter int unsigned StrideH   = 1, // at least 1
  parameter int unsigned StrideW   = 1, // at least 1
  parameter int unsigned DilationH = 1, // at least 1
  parameter int unsigned DilationW = 1, // at least 1
  parameter int unsigned PadTop    = 1, // rows of padding
  parameter int unsigned PadBottom = 1,
  parameter int unsigned PadLeft   = 1, // columns of padding
  parameter int unsigned PadRight  = 1,
  parameter int unsigned RepeatH   = 1, // pixels of the result below each other for each window
  parameter int unsigned RepeatW   = 1, // and side by side
  parameter bit          Blocks    = 1'b0, // each of these pixels has words of its own, one behind the other
  parameter int unsigned Groups    = 1, // groups of channels
  parameter int unsigned Folds     = 1, // words of the result a group
  parameter int unsigned Words     = 1, // words of the image a pixel and group
  parameter int unsigned TapLanes  = 1, // taps a step: 1, KernelW or KernelH*KernelW
  parameter bit          Square    = 1'b0, // dilation from the stream
  parameter int unsigned Rows      = (KernelH - 1) * DilationH + 1 + StrideH, // rows of the ring
  parameter int unsigned Credits   = 4, // depth of the FIFO that closes the segment, at least 1
  parameter string       RamStyle  = "auto", // ram_style of the ring
  localparam int unsigned DilationWidth = $clog2(DilationH + 1)
) (
  input  logic                         clk_i,
  input  logic                         rst_ni,
  input  logic                         in_valid_i,
  output logic                         in_ready_o,
  input  logic [WordBits-1:0]          in_data_i,
  input  logic                         dilation_valid_i,
  output logic                         dilation_ready_o,
  input  logic [DilationWidth-1:0]     dilation_data_i,
  input  logic                         give_i,
  output logic                         step_o,
  output logic                         first_o,
  output logic                         last_o,
  output logic [TapLanes*WordBits-1:0] data_o
);

  localparam int unsigned ReachH    = (KernelH - 1) * DilationH;
  localparam int unsigned ReachW    = (KernelW - 1) * DilationW;
  localparam int unsigned OutHeight = (Height + PadTop + PadBottom - ReachH - 1) / StrideH + 1;
  localparam int unsigned OutWidth  = (Width + PadLeft + PadRight - ReachW - 1) / StrideW + 1;

  localparam int unsigned LanesH = (TapLanes == KernelH * KernelW) ? KernelH : 1; // parallel taps over rows
  localparam int unsigned LanesW = TapLanes / LanesH;                             // and columns
  localparam int unsigned TapsH  = KernelH / LanesH;                              // serial taps over rows
  localparam int unsigned TapsW  = KernelW / LanesW;                              // and columns
  localparam int unsigned StepH  = Square ? 1 : DilationH;
  localparam int unsigned StepW  = Square ? 1 : DilationW;

  localparam int unsigned PixelWords   = Groups * Words * (Blocks ? RepeatH * RepeatW : 1);
  localparam int unsigned AddressDelay = 6; // latency of qfx_agu_tap

  localparam int unsigned RowWidth     = $clog2(OutHeight * StrideH + PadTop + 1) + 1;
  localparam int unsigned ColWidth     = $clog2(OutWidth * StrideW + PadLeft + 1) + 1;
  localparam int unsigned SlotWidth    = $clog2(Rows);
  localparam int unsigned KyWidth      = (TapsH > 1) ? $clog2((TapsH - 1) * StepH + 1) : 1;
  localparam int unsigned KxWidth      = (TapsW > 1) ? $clog2((TapsW - 1) * StepW + 1) : 1;
  localparam int unsigned PixelWidth   = (Width > 1) ? $clog2(Width) : 1;
  localparam int unsigned GroupWord    = (PixelWords > 1) ? $clog2(PixelWords) : 1;
  localparam int unsigned ReleaseWidth = $clog2(Height + 1);
  localparam int unsigned AddrWidth    = $clog2(Rows * Width * PixelWords);
  localparam int unsigned DyWidth      = $clog2(ReachH + 1) + 1;
  localparam int unsigned DxWidth      = $clog2(ReachW + 1) + 1;

  if (TapLanes != 1 && TapLanes != KernelW && TapLanes != KernelH * KernelW) begin : gen_check_taps
    $fatal(1, "qfx_agu_window: TapLanes must be 1, KernelW or KernelH*KernelW, not %0d", TapLanes);
  end
  if (KernelH < 1 || KernelW < 1 || DilationH < 1 || DilationW < 1 || StrideH < 1 || StrideW < 1) begin : gen_check_kernel
    $fatal(1, "qfx_agu_window: kernel, dilation and stride must be at least 1x1, not %0dx%0d, %0dx%0d and %0dx%0d",
           KernelH, KernelW, DilationH, DilationW, StrideH, StrideW);
  end
  if (Height + PadTop + PadBottom <= ReachH || Width + PadLeft + PadRight <= ReachW) begin : gen_check_fit
    $fatal(1, "qfx_agu_window: the padded image must hold a window of %0dx%0d, not be %0dx%0d",
           ReachH + 1, ReachW + 1, Height + PadTop + PadBottom, Width + PadLeft + PadRight);
  end
  if (Square && (KernelH != 3 || KernelW != 3 || StrideH != 1 || StrideW != 1 || TapLanes != 1 ||
                 DilationH != DilationW || PadTop != DilationH || PadLeft != DilationH)) begin : gen_check_square
    $fatal(1, "qfx_agu_window: Square needs kernel 3x3, stride 1, TapLanes 1 and padding equal to the dilation %0d",
           DilationH);
  end

  logic [ReleaseWidth-1:0]    release_now, release_late;
  logic                       ring_row, credit, take, step, first, last, pixel_last, dilation_valid;
  logic [PixelWidth-1:0]      ring_pixels;
  logic signed [RowWidth-1:0] row;
  logic signed [ColWidth-1:0] col;
  logic [SlotWidth-1:0]       slot;
  logic [KyWidth-1:0]         ky;
  logic [KxWidth-1:0]         kx;
  logic [GroupWord-1:0]       word;
  logic [DyWidth-1:0]         dy;
  logic [DxWidth-1:0]         dx;
  logic [TapLanes*AddrWidth-1:0] address;
  logic [TapLanes*WordBits-1:0]  read;
  logic [TapLanes-1:0]           in_image, in_image_q, in_image_read; // of an address, of what is being read, of what is read

  qfx_ring #(
    .Width       (WordBits),
    .RowPixels   (Width),
    .PixelWords  (PixelWords),
    .Rows        (Rows),
    .ReadPorts   (TapLanes),
    .ReleaseWidth(ReleaseWidth),
    .Style       (RamStyle)
  ) u_ring (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .row_o    (ring_row),
    .pixels_o (ring_pixels),
    .release_i(release_late),
    .raddr_i  (address),
    .rdata_o  (read)
  );

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (take),
    .give_i,
    .available_o(credit)
  );

  qfx_agu #(
    .Height   (Height),
    .Width    (Width),
    .OutHeight(OutHeight),
    .OutWidth (OutWidth),
    .StrideH  (StrideH),
    .StrideW  (StrideW),
    .PadTop   (PadTop),
    .PadLeft  (PadLeft),
    .ReachH   (ReachH),
    .ReachW   (ReachW),
    .RepeatH  (RepeatH),
    .RepeatW  (RepeatW),
    .Blocks   (Blocks),
    .Rows     (Rows),
    .Groups   (Groups),
    .Folds    (Folds),
    .TapsH    (TapsH),
    .TapsW    (TapsW),
    .StepH    (StepH),
    .StepW    (StepW),
    .Words    (Words)
  ) u_agu (
    .clk_i,
    .rst_ni,
    .start_i      (dilation_valid),
    .credit_i     (credit),
    .take_o       (take),
    .ring_row_i   (ring_row),
    .ring_pixels_i(ring_pixels),
    .release_o    (release_now),
    .step_o       (step),
    .first_o      (first),
    .last_o       (last),
    .pixel_last_o (pixel_last),
    .row_o        (row),
    .col_o        (col),
    .slot_o       (slot),
    .ky_o         (ky),
    .kx_o         (kx),
    .word_o       (word)
  );

  // Offset of tap lane 0 from the window's corner
  if (Square) begin : gen_square
    logic [DilationWidth-1:0] dilation;
    logic                     pop_unused;

    qfx_fifo #(.Width(DilationWidth), .Depth(2)) u_dilation (
      .clk_i,
      .rst_ni,
      .in_valid_i (dilation_valid_i),
      .in_ready_o (dilation_ready_o),
      .in_data_i  (dilation_data_i),
      .out_valid_o(dilation_valid),
      .out_ready_i(step && pixel_last),
      .out_data_o (dilation),
      .pop_o      (pop_unused)
    );

    // D + (k - 1) * d for k = 0, 1, 2
    assign dy = DyWidth'(DilationH) + (ky == 0 ? -DyWidth'(dilation) : ky == 1 ? '0 : DyWidth'(dilation));
    assign dx = DxWidth'(DilationW) + (kx == 0 ? -DxWidth'(dilation) : kx == 1 ? '0 : DxWidth'(dilation));
`ifndef SYNTHESIS
    if ((1 << DilationWidth) > DilationH + 1) begin : gen_check_dilation
      always_ff @(posedge clk_i) begin
        // The sampler does not clamp: the graph's verifier proves the range.
        assert (!rst_ni || !dilation_valid_i || 32'(dilation_data_i) <= DilationH)
          else $error("qfx_agu_window: dilation must be at most %0d, not %0d", DilationH, dilation_data_i);
      end
    end
`endif
  end else begin : gen_fixed
    logic unused;

    assign unused           = &{1'b0, dilation_data_i, pixel_last};
    assign dilation_valid   = dilation_valid_i;
    assign dilation_ready_o = 1'b1;
    assign dy               = DyWidth'(ky);
    assign dx               = DxWidth'(kx);
  end

  for (genvar lane = 0; lane < TapLanes; lane++) begin : gen_tap
    qfx_agu_tap #(
      .Height    (Height),
      .Width     (Width),
      .PixelWords(PixelWords),
      .Rows      (Rows),
      .RowWidth  (RowWidth),
      .ColWidth  (ColWidth),
      .DyWidth   (DyWidth),
      .DxWidth   (DxWidth)
    ) u_tap (
      .clk_i,
      .row_i   (row),
      .col_i   (col),
      .slot_i  (slot),
      .word_i  (word),
      .dy_i    (dy + DyWidth'((lane / LanesW) * DilationH)),
      .dx_i    (dx + DxWidth'((lane % LanesW) * DilationW)),
      .addr_o  (address[lane*AddrWidth +: AddrWidth]),
      .in_image_o(in_image[lane])
    );
    assign data_o[lane*WordBits +: WordBits] = in_image_read[lane] ? read[lane*WordBits +: WordBits] : Outside;
  end

  // The step travels with its address; a row is released when its last address has arrived.
  logic [AddressDelay-1:0]                   step_q, first_q, last_q;
  logic [AddressDelay-2:0][ReleaseWidth-1:0] release_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      step_q    <= '0;
      release_q <= '0;
    end else begin
      step_q    <= {step_q[AddressDelay-2:0], step};
      release_q <= {release_q[AddressDelay-3:0], release_now};
    end
  end

  always_ff @(posedge clk_i) begin
    first_q  <= {first_q[AddressDelay-2:0], first};
    last_q   <= {last_q[AddressDelay-2:0], last};
    in_image_q    <= in_image;
    in_image_read <= in_image_q;
  end

  assign step_o       = step_q[AddressDelay-1];
  assign first_o      = first_q[AddressDelay-1];
  assign last_o       = last_q[AddressDelay-1];
  assign release_late = release_q[AddressDelay-2];

  // Assertions: those of qfx_ring, qfx_agu, qfx_agu_tap and qfx_credit, and of the dilation above.

endmodule
