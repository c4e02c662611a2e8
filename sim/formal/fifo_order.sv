// Proof harness: a FIFO with free inputs neither loses, doubles, changes nor reorders words, and holds exactly Depth.
//
// One word, chosen freely, is followed from its way in to its way out: it must leave unchanged, after exactly the words
// that were inside when it came.
module fifo_order #(
  parameter int unsigned Width = 2,
  parameter int unsigned Depth = 3,
  parameter bit          Ram   = 1'b0 // qfx_fifo_ram instead of qfx_fifo_shift
) (
  input logic             clk_i,
  input logic             in_valid_i,
  input logic [Width-1:0] in_data_i,
  input logic             out_ready_i,
  input logic             choose_i
);

  logic             started_q = 1'b0; // the first cycle is the reset
  logic             in_ready, out_valid, push, pop;
  logic [Width-1:0] out_data;

  if (Ram) begin : gen_ram
    qfx_fifo_ram #(.Width(Width), .Depth(Depth)) u_dut (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(in_ready), .in_data_i,
      .out_valid_o(out_valid), .out_ready_i, .out_data_o(out_data)
    );
  end else begin : gen_shift
    qfx_fifo_shift #(.Width(Width), .Depth(Depth)) u_dut (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(in_ready), .in_data_i,
      .out_valid_o(out_valid), .out_ready_i, .out_data_o(out_data)
    );
  end

  logic [7:0]       inside_q = '0, ahead_q = '0;
  logic             follow_q = 1'b0, quiet_q = 1'b1; // quiet: the cycle after the reset, before ready rises
  logic [Width-1:0] word_q   = '0;

  assign push = started_q && in_valid_i && in_ready;
  assign pop  = started_q && out_valid && out_ready_i;

  always_ff @(posedge clk_i) begin
    started_q <= 1'b1;
    quiet_q   <= !started_q;
    inside_q  <= inside_q + 8'(push) - 8'(pop);
    if (push && choose_i && !follow_q) begin
      follow_q <= 1'b1;
      word_q   <= in_data_i;
      ahead_q  <= inside_q - 8'(pop);
    end else if (follow_q && pop) begin
      ahead_q <= ahead_q - 8'd1;
      if (ahead_q == '0) follow_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (started_q) begin
      assert (32'(inside_q) <= Depth);
      assert (!pop || inside_q != '0);
      if (!quiet_q) assert (in_ready == (32'(inside_q) < Depth));
      assert (!follow_q || ahead_q < inside_q);
      assert (!(follow_q && pop && ahead_q == '0) || out_data == word_q);
    end
  end

  // What makes the proof for the shift register inductive: where each word lies.
  if (!Ram) begin : gen_invariants
    always_ff @(posedge clk_i) begin
      if (started_q) begin
        assert (out_valid == (inside_q != '0));
        assert (8'(gen_shift.u_dut.oldest_q) == (out_valid ? inside_q - 8'd1 : 8'd0));
        assert (!quiet_q || (inside_q == '0 && !in_ready));
        if (follow_q) assert (gen_shift.u_dut.words_q[2'(inside_q - 8'd1 - ahead_q)] == word_q);
      end else begin
        assert (inside_q == '0 && !follow_q && quiet_q);
      end
    end
  end

endmodule
