// SPDX-License-Identifier: Apache-2.0
// Source of a segment that keeps some rows and columns of an image and drops the others.
//
//   kept: rows FirstRow, FirstRow + StepH, .. LastRow of Height, columns FirstCol, FirstCol + StepW, .. LastCol of Width
//
// Latency 2 cycles, one word in per cycle; a dropped word needs no credit. give_i returns one credit: connect it to pop_o of
// the FIFO that closes the segment.
module qfx_slice #(
  parameter int unsigned WordBits   = 8, // bits a word, at least 1
  parameter int unsigned Height     = 8, // rows of the image, at least 1
  parameter int unsigned Width      = 8, // columns of the image, at least 1
  parameter int unsigned PixelWords = 1, // words a pixel, at least 1
  parameter int unsigned FirstRow   = 0, // first row kept
  parameter int unsigned LastRow    = 7, // last row kept, a multiple of StepH behind it
  parameter int unsigned StepH      = 1, // at least 1
  parameter int unsigned FirstCol   = 0, // first column kept
  parameter int unsigned LastCol    = 7, // last column kept, a multiple of StepW behind it
  parameter int unsigned StepW      = 1, // at least 1
  parameter int unsigned Credits    = 4  // depth of the FIFO that closes the segment, at least 1
) (
  input  logic                clk_i,
  input  logic                rst_ni,
  input  logic                in_valid_i,
  output logic                in_ready_o,
  input  logic [WordBits-1:0] in_data_i,
  output logic                out_valid_o,
  output logic [WordBits-1:0] out_data_o,
  input  logic                give_i
);

  localparam int unsigned RowWidth  = (Height > 1) ? $clog2(Height) : 1;
  localparam int unsigned ColWidth  = (Width > 1) ? $clog2(Width) : 1;
  localparam int unsigned WordWidth = (PixelWords > 1) ? $clog2(PixelWords) : 1;

  if (WordBits < 1 || Height < 1 || Width < 1 || PixelWords < 1 || StepH < 1 || StepW < 1) begin : gen_check_sizes
    $fatal(1, "qfx_slice: WordBits, image, PixelWords and steps must be at least 1, not %0d, %0dx%0d, %0d and %0dx%0d",
           WordBits, Height, Width, PixelWords, StepH, StepW);
  end
  if (LastRow >= Height || FirstRow > LastRow || (LastRow - FirstRow) % StepH != 0) begin : gen_check_rows
    $fatal(1, "qfx_slice: the rows %0d, %0d, .. %0d must lie in 0..%0d", FirstRow, FirstRow + StepH, LastRow, Height - 1);
  end
  if (LastCol >= Width || FirstCol > LastCol || (LastCol - FirstCol) % StepW != 0) begin : gen_check_columns
    $fatal(1, "qfx_slice: the columns %0d, %0d, .. %0d must lie in 0..%0d", FirstCol, FirstCol + StepW, LastCol, Width - 1);
  end

  logic                 valid, credit, pop, keep, word_last, col_last, row_last;
  logic [WordBits-1:0]  data;
  logic [WordWidth-1:0] word_unused;
  logic [ColWidth-1:0]  col, col_q; // of the word, and the next one kept
  logic [RowWidth-1:0]  row, row_q;

  // The buffer makes in_ready_o independent of the credits.
  qfx_fifo_shift #(.Width(WordBits), .Depth(2)) u_in (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .out_valid_o(valid),
    .out_ready_i(pop),
    .out_data_o (data)
  );

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (pop && keep),
    .give_i,
    .available_o(credit)
  );

  qfx_agu_counter #(.Count(PixelWords)) u_word (
    .clk_i, .rst_ni, .step_i(pop), .value_o(word_unused), .last_o(word_last)
  );
  qfx_agu_counter #(.Count(Width)) u_col (
    .clk_i, .rst_ni, .step_i(pop && word_last), .value_o(col), .last_o(col_last)
  );
  qfx_agu_counter #(.Count(Height)) u_row (
    .clk_i, .rst_ni, .step_i(pop && word_last && col_last), .value_o(row), .last_o(row_last)
  );

  assign keep = row == row_q && col == col_q;
  assign pop  = valid && (credit || !keep);

  // Behind the last one kept comes the first one again, which only the next row or frame has.
  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      col_q       <= ColWidth'(FirstCol);
      row_q       <= RowWidth'(FirstRow);
      out_valid_o <= 1'b0;
    end else begin
      out_valid_o <= pop && keep;
      if (pop && word_last) begin
        if (col == col_q) col_q <= (32'(col_q) == LastCol) ? ColWidth'(FirstCol) : col_q + ColWidth'(StepW);
        if (col_last && row == row_q) row_q <= (32'(row_q) == LastRow) ? RowWidth'(FirstRow) : row_q + RowWidth'(StepH);
      end
    end
  end

  always_ff @(posedge clk_i) out_data_o <= data;

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // At the end of a frame the walk starts anew.
      assert (!(pop && word_last && col_last && row_last) || row_q == RowWidth'(FirstRow) || 32'(row_q) == LastRow)
        else $error("qfx_slice: rows are missing at the end of a frame");
    end
  end
`endif

endmodule
