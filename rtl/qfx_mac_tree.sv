// SPDX-License-Identifier: Apache-2.0
// Sum of several terms by a tree of two-input adders with a register behind each.
//
//   sum_o(t + Levels) = sum of the Terms terms at t, modulo 2**OutWidth;  Levels = clog2(Terms)
//
// Latency clog2(Terms) cycles (0 for one term), one sum per cycle, no reset.
module qfx_mac_tree #(
  parameter int unsigned Terms    = 4, // terms, at least 1
  parameter int unsigned InWidth  = 8, // bits of a term, two's complement, at least 1
  parameter int unsigned OutWidth = 10 // bits of the sum, two's complement, at least 1
) (
  input  logic                      clk_i,
  /* verilator lint_off UNUSEDSIGNAL */ // a sum narrower than a term drops the term's top bits
  input  logic [Terms*InWidth-1:0]  terms_i, // term i at [i*InWidth +: InWidth]
  /* verilator lint_on UNUSEDSIGNAL */
  output logic [OutWidth-1:0]       sum_o
);

  if (Terms < 1 || InWidth < 1 || OutWidth < 1) begin : gen_check_sizes
    $fatal(1, "qfx_mac_tree: Terms, InWidth and OutWidth must be at least 1, not %0d, %0d and %0d",
           Terms, InWidth, OutWidth);
  end

  if (Terms == 1) begin : gen_leaf
    logic unused;
    assign unused = &{1'b0, clk_i};
    assign sum_o  = OutWidth'(signed'(terms_i));
  end else begin : gen_node
    // The left branch is a full tree one level lower; the right one is brought to the same latency.
    localparam int unsigned Left        = 1 << ($clog2(Terms) - 1);
    localparam int unsigned Right       = Terms - Left;
    localparam int unsigned RightLevels = (Right > 1) ? $clog2(Right) : 0;
    localparam int unsigned Delay       = $clog2(Terms) - 1 - RightLevels;

    logic [OutWidth-1:0] left, right, right_late, sum_q;

    qfx_mac_tree #(.Terms(Left), .InWidth(InWidth), .OutWidth(OutWidth)) u_left (
      .clk_i,
      .terms_i(terms_i[Left*InWidth-1:0]),
      .sum_o  (left)
    );
    qfx_mac_tree #(.Terms(Right), .InWidth(InWidth), .OutWidth(OutWidth)) u_right (
      .clk_i,
      .terms_i(terms_i[Terms*InWidth-1:Left*InWidth]),
      .sum_o  (right)
    );

    if (Delay == 0) begin : gen_same
      assign right_late = right;
    end else begin : gen_delay
      logic [Delay-1:0][OutWidth-1:0] right_q;
      always_ff @(posedge clk_i) right_q <= (Delay*OutWidth)'({right_q, right});
      assign right_late = right_q[Delay-1];
    end

    always_ff @(posedge clk_i) sum_q <= left + right_late;
    assign sum_o = sum_q;
  end

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
