// Proof harness: whoever takes only while available_o is high and gives back only what was taken never overdraws, and the
// counter tells the truth: credits + taken = Credits.
module credit_bound #(
  parameter int unsigned Credits = 5
) (
  input logic clk_i,
  input logic want_i,
  input logic back_i
);

  logic       started_q = 1'b0, quiet_q = 1'b1;
  logic [7:0] taken_q   = '0;
  logic       available, take, give;

  assign take = started_q && want_i && available;
  assign give = started_q && back_i && taken_q != '0;

  qfx_credit #(.Credits(Credits)) u_dut (
    .clk_i, .rst_ni(started_q), .take_i(take), .give_i(give), .available_o(available)
  );

  always_ff @(posedge clk_i) begin
    started_q <= 1'b1;
    quiet_q   <= !started_q;
    taken_q   <= taken_q + 8'(take) - 8'(give);
  end

  always_ff @(posedge clk_i) begin
    if (started_q) begin
      assert (32'(taken_q) <= Credits);
      assert (32'(taken_q) + 32'(u_dut.credits_q) == Credits);
      if (!quiet_q) assert (available == (32'(taken_q) < Credits));
      else assert (!available && taken_q == '0);
    end else begin
      assert (taken_q == '0 && quiet_q);
    end
  end

endmodule
