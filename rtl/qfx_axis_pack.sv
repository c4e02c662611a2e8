// SPDX-License-Identifier: Apache-2.0
// Stream of lanes to AXI-Stream packets of containers, framed and filtered by the tokens of qfx_axis_unpack.
//
//   elements are little-endian in containers of 8, 16 or 32 bits (the smallest that holds ElementWidth), sign-extended;
//   frames of a packet follow without a gap; the last beat has TLAST and is filled up with zeros that TKEEP excludes
//
// A whole frame is held until its token is here, so the result of a frame that turns out short never leaves. Where the
// last frame of a packet is suppressed, its TLAST is lost and the packet goes on: the error flag tells the driver.
//
// Latency 3 cycles after the token (6 for frames above 32 words); one word or one beat per cycle, whichever side is
// slower. Outputs come from state only.
module qfx_axis_pack #(
  parameter int unsigned TDataWidth    = 64,   // bits of a beat: 32, 64 or 128
  parameter int unsigned ElementWidth  = 8,    // bits of an element, 1 to 32
  parameter bit          ElementSigned = 1'b1, // elements are two's complement
  parameter int unsigned Lanes         = 1,    // lanes in, at least 1
  parameter int unsigned Channels      = 10,   // channels a pixel, at least 1
  parameter int unsigned Pixels        = 1,    // pixels a frame, at least 1
  localparam int unsigned KeepWidth    = TDataWidth / 8
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          in_valid_i,
  output logic                          in_ready_o,
  input  logic [Lanes*ElementWidth-1:0] in_data_i,
  input  logic                          token_valid_i,
  output logic                          token_ready_o,
  input  logic [1:0]                    token_data_i, // {suppress, last of packet}
  output logic                          m_axis_tvalid_o,
  input  logic                          m_axis_tready_i,
  output logic [TDataWidth-1:0]         m_axis_tdata_o,
  output logic [KeepWidth-1:0]          m_axis_tkeep_o,
  output logic                          m_axis_tlast_o,
  output logic                          frame_o, // pulse: the last word of a frame that is not suppressed
  output logic                          busy_o   // a result waits or is on its way
);

  localparam int unsigned Container  = (ElementWidth <= 8) ? 8 : (ElementWidth <= 16) ? 16 : 32;
  localparam int unsigned Elements   = TDataWidth / Container; // elements a beat
  localparam int unsigned Capacity   = Elements + 2 * Lanes;
  localparam int unsigned HeldWidth  = Capacity * ElementWidth;
  localparam int unsigned CountWidth = $clog2(Capacity + 1);
  localparam int unsigned Groups     = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned Tail       = Channels - (Groups - 1) * Lanes; // channels of a pixel's last group
  localparam int unsigned GroupWidth = (Groups > 1) ? $clog2(Groups) : 1;
  localparam int unsigned PixelWidth = (Pixels > 1) ? $clog2(Pixels) : 1;
  localparam int unsigned Words      = Groups * Pixels; // words a frame

  if (TDataWidth != 32 && TDataWidth != 64 && TDataWidth != 128) begin : gen_check_tdata_width
    $fatal(1, "qfx_axis_pack: TDataWidth must be 32, 64 or 128, not %0d", TDataWidth);
  end
  if (ElementWidth < 1 || ElementWidth > 32) begin : gen_check_element_width
    $fatal(1, "qfx_axis_pack: ElementWidth must be 1 to 32, not %0d", ElementWidth);
  end
  if (Lanes < 1 || Channels < 1 || Pixels < 1) begin : gen_check_shape
    $fatal(1, "qfx_axis_pack: Lanes, Channels and Pixels must be at least 1, not %0d, %0d and %0d",
           Lanes, Channels, Pixels);
  end

  // A whole frame fits, so that the core can finish it while its token is awaited.
  logic                          word_valid, word_ready;
  logic [Lanes*ElementWidth-1:0] word_data;
  logic                          pop_unused;

  qfx_fifo #(.Width(Lanes * ElementWidth), .Depth((Words > 2) ? Words : 2)) u_hold (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_data_i,
    .out_valid_o(word_valid),
    .out_ready_i(word_ready),
    .out_data_o (word_data),
    .pop_o      (pop_unused)
  );

  logic token_valid, suppress, last_frame, finish;

  qfx_fifo_shift #(.Width(2), .Depth(2)) u_tokens (
    .clk_i,
    .rst_ni,
    .in_valid_i (token_valid_i),
    .in_ready_o (token_ready_o),
    .in_data_i  (token_data_i),
    .out_valid_o(token_valid),
    .out_ready_i(finish),
    .out_data_o ({suppress, last_frame})
  );

  // Elements that wait, the oldest lowest, zeros above count_q.
  logic [HeldWidth-1:0]  held_q, held_d, shifted, joined;
  logic [CountWidth-1:0] count_q, count_d, total, need;
  logic                  flush_q; // the packet's last element is in held_q
  logic [GroupWidth-1:0] group_q;
  logic [PixelWidth-1:0] pixel_q;
  logic                  last_group, last_word, take, add, send;

  assign last_group = 32'(group_q) == Groups - 1;
  assign last_word  = last_group && 32'(pixel_q) == Pixels - 1;
  assign need       = last_group ? CountWidth'(Tail) : CountWidth'(Lanes);
  assign word_ready = token_valid && (suppress || (!flush_q && 32'(count_q) <= Capacity - Lanes));
  assign take       = word_valid && word_ready;
  assign add        = take && !suppress;
  assign finish     = take && last_word;
  assign send       = m_axis_tvalid_o && m_axis_tready_i;

  assign m_axis_tvalid_o = flush_q || 32'(count_q) >= Elements;
  assign m_axis_tlast_o  = flush_q && 32'(count_q) <= Elements;
  assign frame_o         = finish && !suppress;
  assign busy_o          = word_valid || token_valid || count_q != '0 || !(group_q == '0 && pixel_q == '0);

  for (genvar i = 0; i < Elements; i++) begin : gen_element
    logic [ElementWidth-1:0] element;

    assign element = held_q[i*ElementWidth +: ElementWidth];
    assign m_axis_tkeep_o[i*Container/8 +: Container/8] = {(Container/8){i < 32'(count_q)}};
    if (ElementSigned) begin : gen_signed
      assign m_axis_tdata_o[i*Container +: Container] = Container'($signed(element));
    end else begin : gen_unsigned
      assign m_axis_tdata_o[i*Container +: Container] = Container'(element);
    end
  end

  // Put the word behind what is there, then remove the beat that leaves: the long shift starts from registers.
  always_comb begin
    shifted = '0;
    for (int unsigned i = 0; i < Lanes; i++) begin
      if (i < 32'(need)) shifted[i*ElementWidth +: ElementWidth] = word_data[i*ElementWidth +: ElementWidth];
    end
    for (int unsigned i = 0; i < CountWidth; i++) begin
      if (count_q[i]) shifted = shifted << ((1 << i) * ElementWidth);
    end
    joined  = add ? held_q | shifted : held_q;
    total   = add ? count_q + need : count_q;
    held_d  = send ? joined >> (Elements * ElementWidth) : joined;
    count_d = !send ? total : (32'(total) > Elements) ? total - CountWidth'(Elements) : '0;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      held_q  <= '0;
      count_q <= '0;
      flush_q <= 1'b0;
      group_q <= '0;
      pixel_q <= '0;
    end else begin
      held_q  <= held_d;
      count_q <= count_d;
      if (frame_o && last_frame) flush_q <= 1'b1;
      else if (send && m_axis_tlast_o) flush_q <= 1'b0;
      if (take) begin
        group_q <= last_group ? '0 : group_q + 1'b1;
        if (last_group) pixel_q <= last_word ? '0 : pixel_q + 1'b1;
      end
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // What is held fits.
      assert (32'(count_q) <= Capacity) else $error("qfx_axis_pack: more elements than Capacity");
    end
  end
`endif

endmodule
