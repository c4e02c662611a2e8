// SPDX-License-Identifier: Apache-2.0
// AXI-Stream packets of containers to a stream of lanes, frame by frame, with the framing checked.
//
//   frame = Pixels * Channels elements, little-endian in containers of 8, 16 or 32 bits (the smallest that holds
//   ElementWidth); a packet is up to frames_i frames without a gap, TLAST in the beat of its last element
//
// A packet that ends inside a frame is short: zeros complete the frame, its token says "suppress". After frames_i frames
// without TLAST it is long: everything up to TLAST is dropped. One token {suppress, last of packet} a frame, once the
// frame is complete. A packet may end early between two frames; a beat whose TKEEP is 0 carries nothing.
//
// Latency 3 cycles; one beat or one word per cycle, whichever side is slower. Outputs come from state only.
module qfx_axis_unpack #(
  parameter int unsigned TDataWidth   = 64, // bits of a beat: 32, 64 or 128
  parameter int unsigned ElementWidth = 8,  // bits of an element, 1 to 32
  parameter int unsigned Lanes        = 1,  // lanes out, at least 1
  parameter int unsigned Channels     = 1,  // channels a pixel, at least 1
  parameter int unsigned Pixels       = 64, // pixels a frame, at least 1
  parameter int unsigned Tokens       = 8,  // frames whose result may be outstanding, at least 1
  localparam int unsigned KeepWidth   = TDataWidth / 8
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic [15:0]                   frames_i, // frames a packet, at least 1; steady while busy_o
  input  logic                          s_axis_tvalid_i,
  output logic                          s_axis_tready_o,
  input  logic [TDataWidth-1:0]         s_axis_tdata_i,
  input  logic [KeepWidth-1:0]          s_axis_tkeep_i,
  input  logic                          s_axis_tlast_i,
  output logic                          out_valid_o,
  input  logic                          out_ready_i,
  output logic [Lanes*ElementWidth-1:0] out_data_o,
  output logic                          token_valid_o,
  input  logic                          token_ready_i,
  output logic [1:0]                    token_data_o, // {suppress, last of packet}
  output logic                          short_o,      // pulse: a short frame
  output logic                          long_o,       // pulse: a long packet
  output logic                          busy_o        // a packet has begun, and not ended
);

  localparam int unsigned Container  = (ElementWidth <= 8) ? 8 : (ElementWidth <= 16) ? 16 : 32;
  localparam int unsigned Elements   = TDataWidth / Container; // elements a beat
  localparam int unsigned Capacity   = Elements + ((Elements > Lanes) ? Elements : Lanes);
  localparam int unsigned HeldWidth  = Capacity * ElementWidth;
  localparam int unsigned CountWidth = $clog2(Capacity + 1);
  localparam int unsigned Groups     = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned Tail       = Channels - (Groups - 1) * Lanes; // channels of a pixel's last group
  localparam int unsigned GroupWidth = (Groups > 1) ? $clog2(Groups) : 1;
  localparam int unsigned PixelWidth = (Pixels > 1) ? $clog2(Pixels) : 1;

  if (TDataWidth != 32 && TDataWidth != 64 && TDataWidth != 128) begin : gen_check_tdata_width
    $fatal(1, "qfx_axis_unpack: TDataWidth must be 32, 64 or 128, not %0d", TDataWidth);
  end
  if (ElementWidth < 1 || ElementWidth > 32) begin : gen_check_element_width
    $fatal(1, "qfx_axis_unpack: ElementWidth must be 1 to 32, not %0d", ElementWidth);
  end
  if (Lanes < 1 || Channels < 1 || Pixels < 1) begin : gen_check_shape
    $fatal(1, "qfx_axis_unpack: Lanes, Channels and Pixels must be at least 1, not %0d, %0d and %0d",
           Lanes, Channels, Pixels);
  end

  // The beat as it came, then its elements without containers and how many of them TKEEP keeps.
  logic                             raw_valid, raw_ready, raw_last, beat_valid, beat_ready, beat_last, beat;
  logic [TDataWidth-1:0]            raw_data;
  logic [KeepWidth-1:0]             raw_keep;
  logic [Elements:0]                kept; // element i is kept; the kept ones are the lowest
  logic [Elements*ElementWidth-1:0] raw_elements, beat_elements;
  logic [CountWidth-1:0]            raw_count, beat_count;

  qfx_fifo_shift #(.Width(TDataWidth + KeepWidth + 1), .Depth(2)) u_raw (
    .clk_i,
    .rst_ni,
    .in_valid_i (s_axis_tvalid_i),
    .in_ready_o (s_axis_tready_o),
    .in_data_i  ({s_axis_tlast_i, s_axis_tkeep_i, s_axis_tdata_i}),
    .out_valid_o(raw_valid),
    .out_ready_i(raw_ready),
    .out_data_o ({raw_last, raw_keep, raw_data})
  );

  always_comb begin
    kept         = '0;
    raw_count    = '0;
    raw_elements = '0;
    for (int unsigned i = 0; i < Elements; i++) begin
      kept[i] = raw_keep[i*Container/8];
      if (kept[i]) raw_elements[i*ElementWidth +: ElementWidth] = raw_data[i*Container +: ElementWidth];
    end
    for (int unsigned i = 0; i < Elements; i++) begin
      if (kept[i] && !kept[i+1]) raw_count = raw_count | CountWidth'(i + 1);
    end
  end

  qfx_fifo_shift #(.Width(Elements * ElementWidth + CountWidth + 1), .Depth(2)) u_beats (
    .clk_i,
    .rst_ni,
    .in_valid_i (raw_valid),
    .in_ready_o (raw_ready),
    .in_data_i  ({raw_last, raw_count, raw_elements}),
    .out_valid_o(beat_valid),
    .out_ready_i(beat_ready),
    .out_data_o ({beat_last, beat_count, beat_elements})
  );

  // Elements that wait, the oldest lowest, zeros above count_q.
  logic [HeldWidth-1:0]  held_q, held_d, shifted, joined;
  logic [CountWidth-1:0] count_q, count_d, total, need;
  logic                  last_q;    // the beat with TLAST is in held_q
  logic                  discard_q; // drop beats up to TLAST
  logic                  short_q;   // this frame is being completed with zeros
  logic [GroupWidth-1:0] group_q;
  logic [PixelWidth-1:0] pixel_q;
  logic [15:0]           frame_q;
  logic                  last_group, last_word, frame_start, enough, empty, take, finish, ended, full, token_room;

  assign last_group  = 32'(group_q) == Groups - 1;
  assign last_word   = last_group && 32'(pixel_q) == Pixels - 1;
  assign frame_start = group_q == '0 && pixel_q == '0;
  assign need        = last_group ? CountWidth'(Tail) : CountWidth'(Lanes);
  assign enough      = count_q >= need;
  assign empty       = last_q && count_q == '0 && frame_start; // TLAST after the last element of a frame

  assign beat_ready  = discard_q || (!last_q && 32'(count_q) <= Capacity - Elements);
  assign beat        = beat_valid && beat_ready;
  assign out_valid_o = !discard_q && (enough || (last_q && !empty)) && (!last_word || token_room);
  assign take        = out_valid_o && out_ready_i;
  assign finish      = take && last_word;
  assign ended       = last_q && count_q <= need; // the packet ends with this frame
  assign full        = frame_q == frames_i - 16'd1;
  assign busy_o      = raw_valid || beat_valid || count_q != '0 || last_q || discard_q || !frame_start || frame_q != '0;
  assign short_o     = take && !enough && !short_q;
  assign long_o      = finish && full && !ended;

  always_comb begin
    out_data_o = '0;
    for (int unsigned i = 0; i < Lanes; i++) begin
      if (i < 32'(need)) out_data_o[i*ElementWidth +: ElementWidth] = held_q[i*ElementWidth +: ElementWidth];
    end
  end

  // Put the beat behind what is there, then remove the word that leaves: the long shift starts from registers.
  always_comb begin
    shifted = HeldWidth'(beat_elements);
    for (int unsigned i = 0; i < CountWidth; i++) begin
      if (count_q[i]) shifted = shifted << ((1 << i) * ElementWidth);
    end
    joined  = beat ? held_q | shifted : held_q;
    total   = beat ? count_q + beat_count : count_q;
    held_d  = !take ? joined : last_group ? joined >> (Tail * ElementWidth) : joined >> (Lanes * ElementWidth);
    count_d = !take ? total : enough ? total - need : '0;
    if (discard_q || long_o) begin
      held_d  = '0;
      count_d = '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      held_q    <= '0;
      count_q   <= '0;
      last_q    <= 1'b0;
      discard_q <= 1'b0;
      short_q   <= 1'b0;
      group_q   <= '0;
      pixel_q   <= '0;
      frame_q   <= '0;
    end else begin
      held_q  <= held_d;
      count_q <= count_d;
      if (take) begin
        group_q <= last_group ? '0 : group_q + 1'b1;
        if (last_group) pixel_q <= last_word ? '0 : pixel_q + 1'b1;
        short_q <= !last_word && (short_q || !enough);
      end
      if (beat && !discard_q) last_q <= beat_last;
      if (discard_q && beat && beat_last) discard_q <= 1'b0;
      if (finish) frame_q <= (ended || full) ? '0 : frame_q + 1'b1;
      if (finish && ended) last_q <= 1'b0;
      if (long_o) begin
        last_q    <= 1'b0;
        discard_q <= !last_q && !(beat && beat_last);
      end
      if (empty) begin
        last_q  <= 1'b0;
        frame_q <= '0;
      end
    end
  end

  logic pop_unused;

  qfx_fifo #(.Width(2), .Depth(Tokens)) u_tokens (
    .clk_i,
    .rst_ni,
    .in_valid_i (finish),
    .in_ready_o (token_room),
    .in_data_i  ({short_q || !enough, ended || full}),
    .out_valid_o(token_valid_o),
    .out_ready_i(token_ready_i),
    .out_data_o (token_data_o),
    .pop_o      (pop_unused)
  );

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // What is held fits.
      assert (32'(count_q) <= Capacity) else $error("qfx_axis_unpack: more elements than Capacity");
      // A packet has at least one frame.
      assert (frames_i != '0) else $error("qfx_axis_unpack: frames_i must be at least 1, not 0");
    end
  end
`endif

endmodule
