// Bench top: qfx_join and the FIFO that closes its segment, from two streams to one.
module join_segment #(
  parameter int unsigned WidthA  = 5,
  parameter int unsigned WidthB  = 9,
  parameter int unsigned Credits = 4
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     a_valid_i,
  output logic                     a_ready_o,
  input  logic [WidthA-1:0]        a_data_i,
  input  logic                     b_valid_i,
  output logic                     b_ready_o,
  input  logic [WidthB-1:0]        b_data_i,
  output logic                     out_valid_o,
  input  logic                     out_ready_i,
  output logic [WidthB+WidthA-1:0] out_data_o
);

  logic                     valid, give, room;
  logic [WidthB+WidthA-1:0] data;

  qfx_join #(.WidthA(WidthA), .WidthB(WidthB), .Credits(Credits)) u_join (
    .clk_i, .rst_ni, .a_valid_i, .a_ready_o, .a_data_i, .b_valid_i, .b_ready_o, .b_data_i,
    .out_valid_o(valid), .out_data_o(data), .give_i(give)
  );

  qfx_fifo #(.Width(WidthA + WidthB), .Depth(Credits)) u_fifo (
    .clk_i, .rst_ni, .in_valid_i(valid), .in_ready_o(room), .in_data_i(data),
    .out_valid_o, .out_ready_i, .out_data_o, .pop_o(give)
  );

  always_ff @(posedge clk_i) assert (!rst_ni || !valid || room) else $error("the closing FIFO overflowed");

endmodule
