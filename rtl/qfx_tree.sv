// SPDX-License-Identifier: Apache-2.0
// Sum or maximum of several terms by a tree of two-input nodes with a register behind each.
//
//   "sum": out_o(t + clog2(Terms)) = sum of the Terms terms at t, modulo 2**OutWidth
//   "max": out_o(t + clog2(Terms)) = the largest of the Terms terms at t
//
// Latency clog2(Terms) cycles (0 for one term), one result per cycle, no reset.
module qfx_tree #(
  parameter string       Reduction = "sum", // sum or max
  parameter int unsigned Terms     = 4,     // terms, at least 1
  parameter int unsigned InWidth   = 8,     // bits of a term, two's complement, at least 1
  parameter int unsigned OutWidth  = 10     // bits of the result, two's complement, at least 1; for max at least InWidth
) (
  input  logic                      clk_i,
  /* verilator lint_off UNUSEDSIGNAL */ // a sum narrower than a term drops the term's top bits
  input  logic [Terms*InWidth-1:0]  terms_i, // term i at [i*InWidth +: InWidth]
  /* verilator lint_on UNUSEDSIGNAL */
  output logic [OutWidth-1:0]       out_o
);

  localparam bit Maximum = Reduction == "max";

  if (Reduction != "sum" && Reduction != "max") begin : gen_check_reduction
    $fatal(1, "qfx_tree: Reduction must be sum or max, not %s", Reduction);
  end
  if (Terms < 1 || InWidth < 1 || OutWidth < 1) begin : gen_check_sizes
    $fatal(1, "qfx_tree: Terms, InWidth and OutWidth must be at least 1, not %0d, %0d and %0d",
           Terms, InWidth, OutWidth);
  end
  if (Maximum && OutWidth < InWidth) begin : gen_check_maximum
    $fatal(1, "qfx_tree: OutWidth of a maximum must be at least InWidth %0d, not %0d", InWidth, OutWidth);
  end

  // A heap: node 1 is the root, node i is made of nodes 2*i and 2*i + 1, and the terms are the leaves from node Leaves on.
  // Leaves without a term change nothing: 0 in a sum, the last term once more in a maximum. What they only pass on becomes
  // a delay. (A module that holds itself would read better, but Verilator's lint refuses one as the top.)
  localparam int unsigned Leaves = 1 << $clog2(Terms);

  logic [2*Leaves-1:1][OutWidth-1:0] node;

  for (genvar i = 0; i < Leaves; i++) begin : gen_leaf
    localparam int unsigned Term = (i < Terms) ? i : Terms - 1;

    if (i < Terms || Maximum) begin : gen_term
      assign node[Leaves+i] = OutWidth'(signed'(terms_i[Term*InWidth +: InWidth]));
    end else begin : gen_none
      assign node[Leaves+i] = '0;
    end
  end

  for (genvar i = 1; i < Leaves; i++) begin : gen_node
    if (Maximum) begin : gen_max
      always_ff @(posedge clk_i) node[i] <= (signed'(node[2*i]) > signed'(node[2*i+1])) ? node[2*i] : node[2*i+1];
    end else begin : gen_sum
      always_ff @(posedge clk_i) node[i] <= node[2*i] + node[2*i+1];
    end
  end

  if (Leaves == 1) begin : gen_unclocked
    logic unused;
    assign unused = &{1'b0, clk_i};
  end

  assign out_o = node[1];

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
