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

  // A heap: node 1 is the root, node i the sum of nodes 2*i and 2*i + 1, and the terms are the leaves from node Leaves
  // on. Leaves without a term are 0; what they only pass on becomes a delay. (A module that holds itself would read
  // better, but Verilator's lint refuses one as the top.)
  localparam int unsigned Leaves = 1 << $clog2(Terms);

  logic [2*Leaves-1:1][OutWidth-1:0] node;

  for (genvar i = 0; i < Leaves; i++) begin : gen_leaf
    if (i < Terms) begin : gen_term
      assign node[Leaves+i] = OutWidth'(signed'(terms_i[i*InWidth +: InWidth]));
    end else begin : gen_none
      assign node[Leaves+i] = '0;
    end
  end

  for (genvar i = 1; i < Leaves; i++) begin : gen_node
    always_ff @(posedge clk_i) node[i] <= node[2*i] + node[2*i+1];
  end

  if (Leaves == 1) begin : gen_unclocked
    logic unused;
    assign unused = &{1'b0, clk_i};
  end

  assign sum_o = node[1];

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
