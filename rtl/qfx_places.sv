// SPDX-License-Identifier: Apache-2.0
// Two places for pixels, filled and left in turn: while one is read, the next comes. The front of a segment's source.
//
//   whole pixels += (push_o && in_last_i) - (take_o && out_last_i)
//
// A word is pushed while a place is free, and taken while a whole pixel and a credit are there; in_ready_o counts the
// pixels of the cycle before, so that it is a register. A pixel can be taken 1 cycle after its last word was pushed.
module qfx_places #(
  parameter int unsigned Credits = 4 // depth of the FIFO that closes the segment, at least 1
) (
  input  logic clk_i,
  input  logic rst_ni,
  input  logic in_valid_i,
  output logic in_ready_o,
  input  logic in_last_i,  // the word that comes is a pixel's last one
  output logic push_o,     // a word comes
  input  logic out_last_i, // the word that could go is a pixel's last one
  output logic take_o,     // a word goes
  input  logic give_i
);

  logic       credit, full_q;
  logic [1:0] pixels_q, pixels_d; // whole pixels that are kept

  assign push_o   = in_valid_i && in_ready_o;
  assign take_o   = credit && full_q;
  assign pixels_d = pixels_q + 2'(push_o && in_last_i) - 2'(take_o && out_last_i);

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (take_o),
    .give_i,
    .available_o(credit)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      pixels_q   <= '0;
      full_q     <= 1'b0;
      in_ready_o <= 1'b0;
    end else begin
      pixels_q   <= pixels_d;
      full_q     <= pixels_d != '0;
      in_ready_o <= pixels_d != 2'd2;
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // Neither side overtakes the other.
      assert (pixels_q <= 2'd2) else $error("qfx_places: more than two pixels");
      assert (!push_o || pixels_q != 2'd2) else $error("qfx_places: a word came without a place");
    end
  end
`endif

endmodule
