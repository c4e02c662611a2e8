// SPDX-License-Identifier: Apache-2.0
// Credit counter: how many words may still enter a segment whose closing FIFO holds Credits words.
//
//   credits(t + 1) = credits(t) - take_i(t) + give_i(t);  available_o = credits != 0
//
// available_o is a register. The user takes only while it is high and gives back only what was taken.
module qfx_credit #(
  parameter int unsigned Credits = 4 // credits after reset, at least 1
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic take_i,
  input  logic give_i,
  output logic available_o
);

  localparam int unsigned CountWidth = $clog2(Credits + 1);

  if (Credits < 1) begin : gen_check_credits
    $fatal(1, "qfx_credit: Credits must be at least 1, not %0d", Credits);
  end

  logic [CountWidth-1:0] credits_q, credits_d;

  assign credits_d = credits_q - CountWidth'(take_i) + CountWidth'(give_i);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      credits_q   <= CountWidth'(Credits);
      available_o <= 1'b0;
    end else begin
      credits_q   <= credits_d;
      available_o <= credits_d != '0;
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // A credit is taken only where there is one.
      assert (!take_i || available_o) else $error("qfx_credit: take_i without a credit");
      // No more credits come back than were taken.
      assert (!give_i || take_i || 32'(credits_q) < Credits) else $error("qfx_credit: give_i without a taken credit");
      assert (32'(credits_q) <= Credits) else $error("qfx_credit: more credits than Credits");
    end
  end
`endif

endmodule
