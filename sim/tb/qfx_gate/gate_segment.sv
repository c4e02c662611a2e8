// Bench top: a whole segment, qfx_gate to a delay of Delay cycles to qfx_fifo, from stream to stream.
module gate_segment #(
  parameter int unsigned Width   = 8,
  parameter int unsigned Credits = 6,
  parameter int unsigned Delay   = 3 // pipe cycles between gate and FIFO, at least 1
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

  logic                        valid, give, room;
  logic [Width-1:0]            data;
  logic [Delay-1:0]            valid_q;
  logic [Delay-1:0][Width-1:0] data_q;

  qfx_gate #(.Width(Width), .Credits(Credits)) u_gate (
    .clk_i, .rst_ni, .in_valid_i, .in_ready_o, .in_data_i,
    .out_valid_o(valid), .out_data_o(data), .give_i(give)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Delay'({valid_q, valid});
    data_q <= (Delay*Width)'({data_q, data});
  end

  qfx_fifo #(.Width(Width), .Depth(Credits)) u_fifo (
    .clk_i, .rst_ni, .in_valid_i(valid_q[Delay-1]), .in_ready_o(room), .in_data_i(data_q[Delay-1]),
    .out_valid_o, .out_ready_i, .out_data_o, .pop_o(give)
  );

  always_ff @(posedge clk_i) assert (!rst_ni || !valid_q[Delay-1] || room) else $error("the closing FIFO overflowed");

endmodule
