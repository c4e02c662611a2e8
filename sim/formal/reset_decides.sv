// Proof harness: after one cycle of reset what a part shows depends on its inputs only, not on the state before.
//
// Two copies start from states of their own, chosen freely, and see the same inputs: valid and ready must agree in each
// cycle, and data wherever they are valid.
module reset_decides (
  input logic       clk_i,
  input logic       in_valid_i,
  input logic [5:0] in_data_i,
  input logic       out_ready_i,
  input logic [1:0] b_ready_i,
  input logic       other_valid_i,
  input logic [4:0] other_data_i,
  input logic       give_i
);

  logic started_q = 1'b0;

  always_ff @(posedge clk_i) started_q <= 1'b1;

  logic [1:0]       f_in, f_out, r_in, r_out, w_in, w_out, n_in, n_out, g_in, g_out, j_a, j_b, j_out, c_a, c_b, c_out, p_in,
              s_in, s_out;
  logic [1:0][5:0]  f_data, r_data, g_data;
  logic [1:0][8:0]  w_data;
  logic [1:0][1:0]  n_data;
  logic [1:0][10:0] j_data;
  logic [1:0][6:0]  c_data;
  logic [1:0][5:0]  s_data;
  logic [1:0][1:0]  k_out;
  logic [1:0][11:0] k_data;
  logic [1:0]       pop_unused, pop_unused_too;

  for (genvar i = 0; i < 2; i++) begin : gen_copy
    qfx_fifo #(.Width(6), .Depth(3)) u_fifo (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(f_in[i]), .in_data_i,
      .out_valid_o(f_out[i]), .out_ready_i, .out_data_o(f_data[i]), .pop_o(pop_unused[i])
    );
    qfx_fifo #(.Width(6), .Depth(33)) u_fifo_ram (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(r_in[i]), .in_data_i,
      .out_valid_o(r_out[i]), .out_ready_i, .out_data_o(r_data[i]), .pop_o(pop_unused_too[i])
    );
    qfx_width #(.LaneWidth(3), .InLanes(1), .OutLanes(3), .Channels(4)) u_widen (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(w_in[i]), .in_data_i(in_data_i[2:0]),
      .out_valid_o(w_out[i]), .out_ready_i, .out_data_o(w_data[i])
    );
    qfx_width #(.LaneWidth(2), .InLanes(3), .OutLanes(1), .Channels(5)) u_narrow (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(n_in[i]), .in_data_i,
      .out_valid_o(n_out[i]), .out_ready_i, .out_data_o(n_data[i])
    );
    // A credit is given back only where one was taken: here at most once for each word that left.
    qfx_gate #(.Width(6), .Credits(3)) u_gate (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(g_in[i]), .in_data_i,
      .out_valid_o(g_out[i]), .out_data_o(g_data[i]), .give_i(give_i && g_out[i])
    );
    qfx_join #(.WidthA(6), .WidthB(5), .Credits(3)) u_join (
      .clk_i, .rst_ni(started_q), .a_valid_i(in_valid_i), .a_ready_o(j_a[i]), .a_data_i(in_data_i),
      .b_valid_i(other_valid_i), .b_ready_o(j_b[i]), .b_data_i(other_data_i),
      .out_valid_o(j_out[i]), .out_data_o(j_data[i]), .give_i(give_i && j_out[i])
    );
    qfx_concat #(.AWidth(6), .BWidth(5), .OutWidth(7), .WordsA(2), .WordsB(1), .Credits(3)) u_concat (
      .clk_i, .rst_ni(started_q), .a_valid_i(in_valid_i), .a_ready_o(c_a[i]), .a_data_i(in_data_i),
      .b_valid_i(other_valid_i), .b_ready_o(c_b[i]), .b_data_i(other_data_i),
      .out_valid_o(c_out[i]), .out_data_o(c_data[i]), .give_i(give_i && c_out[i])
    );
    qfx_select #(.Width(3), .InLanes(2), .OutLanes(2), .InWords(1), .OutWords(1), .Credits(3), .Order(6'b110_100)) u_select (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(s_in[i]), .in_data_i,
      .out_valid_o(s_out[i]), .out_data_o(s_data[i]), .give_i(give_i && s_out[i])
    );
    qfx_fork #(.Width(6), .Outputs(2)) u_fork (
      .clk_i, .rst_ni(started_q), .in_valid_i, .in_ready_o(p_in[i]), .in_data_i,
      .out_valid_o(k_out[i]), .out_ready_i(b_ready_i), .out_data_o(k_data[i])
    );
  end

  always_ff @(posedge clk_i) begin
    if (started_q) begin
      assert (f_in[0] == f_in[1] && f_out[0] == f_out[1] && (!f_out[0] || f_data[0] == f_data[1]));
      assert (r_in[0] == r_in[1] && r_out[0] == r_out[1] && (!r_out[0] || r_data[0] == r_data[1]));
      assert (w_in[0] == w_in[1] && w_out[0] == w_out[1] && (!w_out[0] || w_data[0] == w_data[1]));
      assert (n_in[0] == n_in[1] && n_out[0] == n_out[1] && (!n_out[0] || n_data[0] == n_data[1]));
      assert (g_in[0] == g_in[1] && g_out[0] == g_out[1] && (!g_out[0] || g_data[0] == g_data[1]));
      assert (j_a[0] == j_a[1] && j_b[0] == j_b[1] && j_out[0] == j_out[1] && (!j_out[0] || j_data[0] == j_data[1]));
      assert (c_a[0] == c_a[1] && c_b[0] == c_b[1] && c_out[0] == c_out[1] && (!c_out[0] || c_data[0] == c_data[1]));
      assert (s_in[0] == s_in[1] && s_out[0] == s_out[1]); // the codes come from memories, which two copies fill alike
      assert (p_in[0] == p_in[1] && k_out[0] == k_out[1]);
      assert (!k_out[0][0] || k_data[0][5:0] == k_data[1][5:0]);
      assert (!k_out[0][1] || k_data[0][11:6] == k_data[1][11:6]);
    end
  end

endmodule
