// SPDX-License-Identifier: Apache-2.0
// The border between a core of streams and a processor: AXI-Stream in and out, AXI-Lite registers, framing.
//
//   in and out: see qfx_axis_unpack and qfx_axis_pack; registers: see README.md
//
// The core sees frames without a gap or a mark. What a broken packet does to it: a short frame is completed with zeros and
// its result suppressed, a long packet is cut after its last frame; both set an error flag. No path crosses the shell.
module qfx_shell #(
  parameter int unsigned TDataWidth  = 64,   // bits of an AXI-Stream beat: 32, 64 or 128
  parameter int unsigned InWidth     = 8,    // bits of an input element, 1 to 32
  parameter int unsigned InLanes     = 1,    // lanes of the core's input
  parameter int unsigned InChannels  = 1,    // channels of an input pixel
  parameter int unsigned InPixels    = 64,   // pixels of an input frame
  parameter int unsigned OutWidth    = 8,    // bits of an output element, 1 to 32
  parameter bit          OutSigned   = 1'b1, // output elements are two's complement
  parameter int unsigned OutLanes    = 1,    // lanes of the core's output
  parameter int unsigned OutChannels = 10,   // channels of an output pixel
  parameter int unsigned OutPixels   = 1,    // pixels of an output frame
  parameter int unsigned Version     = 1,    // of the design, for the register
  localparam int unsigned KeepWidth  = TDataWidth / 8
) (
  input  logic                         clk_i,
  input  logic                         rst_ni,
  // AXI-Stream in
  input  logic                         s_axis_tvalid_i,
  output logic                         s_axis_tready_o,
  input  logic [TDataWidth-1:0]        s_axis_tdata_i,
  input  logic [KeepWidth-1:0]         s_axis_tkeep_i,
  input  logic                         s_axis_tlast_i,
  // AXI-Stream out
  output logic                         m_axis_tvalid_o,
  input  logic                         m_axis_tready_i,
  output logic [TDataWidth-1:0]        m_axis_tdata_o,
  output logic [KeepWidth-1:0]         m_axis_tkeep_o,
  output logic                         m_axis_tlast_o,
  // AXI-Lite
  input  logic                         s_axil_awvalid_i,
  output logic                         s_axil_awready_o,
  input  logic [7:0]                   s_axil_awaddr_i,
  input  logic                         s_axil_wvalid_i,
  output logic                         s_axil_wready_o,
  input  logic [31:0]                  s_axil_wdata_i,
  input  logic [3:0]                   s_axil_wstrb_i,
  output logic                         s_axil_bvalid_o,
  input  logic                         s_axil_bready_i,
  output logic [1:0]                   s_axil_bresp_o,
  input  logic                         s_axil_arvalid_i,
  output logic                         s_axil_arready_o,
  input  logic [7:0]                   s_axil_araddr_i,
  output logic                         s_axil_rvalid_o,
  input  logic                         s_axil_rready_i,
  output logic [31:0]                  s_axil_rdata_o,
  output logic [1:0]                   s_axil_rresp_o,
  // to the core's input
  output logic                         core_in_valid_o,
  input  logic                         core_in_ready_i,
  output logic [InLanes*InWidth-1:0]   core_in_data_o,
  // from the core's output
  input  logic                         core_out_valid_i,
  output logic                         core_out_ready_o,
  input  logic [OutLanes*OutWidth-1:0] core_out_data_i
);

  localparam int unsigned InContainer  = (InWidth <= 8) ? 8 : (InWidth <= 16) ? 16 : 32;
  localparam int unsigned OutContainer = (OutWidth <= 8) ? 8 : (OutWidth <= 16) ? 16 : 32;

  logic        token_valid, token_ready, short_frame, long_packet, frame_done, in_busy, out_busy, busy_q;
  logic [1:0]  token_data;
  logic [15:0] frames;

  qfx_axis_unpack #(
    .TDataWidth  (TDataWidth),
    .ElementWidth(InWidth),
    .Lanes       (InLanes),
    .Channels    (InChannels),
    .Pixels      (InPixels)
  ) u_unpack (
    .clk_i,
    .rst_ni,
    .frames_i     (frames),
    .s_axis_tvalid_i,
    .s_axis_tready_o,
    .s_axis_tdata_i,
    .s_axis_tkeep_i,
    .s_axis_tlast_i,
    .out_valid_o  (core_in_valid_o),
    .out_ready_i  (core_in_ready_i),
    .out_data_o   (core_in_data_o),
    .token_valid_o(token_valid),
    .token_ready_i(token_ready),
    .token_data_o (token_data),
    .short_o      (short_frame),
    .long_o       (long_packet),
    .busy_o       (in_busy)
  );

  qfx_axis_pack #(
    .TDataWidth   (TDataWidth),
    .ElementWidth (OutWidth),
    .ElementSigned(OutSigned),
    .Lanes        (OutLanes),
    .Channels     (OutChannels),
    .Pixels       (OutPixels)
  ) u_pack (
    .clk_i,
    .rst_ni,
    .in_valid_i   (core_out_valid_i),
    .in_ready_o   (core_out_ready_o),
    .in_data_i    (core_out_data_i),
    .token_valid_i(token_valid),
    .token_ready_o(token_ready),
    .token_data_i (token_data),
    .m_axis_tvalid_o,
    .m_axis_tready_i,
    .m_axis_tdata_o,
    .m_axis_tkeep_o,
    .m_axis_tlast_o,
    .frame_o      (frame_done),
    .busy_o       (out_busy)
  );

  // The registers see pulses one cycle late: that cuts the paths from the streams.
  logic short_q, long_q, frame_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      short_q <= 1'b0;
      long_q  <= 1'b0;
      frame_q <= 1'b0;
      busy_q  <= 1'b0;
    end else begin
      short_q <= short_frame;
      long_q  <= long_packet;
      frame_q <= frame_done;
      busy_q  <= in_busy || token_valid || out_busy;
    end
  end

  qfx_axil_regs #(
    .Version    (Version),
    .InElements (InChannels * InPixels),
    .OutElements(OutChannels * OutPixels),
    .Layout     (TDataWidth << 16 | OutContainer << 8 | InContainer)
  ) u_regs (
    .clk_i,
    .rst_ni,
    .s_axil_awvalid_i,
    .s_axil_awready_o,
    .s_axil_awaddr_i,
    .s_axil_wvalid_i,
    .s_axil_wready_o,
    .s_axil_wdata_i,
    .s_axil_wstrb_i,
    .s_axil_bvalid_o,
    .s_axil_bready_i,
    .s_axil_bresp_o,
    .s_axil_arvalid_i,
    .s_axil_arready_o,
    .s_axil_araddr_i,
    .s_axil_rvalid_o,
    .s_axil_rready_i,
    .s_axil_rdata_o,
    .s_axil_rresp_o,
    .busy_i             (busy_q),
    .short_i            (short_q),
    .long_i             (long_q),
    .frame_i            (frame_q),
    .frames_per_packet_o(frames)
  );

  // Assertions: those of qfx_axis_unpack and qfx_axis_pack.

endmodule
