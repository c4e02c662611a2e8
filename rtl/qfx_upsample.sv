// SPDX-License-Identifier: Apache-2.0
// Larger images by whole factors: each pixel becomes a block of RepeatH * RepeatW pixels.
//
//   out[y][x][c] = in[y / RepeatH][x / RepeatW][c], rounded down: the nearest neighbour
//   Blocks: c + Channels * (y % RepeatH * RepeatW + x % RepeatW) instead of c, of RepeatH*RepeatW*Channels channels: depth to
//   space; Lanes must then divide Channels
//
// A row is read from the ring RepeatH times. A frame takes exactly Height*RepeatH*Width*RepeatW*Folds cycles in steady state,
// Folds = ceil(Channels/Lanes), given enough Rows (qfx.plan.rows.enough_rows) and Credits. Latency from the step of a word to
// its output: 9 cycles; out_valid_o has no ready: a FIFO of Credits words must follow within the segment, its pop_o on give_i.
module qfx_upsample #(
  parameter int unsigned InWidth  = 8, // bits of a code, at least 1
  parameter int unsigned Height   = 8, // rows of the image
  parameter int unsigned Width    = 8, // columns of the image
  parameter int unsigned Channels = 1, // channels of the result
  parameter int unsigned RepeatH  = 2, // rows of the result for each of the image
  parameter int unsigned RepeatW  = 2, // columns of the result for each of the image
  parameter bit          Blocks   = 1'b0, // each pixel of a block has channels of its own
  parameter int unsigned Lanes    = 1, // channels a word
  parameter int unsigned Rows     = 2, // rows of the ring
  parameter string       RamStyle = "auto", // ram_style of the ring
  parameter int unsigned Credits  = 4  // depth of the FIFO that closes the segment
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     in_valid_i,
  output logic                     in_ready_o,
  input  logic [Lanes*InWidth-1:0] in_data_i,
  input  logic                     give_i,
  output logic                     out_valid_o,
  output logic [Lanes*InWidth-1:0] out_data_o
);

  if (InWidth < 1 || Channels < 1 || Lanes < 1) begin : gen_check_sizes
    $fatal(1, "qfx_upsample: InWidth, Channels and Lanes must be at least 1, not %0d, %0d and %0d", InWidth, Channels, Lanes);
  end

  if (Blocks && Channels % Lanes != 0) begin : gen_check_blocks
    $fatal(1, "qfx_upsample: Lanes must divide the %0d Channels of a block's pixel, not be %0d", Channels, Lanes);
  end

  logic                     step, first_unused, last_unused, dilation_ready_unused;
  logic [Lanes*InWidth-1:0] data;

  qfx_agu_window #(
    .WordBits(Lanes * InWidth), .Height(Height), .Width(Width), .KernelH(1), .KernelW(1), .StrideH(1), .StrideW(1),
    .DilationH(1), .DilationW(1), .PadTop(0), .PadBottom(0), .PadLeft(0), .PadRight(0), .RepeatH(RepeatH), .RepeatW(RepeatW),
    .Blocks(Blocks), .Groups((Channels + Lanes - 1) / Lanes), .Rows(Rows), .Credits(Credits), .RamStyle(RamStyle)
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
    .first_o         (first_unused),
    .last_o          (last_unused),
    .data_o          (data)
  );

  logic [2:0] step_q; // with the data, which come 2 cycles after their step, and their register

  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= '0;
    else step_q <= {step_q[1:0], step};
  end

  always_ff @(posedge clk_i) out_data_o <= data;

  assign out_valid_o = step_q[2];

  // Assertions: those of qfx_agu_window.

endmodule
