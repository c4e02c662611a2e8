// SPDX-License-Identifier: Apache-2.0
// FIFO of a few words, kept in a shift register that maps on SRLs.
//
//   words leave in the order in which they came; in_ready_o = fewer than Depth words inside
//
// Latency 1 cycle, one word per cycle for Depth >= 2 (one word every second cycle for Depth 1). Ready and valid come from
// registers. Meant for Depth <= 32: the output is a multiplexer over Depth words.
module qfx_fifo_shift #(
  parameter int unsigned Width = 8, // bits a word, at least 1
  parameter int unsigned Depth = 2  // words held, at least 1
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             in_valid_i,
  output logic             in_ready_o,
  input  logic [Width-1:0] in_data_i,
  output logic             out_valid_o,
  input  logic             out_ready_i,
  output logic [Width-1:0] out_data_o
);

  localparam int unsigned IndexWidth = (Depth > 1) ? $clog2(Depth) : 1;

  if (Width < 1) begin : gen_check_width
    $fatal(1, "qfx_fifo_shift: Width must be at least 1, not %0d", Width);
  end
  if (Depth < 1) begin : gen_check_depth
    $fatal(1, "qfx_fifo_shift: Depth must be at least 1, not %0d", Depth);
  end

  logic [Depth-1:0][Width-1:0] words_q;  // words_q[0] is the newest
  logic [IndexWidth-1:0]       oldest_q; // index of the oldest word; 0 when empty
  logic                        push, pop;

  assign push = in_valid_i && in_ready_o;
  assign pop  = out_valid_o && out_ready_i;
  assign out_data_o = words_q[oldest_q];

  if (Depth > 1) begin : gen_shift
    always_ff @(posedge clk_i) if (push) words_q <= {words_q[Depth-2:0], in_data_i};
  end else begin : gen_register
    always_ff @(posedge clk_i) if (push) words_q <= in_data_i;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      oldest_q    <= '0;
      in_ready_o  <= 1'b0;
      out_valid_o <= 1'b0;
    end else begin
      if (push && !pop) begin
        out_valid_o <= 1'b1;
        if (out_valid_o) oldest_q <= oldest_q + 1'b1;
      end else if (pop && !push) begin
        if (oldest_q == '0) out_valid_o <= 1'b0;
        else oldest_q <= oldest_q - 1'b1;
      end
      // Full after this cycle: it was, and nothing left; or the last place is taken now.
      if (push && !pop) in_ready_o <= 32'(oldest_q) + 32'(out_valid_o) + 1 < Depth;
      else if (pop && !push) in_ready_o <= 1'b1;
      else in_ready_o <= !(out_valid_o && 32'(oldest_q) == Depth - 1);
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // The index stays inside the register.
      assert (32'(oldest_q) < Depth) else $error("qfx_fifo_shift: oldest_q left the register");
      // An empty FIFO has its index at 0.
      assert (out_valid_o || oldest_q == '0) else $error("qfx_fifo_shift: empty, but oldest_q is not 0");
    end
  end
`endif

endmodule
