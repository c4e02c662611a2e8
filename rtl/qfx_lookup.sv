// SPDX-License-Identifier: Apache-2.0
// Reads a function of each code from a table: sigmoid, tanh and the like.
//
//   out = word number in of TableFile, in as the unsigned number that its bits are
//
// Latency 2 cycles, one word per cycle, no back-pressure. Each lane has a copy of the table. Lanes beyond Channels hold 0.
//
// TableFile: 2**InWidth codes of OutWidth bits; for signed inputs those of 0 .. 2**(InWidth-1)-1 come first.
module qfx_lookup #(
  parameter int unsigned InWidth   = 8, // bits of an input code, 1 to 12
  parameter int unsigned OutWidth  = 8, // bits of an entry, at least 1
  parameter int unsigned Lanes     = 1, // channels a word, at least 1
  parameter int unsigned Channels  = 1, // channels a pixel, at least 1
  parameter string       TableFile = "" // the entries (layout above)
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      in_valid_i,
  input  logic [Lanes*InWidth-1:0]  in_data_i,
  output logic                      out_valid_o,
  output logic [Lanes*OutWidth-1:0] out_data_o
);

  localparam int unsigned Latency = 2;
  localparam int unsigned Groups  = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned Used    = Channels - (Groups - 1) * Lanes; // lanes of the last group

  if (InWidth < 1 || InWidth > 12) begin : gen_check_width
    $fatal(1, "qfx_lookup: InWidth must lie in 1..12, not %0d", InWidth);
  end
  if (Channels < 1 || Lanes < 1) begin : gen_check_channels
    $fatal(1, "qfx_lookup: Channels and Lanes must be at least 1, not %0d and %0d", Channels, Lanes);
  end

  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Latency'({valid_q, in_valid_i});
  end
  assign out_valid_o = valid_q[Latency-1];

  logic idle; // the word that leaves has lanes without a channel

  if (Used == Lanes) begin : gen_all_used
    assign idle = 1'b0;
  end else begin : gen_some_idle
    localparam int unsigned GroupWidth = (Groups > 1) ? $clog2(Groups) : 1;

    logic [GroupWidth-1:0] group_unused;
    logic                  last;
    logic [Latency-1:0]    last_q;

    qfx_agu_counter #(.Count(Groups)) u_group (
      .clk_i,
      .rst_ni,
      .step_i (in_valid_i),
      .value_o(group_unused),
      .last_o (last)
    );

    always_ff @(posedge clk_i) last_q <= Latency'({last_q, last});
    assign idle = last_q[Latency-1];
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [OutWidth-1:0] entry;

    qfx_rom #(.Width(OutWidth), .Depth(1 << InWidth), .InitFile(TableFile)) u_table (
      .clk_i,
      .addr_i(in_data_i[lane*InWidth +: InWidth]),
      .data_o(entry)
    );

    assign out_data_o[lane*OutWidth +: OutWidth] = (idle && lane >= Used) ? '0 : entry;
  end

  // Assertions: none beyond the parameter checks; qfx_agu_counter checks the group.

endmodule
