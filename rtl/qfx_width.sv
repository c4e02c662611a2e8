// SPDX-License-Identifier: Apache-2.0
// Changes the number of lanes of a stream: the channels of a pixel keep their order, no word spans two pixels.
//
//   in:  ceil(Channels / InLanes) words a pixel;  out: ceil(Channels / OutLanes) words a pixel
//
// Latency 1 cycle after the word that completes an output word; the narrower side moves one word per cycle. Lanes beyond
// Channels leave as 0, given that they come as 0. Ready and valid come from state only.
module qfx_width #(
  parameter int unsigned LaneWidth = 8, // bits a lane, at least 1
  parameter int unsigned InLanes   = 1, // lanes in, at least 1; divides OutLanes or is divided by it
  parameter int unsigned OutLanes  = 2, // lanes out, at least 1
  parameter int unsigned Channels  = 4  // channels a pixel, at least 1
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          in_valid_i,
  output logic                          in_ready_o,
  input  logic [InLanes*LaneWidth-1:0]  in_data_i,
  output logic                          out_valid_o,
  input  logic                          out_ready_i,
  output logic [OutLanes*LaneWidth-1:0] out_data_o
);

  localparam bit          Widens     = OutLanes > InLanes;
  localparam int unsigned WideLanes  = Widens ? OutLanes : InLanes;
  localparam int unsigned SlimLanes  = Widens ? InLanes : OutLanes;
  localparam int unsigned WideWidth  = WideLanes * LaneWidth;
  localparam int unsigned SlimWidth  = SlimLanes * LaneWidth;
  localparam int unsigned Ratio      = WideLanes / SlimLanes; // slim words in a full wide word
  localparam int unsigned SlimGroups = (Channels + SlimLanes - 1) / SlimLanes; // slim words a pixel
  localparam int unsigned SlotWidth  = (Ratio > 1) ? $clog2(Ratio) : 1;
  localparam int unsigned GroupWidth = (SlimGroups > 1) ? $clog2(SlimGroups) : 1;

  if (LaneWidth < 1) begin : gen_check_lane_width
    $fatal(1, "qfx_width: LaneWidth must be at least 1, not %0d", LaneWidth);
  end
  if (WideLanes % SlimLanes != 0) begin : gen_check_lanes
    $fatal(1, "qfx_width: one of InLanes and OutLanes must divide the other, not %0d and %0d", InLanes, OutLanes);
  end
  if (Channels < 1) begin : gen_check_channels
    $fatal(1, "qfx_width: Channels must be at least 1, not %0d", Channels);
  end

  // Position of the next slim word: its slot in the wide word and its group in the pixel.
  logic [SlotWidth-1:0]  slot_q;
  logic [GroupWidth-1:0] group_q;
  logic                  slim, last; // a slim word moves; it is the last one of its wide word

  assign last = 32'(slot_q) == Ratio - 1 || 32'(group_q) == SlimGroups - 1;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      slot_q  <= '0;
      group_q <= '0;
    end else if (slim) begin
      slot_q  <= last ? '0 : slot_q + 1'b1;
      group_q <= (32'(group_q) == SlimGroups - 1) ? '0 : group_q + 1'b1;
    end
  end

  if (Widens) begin : gen_widen
    logic [WideWidth-1:0] parts_q, word; // slots already here, the others 0; and with the word that is coming

    assign slim = in_valid_i && in_ready_o;

    always_comb begin
      word = parts_q;
      for (int unsigned i = 0; i < Ratio; i++) begin
        if (32'(slot_q) == i) word[i*SlimWidth +: SlimWidth] = in_data_i;
      end
    end

    always_ff @(posedge clk_i) begin
      if (!rst_ni) parts_q <= '0;
      else if (slim) parts_q <= last ? '0 : word;
    end

    qfx_fifo_shift #(.Width(WideWidth), .Depth(2)) u_out (
      .clk_i,
      .rst_ni,
      .in_valid_i (slim && last),
      .in_ready_o,
      .in_data_i  (word),
      .out_valid_o,
      .out_ready_i,
      .out_data_o
    );
  end else begin : gen_narrow
    logic [WideWidth-1:0] word;

    assign slim = out_valid_o && out_ready_i;

    always_comb begin
      out_data_o = '0;
      for (int unsigned i = 0; i < Ratio; i++) begin
        if (32'(slot_q) == i) out_data_o = word[i*SlimWidth +: SlimWidth];
      end
    end

    qfx_fifo_shift #(.Width(WideWidth), .Depth(2)) u_in (
      .clk_i,
      .rst_ni,
      .in_valid_i,
      .in_ready_o,
      .in_data_i,
      .out_valid_o,
      .out_ready_i(slim && last),
      .out_data_o (word)
    );
  end

  // Assertions: those of qfx_fifo_shift.

endmodule
