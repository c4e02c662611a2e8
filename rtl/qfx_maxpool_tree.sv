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

  // A heap: node 1 is the root, node i the larger of nodes 2*i and 2*i + 1, and the codes are the leaves from node
  // Leaves on. A maximum may count a code twice, so the last one fills the leaves that are left.
  localparam int unsigned Leaves = 1 << $clog2(Terms);
  localparam logic [Width-1:0] Smallest = Signed ? {1'b1, {(Width-1){1'b0}}} : '0;

  logic [2*Leaves-1:1][Width-1:0] node;

  for (genvar i = 0; i < Leaves; i++) begin : gen_leaf
    localparam int unsigned Term = (i < Terms) ? i : Terms - 1;
    assign node[Leaves+i] = terms_i[Term*Width +: Width];
  end

  // With the sign bit turned over, two's complement compares like an unsigned number.
  for (genvar i = 1; i < Leaves; i++) begin : gen_node
    always_ff @(posedge clk_i) begin
      node[i] <= ((node[2*i] ^ Smallest) > (node[2*i+1] ^ Smallest)) ? node[2*i] : node[2*i+1];
    end
  end

  if (Leaves == 1) begin : gen_unclocked
    logic unused;
    assign unused = &{1'b0, clk_i, Smallest};
  end

  assign max_o = node[1];

  // Assertions: none beyond the parameter checks; the part has no state but its pipeline.

endmodule
