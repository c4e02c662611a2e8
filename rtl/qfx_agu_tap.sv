// SPDX-License-Identifier: Apache-2.0
// Ring address of one tap of a window, and whether the tap lies inside the image.
//
//   row = row_i + dy_i, col = col_i + dx_i, slot = (slot_i + dy_i) mod Rows
//   addr_o = slot * RowPixels * PixelWords + col * PixelWords + word_i,  in_image_o = row and col lie in the image
//
// Latency 6 cycles, one address per cycle, no reset. Outside the image the address is some word of the ring.
module qfx_agu_tap #(
  parameter int unsigned Height     = 8, // rows of the image, at least 1
  parameter int unsigned Width      = 8, // columns of the image, at least 1
  parameter int unsigned PixelWords = 1, // words a pixel, at least 1
  parameter int unsigned Rows       = 4, // rows of the ring, more than any dy_i
  parameter int unsigned RowWidth   = 5, // bits of row_i
  parameter int unsigned ColWidth   = 5, // bits of col_i
  parameter int unsigned DyWidth    = 2, // bits of dy_i
  parameter int unsigned DxWidth    = 2, // bits of dx_i
  localparam int unsigned SlotWidth = $clog2(Rows),
  localparam int unsigned WordWidth = (PixelWords > 1) ? $clog2(PixelWords) : 1,
  localparam int unsigned AddrWidth = $clog2(Rows * Width * PixelWords)
) (
  input  logic                       clk_i,
  input  logic signed [RowWidth-1:0] row_i,
  input  logic signed [ColWidth-1:0] col_i,
  input  logic [SlotWidth-1:0]       slot_i,
  input  logic [WordWidth-1:0]       word_i,
  input  logic [DyWidth-1:0]         dy_i,
  input  logic [DxWidth-1:0]         dx_i,
  output logic [AddrWidth-1:0]       addr_o,
  output logic                       in_image_o
);

  localparam int unsigned RowSum  = ((RowWidth > DyWidth + 1) ? RowWidth : DyWidth + 1) + 1;
  localparam int unsigned ColSum  = ((ColWidth > DxWidth + 1) ? ColWidth : DxWidth + 1) + 1;
  localparam int unsigned SlotSum = ((SlotWidth > DyWidth) ? SlotWidth : DyWidth) + 1;
  localparam int unsigned ColBits = (Width > 1) ? $clog2(Width) : 1;

  localparam int unsigned RowWords      = Width * PixelWords;
  localparam int unsigned RowWordsBits  = $clog2(RowWords + 1);
  localparam int unsigned PixelWordBits = $clog2(PixelWords + 1);

  if (Height < 1 || Width < 1 || PixelWords < 1 || Rows < 2) begin : gen_check_sizes
    $fatal(1, "qfx_agu_tap: Height, Width, PixelWords must be at least 1 and Rows 2, not %0d, %0d, %0d and %0d",
           Height, Width, PixelWords, Rows);
  end

  logic signed [RowSum-1:0]        row_q;
  logic signed [ColSum-1:0]        col_q;
  logic [SlotSum-1:0]              slot_sum_q;
  logic [SlotWidth-1:0]            slot_q;
  logic [ColBits-1:0]              col_in_q;
  logic                            row_in, col_in;
  logic [3:0]                      in_image_q;
  logic [4:0][WordWidth-1:0]       word_q;
  // Both are far below what the widths of the products allow, so their high bits are not used.
  /* verilator lint_off UNUSEDSIGNAL */
  logic signed [SlotWidth+RowWordsBits:0] slot_base;
  logic signed [ColBits+PixelWordBits:0]  col_base;
  /* verilator lint_on UNUSEDSIGNAL */

  assign row_in = int'(row_q) >= 0 && int'(row_q) < int'(Height);
  assign col_in = int'(col_q) >= 0 && int'(col_q) < int'(Width);

  always_ff @(posedge clk_i) begin
    // 1: position of the tap
    row_q      <= RowSum'(row_i) + RowSum'({1'b0, dy_i});
    col_q      <= ColSum'(col_i) + ColSum'({1'b0, dx_i});
    slot_sum_q <= SlotSum'(slot_i) + SlotSum'(dy_i);
    // 2: inside or not, and the slot wrapped
    slot_q   <= (slot_sum_q >= SlotSum'(Rows)) ? SlotWidth'(slot_sum_q - SlotSum'(Rows)) : SlotWidth'(slot_sum_q);
    col_in_q <= col_in ? ColBits'(col_q) : '0;
    in_image_q <= {in_image_q[2:0], row_in && col_in};
    word_q   <= {word_q[3:0], word_i};
    // 6: the sum of the three parts (3 to 5: the products)
    addr_o   <= AddrWidth'(slot_base) + AddrWidth'(col_base) + AddrWidth'(word_q[4]);
    in_image_o <= in_image_q[3];
  end

  qfx_mul_lut #(
    .AWidth (SlotWidth),
    .ASigned(1'b0),
    .BWidth (RowWordsBits),
    .BSigned(1'b0)
  ) u_slot_base (
    .clk_i,
    .a_i(slot_q),
    .b_i(RowWordsBits'(RowWords)),
    .p_o(slot_base)
  );

  qfx_mul_lut #(
    .AWidth (ColBits),
    .ASigned(1'b0),
    .BWidth (PixelWordBits),
    .BSigned(1'b0)
  ) u_col_base (
    .clk_i,
    .a_i(col_in_q),
    .b_i(PixelWordBits'(PixelWords)),
    .p_o(col_base)
  );

  // Assertions: none. One subtraction wraps the slot because no tap reaches a whole ring further (checked by qfx_agu).

endmodule
