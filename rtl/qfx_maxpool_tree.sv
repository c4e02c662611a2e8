// SPDX-License-Identifier: Apache-2.0
// Maximum of several codes by a tree of two-input comparisons with a register behind each.
//
//   max_o(t + clog2(Terms)) = the largest of the Terms codes at t
//
// Latency clog2(Terms) cycles (0 for one term), one maximum per cycle, no reset.
module qfx_maxpool_tree #(
  parameter int unsigned Terms  = 4,   // codes, at least 1
  parameter int unsigned Width  = 8,   // bits of a code, at least 1
  parameter bit          Signed = 1'b1 // codes are two's complement
) (
  input  logic                   clk_i,
  input  logic [Terms*Width-1:0] terms_i, // code i at [i*Width +: Width]
  output logic [Width-1:0]       max_o
);

  if (Terms < 1 || Width < 1) begin : gen_check_sizes
    $fatal(1, "qfx_maxpool_tree: Terms and Width must be at least 1, not %0d and %0d", Terms, Width);
  end

  if (Terms == 1) begin : gen_leaf
    logic unused;
    assign unused = &{1'b0, clk_i};
    assign max_o  = terms_i;
  end else begin : gen_node
    // A maximum may count a term twice: the halves overlap where Terms is odd, so both have the same latency.
    localparam int unsigned Half = (Terms + 1) / 2;
    localparam logic [Width-1:0] Smallest = Signed ? {1'b1, {(Width-1){1'b0}}} : '0;

    logic [Width-1:0] left, right, max_q;

    qfx_maxpool_tree #(.Terms(Half), .Width(Width), .Signed(Signed)) u_left (
      .clk_i,
      .terms_i(terms_i[Half*Width-1:0]),
      .max_o  (left)
    );
    qfx_maxpool_tree #(.Terms(Half), .Width(Width), .Signed(Signed)) u_right (
      .clk_i,
      .terms_i(terms_i[Terms*Width-1:(Terms-Half)*Width]),
      .max_o  (right)
    );

    // With the sign bit turned over, two's complement compares like an unsigned number.
    always_ff @(posedge clk_i) max_q <= ((left ^ Smallest) > (right ^ Smallest)) ? left : right;
    assign max_o = max_q;
  end

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
