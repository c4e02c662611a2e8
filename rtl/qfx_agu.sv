// SPDX-License-Identifier: Apache-2.0
// Address generator: walks a window over the image in a ring, one step a cycle.
//
//   for row in OutHeight, again in RepeatH, col in OutWidth, again in RepeatW,
//   group in Groups, fold in Folds, ky in TapsH, kx in TapsW, word in Words: step
//
// A *word* of the result is made of the TapsH * TapsW * Words innermost steps. The first step of each takes a credit
// (credit_i, take_o); the first step of a pixel also waits for start_i and until the ring holds the window's last pixel.
// Nothing else ever waits: no cycle goes to padding, to the end of a row or to the end of a frame.
//
// Outputs describe the step of the cycle in which step_o is high. The window of an output pixel covers the rows row_o ..
// row_o + ReachH and the columns col_o .. col_o + ReachW of the image; row_o = row*StrideH - PadTop may be negative, slot_o
// is the ring slot of row_o, ky_o and kx_o count in units of StepH and StepW. release_o frees ring rows: connect it to the
// ring behind as many cycles as the read address takes.
module qfx_agu #(
  parameter int unsigned Height     = 8, // rows of the image, at least 1
  parameter int unsigned Width      = 8, // columns of the image, at least 1
  parameter int unsigned OutHeight  = 8, // rows of the result, at least 1
  parameter int unsigned OutWidth   = 8, // columns of the result, at least 1
  parameter int unsigned StrideH    = 1, // rows from window to window, at least 1
  parameter int unsigned StrideW    = 1, // columns from window to window, at least 1
  parameter int unsigned PadTop     = 1, // rows of the first window above the image
  parameter int unsigned PadLeft    = 1, // columns of the first window left of the image
  parameter int unsigned ReachH     = 2, // rows of a window, less 1
  parameter int unsigned ReachW     = 2, // columns of a window, less 1
  parameter int unsigned RepeatH    = 1, // times that each row of windows is walked, at least 1
  parameter int unsigned RepeatW    = 1, // times that each window is walked in each of them, at least 1
  parameter bit          Blocks     = 1'b0, // each of these repeats walks words of its own, one behind the other
  parameter int unsigned Rows       = 4, // rows of the ring
  parameter int unsigned Groups     = 1, // groups of channels, at least 1
  parameter int unsigned Folds      = 1, // words of the result a group, at least 1
  parameter int unsigned TapsH      = 3, // serial steps over the window's rows, at least 1
  parameter int unsigned TapsW      = 3, // serial steps over the window's columns, at least 1
  parameter int unsigned StepH      = 1, // what ky_o counts in
  parameter int unsigned StepW      = 1, // what kx_o counts in
  parameter int unsigned Words      = 1, // words of the ring a pixel and group, at least 1
  localparam int unsigned RowWidth     = $clog2(OutHeight * StrideH + PadTop + 1) + 1,
  localparam int unsigned ColWidth     = $clog2(OutWidth * StrideW + PadLeft + 1) + 1,
  localparam int unsigned SlotWidth    = $clog2(Rows),
  localparam int unsigned KyWidth      = (TapsH > 1) ? $clog2((TapsH - 1) * StepH + 1) : 1,
  localparam int unsigned KxWidth      = (TapsW > 1) ? $clog2((TapsW - 1) * StepW + 1) : 1,
  localparam int unsigned PixelWords   = Groups * Words * (Blocks ? RepeatH * RepeatW : 1),
  localparam int unsigned WordWidth    = (PixelWords > 1) ? $clog2(PixelWords) : 1,
  localparam int unsigned PixelWidth   = (Width > 1) ? $clog2(Width) : 1,
  localparam int unsigned ReleaseWidth = $clog2(Height + 1)
) (
  input  logic                       clk_i,
  input  logic                       rst_ni,
  input  logic                       start_i,
  input  logic                       credit_i,
  output logic                       take_o,
  input  logic                       ring_row_i,    // row_o of the ring
  input  logic [PixelWidth-1:0]      ring_pixels_i, // pixels_o of the ring
  output logic [ReleaseWidth-1:0]    release_o,
  output logic                       step_o,
  output logic                       first_o,       // first step of a word of the result
  output logic                       last_o,        // last step of a word of the result
  output logic                       pixel_last_o,  // last step of a pixel
  output logic signed [RowWidth-1:0] row_o,
  output logic signed [ColWidth-1:0] col_o,
  output logic [SlotWidth-1:0]       slot_o,
  output logic [KyWidth-1:0]         ky_o,
  output logic [KxWidth-1:0]         kx_o,
  output logic [WordWidth-1:0]       word_o         // word of the pixel, group included
);

  if (Height < 1 || Width < 1 || OutHeight < 1 || OutWidth < 1 || StrideH < 1 || StrideW < 1) begin : gen_check_image
    $fatal(1, "qfx_agu: image, result and strides must be at least 1x1, not %0dx%0d, %0dx%0d and %0dx%0d",
           Height, Width, OutHeight, OutWidth, StrideH, StrideW);
  end
  if (Groups < 1 || Folds < 1 || TapsH < 1 || TapsW < 1 || Words < 1) begin : gen_check_loops
    $fatal(1, "qfx_agu: Groups, Folds, TapsH, TapsW and Words must be at least 1, not %0d, %0d, %0d, %0d and %0d",
           Groups, Folds, TapsH, TapsW, Words);
  end
  if (RepeatH < 1 || RepeatW < 1) begin : gen_check_repeats
    $fatal(1, "qfx_agu: RepeatH and RepeatW must be at least 1, not %0d and %0d", RepeatH, RepeatW);
  end
  if (Rows < ReachH + 1 || Rows < StrideH + 1) begin : gen_check_rows
    $fatal(1, "qfx_agu: Rows must hold a window (%0d) and the stride plus one (%0d), not %0d",
           ReachH + 1, StrideH + 1, Rows);
  end

  // Rows of the image before the first one that output row `index` reads; its last one. Both as if there were no padding.
  function automatic int unsigned first_row(int unsigned index);
    int signed raw = int'(index * StrideH) - int'(PadTop);
    return (raw < 0) ? 0 : (raw > int'(Height)) ? Height : unsigned'(raw);
  endfunction

  function automatic int unsigned last_row(int unsigned index);
    int signed raw = int'(index * StrideH) - int'(PadTop) + int'(ReachH);
    return (raw < 0) ? 0 : (raw >= int'(Height)) ? Height - 1 : unsigned'(raw);
  endfunction

  // What the step from output row `index` to the next one (of the next frame, after the last) adds to each of them.
  typedef logic [OutHeight-1:0][ReleaseWidth-1:0] row_table_t;

  function automatic row_table_t first_steps();
    for (int unsigned i = 0; i < OutHeight; i++) begin
      first_steps[i] = ReleaseWidth'((i == OutHeight - 1) ? Height - first_row(i)
                                                              : first_row(i + 1) - first_row(i));
    end
  endfunction

  function automatic row_table_t last_steps();
    for (int unsigned i = 0; i < OutHeight; i++) begin
      last_steps[i] = ReleaseWidth'((i == OutHeight - 1) ? Height + last_row(0) - last_row(i)
                                                             : last_row(i + 1) - last_row(i));
    end
  endfunction

  localparam row_table_t FirstSteps = first_steps();
  localparam row_table_t LastSteps  = last_steps();

  // From the last output row to the first one of the next frame the window moves Height rows on and back to the top.
  localparam int FrameMove = int'(Height) - int'((OutHeight - 1) * StrideH);
  localparam logic [SlotWidth-1:0] FrameSlots =
      SlotWidth'(((FrameMove % int'(Rows)) + int'(Rows)) % int'(Rows));
  localparam logic [SlotWidth-1:0] FirstSlot =
      SlotWidth'((int'(Rows) - int'(PadTop % Rows)) % int'(Rows));
  localparam logic signed [RowWidth-1:0] FirstRow = RowWidth'(-int'(PadTop));
  localparam logic signed [ColWidth-1:0] FirstCol = ColWidth'(-int'(PadLeft));

  // Loops
  logic first_pixel_q, first_word_q; // this is the first step of a pixel, of a word
  logic word_last, kx_last, ky_last, fold_last, group_last, col_last, row_last;
  logic window_last, again_w_last, again_h_last;
  logic step_pixel, step_col, step_line, step_row; // a pixel of the result ends, with it a window, a line of it, a row of windows

  localparam int unsigned FoldWidth  = (Folds > 1) ? $clog2(Folds) : 1;
  localparam int unsigned GroupWidth = (Groups > 1) ? $clog2((Groups - 1) * Words + 1) : 1;
  localparam int unsigned InnerWidth = (Words > 1) ? $clog2(Words) : 1;
  localparam int unsigned IndexWidth = (OutHeight > 1) ? $clog2(OutHeight) : 1;
  localparam int unsigned ColIndexWidth = (OutWidth > 1) ? $clog2(OutWidth) : 1;

  localparam int unsigned StepAgainW  = Blocks ? Groups * Words : 1;
  localparam int unsigned StepAgainH  = Blocks ? Groups * Words * RepeatW : 1;
  localparam int unsigned AgainHWidth = (RepeatH > 1) ? $clog2((RepeatH - 1) * StepAgainH + 1) : 1;
  localparam int unsigned AgainWWidth = (RepeatW > 1) ? $clog2((RepeatW - 1) * StepAgainW + 1) : 1;

  logic                     unused; // the values of the repeats, but for Blocks
  logic [FoldWidth-1:0]     fold_unused;
  logic [GroupWidth-1:0]    group;
  logic [InnerWidth-1:0]    word;
  logic [IndexWidth-1:0]    row_index_unused;
  logic [ColIndexWidth-1:0] col_index_unused;
  logic [AgainHWidth-1:0]   again_h;
  logic [AgainWWidth-1:0]   again_w;

  assign unused       = &{1'b0, again_h, again_w};
  assign window_last  = word_last && kx_last && ky_last;
  assign step_pixel   = step_o && window_last && fold_last && group_last;
  assign step_col     = step_pixel && again_w_last;
  assign step_line    = step_col && col_last;
  assign step_row     = step_line && again_h_last;
  assign first_o      = first_word_q;
  assign last_o       = window_last;
  assign pixel_last_o = window_last && fold_last && group_last;
  assign word_o       = WordWidth'(group) + WordWidth'(word) + (Blocks ? WordWidth'(again_h) + WordWidth'(again_w) : '0);

  qfx_agu_counter #(.Count(Words)) u_word (
    .clk_i, .rst_ni, .step_i(step_o), .value_o(word), .last_o(word_last)
  );
  qfx_agu_counter #(.Count(TapsW), .Step(StepW)) u_kx (
    .clk_i, .rst_ni, .step_i(step_o && word_last), .value_o(kx_o), .last_o(kx_last)
  );
  qfx_agu_counter #(.Count(TapsH), .Step(StepH)) u_ky (
    .clk_i, .rst_ni, .step_i(step_o && word_last && kx_last), .value_o(ky_o), .last_o(ky_last)
  );
  qfx_agu_counter #(.Count(Folds)) u_fold (
    .clk_i, .rst_ni, .step_i(step_o && window_last), .value_o(fold_unused), .last_o(fold_last)
  );
  qfx_agu_counter #(.Count(Groups), .Step(Words)) u_group (
    .clk_i, .rst_ni, .step_i(step_o && window_last && fold_last), .value_o(group), .last_o(group_last)
  );
  qfx_agu_counter #(.Count(RepeatW), .Step(StepAgainW)) u_again_w (
    .clk_i, .rst_ni, .step_i(step_pixel), .value_o(again_w), .last_o(again_w_last)
  );
  qfx_agu_counter #(.Count(OutWidth)) u_col (
    .clk_i, .rst_ni, .step_i(step_col), .value_o(col_index_unused), .last_o(col_last)
  );
  qfx_agu_counter #(.Count(RepeatH), .Step(StepAgainH)) u_again_h (
    .clk_i, .rst_ni, .step_i(step_line), .value_o(again_h), .last_o(again_h_last)
  );
  qfx_agu_counter #(.Count(OutHeight)) u_row (
    .clk_i, .rst_ni, .step_i(step_row), .value_o(row_index_unused), .last_o(row_last)
  );

  // Position of the window, and the ring slot of its first row
  logic [SlotWidth:0] slot_sum;

  assign slot_sum = {1'b0, slot_o} + (row_last ? {1'b0, FrameSlots} : (SlotWidth+1)'(StrideH));

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      first_pixel_q <= 1'b1;
      first_word_q  <= 1'b1;
      row_o         <= FirstRow;
      col_o         <= FirstCol;
      slot_o        <= FirstSlot;
    end else begin
      if (step_o) begin
        first_word_q  <= window_last;
        first_pixel_q <= pixel_last_o;
      end
      if (step_col) col_o <= col_last ? FirstCol : col_o + ColWidth'(StrideW);
      if (step_row) begin
        row_o  <= row_last ? FirstRow : row_o + RowWidth'(StrideH);
        slot_o <= (slot_sum >= (SlotWidth+1)'(Rows)) ? SlotWidth'(slot_sum - (SlotWidth+1)'(Rows)) : SlotWidth'(slot_sum);
      end
    end
  end

  // Availability. lead_q = complete rows - rows before the last one of the window, both counted from the frame's first row.
  localparam int unsigned LeadWidth = $clog2(Height + Rows + 2) + 2;
  localparam int unsigned EdgeWidth = $clog2(OutWidth * StrideW + PadLeft + ReachW + Width + 2) + 1;

  localparam logic signed [EdgeWidth-1:0] FirstEdge = EdgeWidth'(int'(ReachW) + 1 - int'(PadLeft));

  logic signed [LeadWidth-1:0] lead_q;
  logic signed [EdgeWidth-1:0] edge_q; // pixels of the window's last row that must be there; Width or more: all; 0 or less: one
  logic                        there;
  logic [ReleaseWidth-1:0]     first_step_q, last_step_q;

  if (OutHeight > 1) begin : gen_row_steps
    logic [IndexWidth-1:0] next_q; // index of the next output row

    always_ff @(posedge clk_i) begin
      if (!rst_ni) begin
        next_q       <= IndexWidth'(1);
        first_step_q <= FirstSteps[0];
        last_step_q  <= LastSteps[0];
      end else if (step_row) begin
        next_q       <= (32'(next_q) == OutHeight - 1) ? '0 : next_q + 1'b1;
        first_step_q <= FirstSteps[next_q];
        last_step_q  <= LastSteps[next_q];
      end
    end
  end else begin : gen_one_row
    assign first_step_q = FirstSteps[0];
    assign last_step_q  = LastSteps[0];
  end

  // A window that lies in the padding alone waits for the frame's first pixel all the same: no result without its frame.
  assign there  = lead_q > 0 || (lead_q == 0 && ring_pixels_i != '0 && EdgeWidth'(signed'({1'b0, ring_pixels_i})) >= edge_q);
  assign step_o = (!first_word_q || credit_i) && (!first_pixel_q || (start_i && there));
  assign take_o = step_o && first_word_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      lead_q    <= -LeadWidth'(last_row(0));
      edge_q    <= FirstEdge;
      release_o <= '0;
    end else begin
      lead_q    <= lead_q + LeadWidth'({1'b0, ring_row_i}) - (step_row ? LeadWidth'({1'b0, last_step_q}) : '0);
      release_o <= step_row ? first_step_q : '0;
      if (step_col) edge_q <= col_last ? FirstEdge : edge_q + EdgeWidth'(StrideW);
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // The writer is never further ahead than the ring is long, nor the window more than a frame.
      assert (int'(lead_q) <= int'(Rows + Height)) else $error("qfx_agu: lead_q beyond the ring");
      assert (int'(lead_q) >= -int'(2 * Height)) else $error("qfx_agu: lead_q below a frame");
    end
  end
`endif

endmodule
