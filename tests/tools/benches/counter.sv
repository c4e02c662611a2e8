// SPDX-License-Identifier: Apache-2.0
// Counts up to a limit and starts again: a module small enough to test the runner of benches with.
module counter #(
  parameter int unsigned Limit = 5, // values, at least 2
  parameter Name = "none" // a string parameter
) (
  input  logic       clk_i,
  input  logic       rst_ni,
  output logic [7:0] count_o
);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) count_o <= '0;
    else count_o <= count_o == 8'(Limit - 1) ? '0 : count_o + 8'd1;
  end

  initial $display("counter is called %s", Name);

endmodule
