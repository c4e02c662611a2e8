// SPDX-License-Identifier: Apache-2.0
// The shell's registers behind AXI-Lite.
//
//   32-bit registers, word-aligned, the map is in README.md; a read elsewhere gives 0 and SLVERR, a write elsewhere SLVERR
//
// One access at a time in each direction, 3 cycles each. Outputs come from state only.
module qfx_axil_regs #(
  parameter int unsigned Version     = 1, // of the design, any number
  parameter int unsigned InElements  = 1, // elements of an input frame
  parameter int unsigned OutElements = 1, // elements of an output frame
  parameter int unsigned Layout      = 0  // {TDataWidth, container of outputs, container of inputs} in 16, 8 and 8 bits
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        s_axil_awvalid_i,
  output logic        s_axil_awready_o,
  input  logic [7:0]  s_axil_awaddr_i,
  input  logic        s_axil_wvalid_i,
  output logic        s_axil_wready_o,
  input  logic [31:0] s_axil_wdata_i,
  input  logic [3:0]  s_axil_wstrb_i,
  output logic        s_axil_bvalid_o,
  input  logic        s_axil_bready_i,
  output logic [1:0]  s_axil_bresp_o,
  input  logic        s_axil_arvalid_i,
  output logic        s_axil_arready_o,
  input  logic [7:0]  s_axil_araddr_i,
  output logic        s_axil_rvalid_o,
  input  logic        s_axil_rready_i,
  output logic [31:0] s_axil_rdata_o,
  output logic [1:0]  s_axil_rresp_o,
  input  logic        busy_i,
  input  logic        short_i,            // pulse: a short frame
  input  logic        long_i,             // pulse: a long packet
  input  logic        frame_i,            // pulse: a result frame is complete
  output logic [15:0] frames_per_packet_o // at least 1
);

  localparam logic [31:0] Id = 32'h5146_5831; // "QFX1"
  localparam logic [5:0] RegId = 6'd0, RegVersion = 6'd1, RegStatus = 6'd2, RegErrors = 6'd3, RegFrames = 6'd4,
                         RegCycleLow = 6'd5, RegCycleHigh = 6'd6, RegDone = 6'd7, RegIn = 6'd8, RegOut = 6'd9,
                         RegLayout = 6'd10;
  localparam logic [1:0] Okay = 2'b00, SlaveError = 2'b10;

  // Requests and answers pass small FIFOs, so that no channel sees another's handshake.
  logic        aw_valid, w_valid, ar_valid, b_room, r_room, write, read;
  logic [5:0]  aw_word, ar_word;
  logic [31:0] w_data, r_data;
  logic [3:0]  w_strb;
  logic        write_known, read_known;

  qfx_fifo_shift #(.Width(6), .Depth(1)) u_aw (
    .clk_i, .rst_ni, .in_valid_i(s_axil_awvalid_i), .in_ready_o(s_axil_awready_o), .in_data_i(s_axil_awaddr_i[7:2]),
    .out_valid_o(aw_valid), .out_ready_i(write), .out_data_o(aw_word)
  );
  qfx_fifo_shift #(.Width(36), .Depth(1)) u_w (
    .clk_i, .rst_ni, .in_valid_i(s_axil_wvalid_i), .in_ready_o(s_axil_wready_o),
    .in_data_i({s_axil_wstrb_i, s_axil_wdata_i}),
    .out_valid_o(w_valid), .out_ready_i(write), .out_data_o({w_strb, w_data})
  );
  qfx_fifo_shift #(.Width(2), .Depth(1)) u_b (
    .clk_i, .rst_ni, .in_valid_i(write), .in_ready_o(b_room), .in_data_i(write_known ? Okay : SlaveError),
    .out_valid_o(s_axil_bvalid_o), .out_ready_i(s_axil_bready_i), .out_data_o(s_axil_bresp_o)
  );
  qfx_fifo_shift #(.Width(6), .Depth(1)) u_ar (
    .clk_i, .rst_ni, .in_valid_i(s_axil_arvalid_i), .in_ready_o(s_axil_arready_o), .in_data_i(s_axil_araddr_i[7:2]),
    .out_valid_o(ar_valid), .out_ready_i(read), .out_data_o(ar_word)
  );
  qfx_fifo_shift #(.Width(34), .Depth(1)) u_r (
    .clk_i, .rst_ni, .in_valid_i(read), .in_ready_o(r_room),
    .in_data_i({read_known ? Okay : SlaveError, r_data}),
    .out_valid_o(s_axil_rvalid_o), .out_ready_i(s_axil_rready_i), .out_data_o({s_axil_rresp_o, s_axil_rdata_o})
  );

  logic [1:0]  errors_q; // {long, short}
  logic [15:0] frames_q, frames_d;
  logic [63:0] cycle_q;
  logic [31:0] cycle_high_q, done_q; // the upper half as it was when the lower one was read
  logic        unused;

  assign write       = aw_valid && w_valid && b_room;
  assign read        = ar_valid && r_room;
  assign write_known = aw_word == RegErrors || aw_word == RegFrames;
  assign unused      = &{1'b0, s_axil_awaddr_i[1:0], s_axil_araddr_i[1:0], w_data[31:16], w_strb[3:2]};

  assign frames_per_packet_o = frames_q;
  assign frames_d = {w_strb[1] ? w_data[15:8] : frames_q[15:8], w_strb[0] ? w_data[7:0] : frames_q[7:0]};

  always_comb begin
    read_known = 1'b1;
    case (ar_word)
      RegId:        r_data = Id;
      RegVersion:   r_data = Version;
      RegStatus:    r_data = {31'b0, busy_i};
      RegErrors:    r_data = {30'b0, errors_q};
      RegFrames:    r_data = {16'b0, frames_q};
      RegCycleLow:  r_data = cycle_q[31:0];
      RegCycleHigh: r_data = cycle_high_q;
      RegDone:      r_data = done_q;
      RegIn:        r_data = InElements;
      RegOut:       r_data = OutElements;
      RegLayout:    r_data = Layout;
      default: begin
        r_data     = '0;
        read_known = 1'b0;
      end
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      errors_q     <= '0;
      frames_q     <= 16'd1;
      cycle_q      <= '0;
      cycle_high_q <= '0;
      done_q       <= '0;
    end else begin
      cycle_q <= cycle_q + 1'b1;
      if (frame_i) done_q <= done_q + 1'b1;
      if (read && ar_word == RegCycleLow) cycle_high_q <= cycle_q[63:32];
      if (write && aw_word == RegFrames) frames_q <= (frames_d == '0) ? 16'd1 : frames_d;
      if (write && aw_word == RegErrors && w_strb[0]) errors_q <= (errors_q & ~w_data[1:0]) | {long_i, short_i};
      else errors_q <= errors_q | {long_i, short_i};
    end
  end

endmodule
