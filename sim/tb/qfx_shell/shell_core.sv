// Bench top: qfx_shell around a core that adds the index of the word in its frame, so that a lost frame border shows.
module shell_core #(
  parameter int unsigned TDataWidth = 64,
  parameter int unsigned InWidth    = 8,
  parameter int unsigned OutWidth   = 12,
  parameter int unsigned Lanes      = 3,
  parameter int unsigned Channels   = 3,
  parameter int unsigned Pixels     = 5,
  localparam int unsigned KeepWidth = TDataWidth / 8
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  s_axis_tvalid_i,
  output logic                  s_axis_tready_o,
  input  logic [TDataWidth-1:0] s_axis_tdata_i,
  input  logic [KeepWidth-1:0]  s_axis_tkeep_i,
  input  logic                  s_axis_tlast_i,
  output logic                  m_axis_tvalid_o,
  input  logic                  m_axis_tready_i,
  output logic [TDataWidth-1:0] m_axis_tdata_o,
  output logic [KeepWidth-1:0]  m_axis_tkeep_o,
  output logic                  m_axis_tlast_o,
  input  logic                  s_axil_awvalid_i,
  output logic                  s_axil_awready_o,
  input  logic [7:0]            s_axil_awaddr_i,
  input  logic                  s_axil_wvalid_i,
  output logic                  s_axil_wready_o,
  input  logic [31:0]           s_axil_wdata_i,
  input  logic [3:0]            s_axil_wstrb_i,
  output logic                  s_axil_bvalid_o,
  input  logic                  s_axil_bready_i,
  output logic [1:0]            s_axil_bresp_o,
  input  logic                  s_axil_arvalid_i,
  output logic                  s_axil_arready_o,
  input  logic [7:0]            s_axil_araddr_i,
  output logic                  s_axil_rvalid_o,
  input  logic                  s_axil_rready_i,
  output logic [31:0]           s_axil_rdata_o,
  output logic [1:0]            s_axil_rresp_o
);

  localparam int unsigned Words = ((Channels + Lanes - 1) / Lanes) * Pixels;

  logic                      in_valid, in_ready, out_valid, out_ready, valid, give, room;
  logic [Lanes*InWidth-1:0]  in_data, data;
  logic [Lanes*OutWidth-1:0] sum, out_data;
  logic [OutWidth-1:0]       index_q;

  qfx_shell #(
    .TDataWidth(TDataWidth), .InWidth(InWidth), .InLanes(Lanes), .InChannels(Channels), .InPixels(Pixels),
    .OutWidth(OutWidth), .OutSigned(1'b1), .OutLanes(Lanes), .OutChannels(Channels), .OutPixels(Pixels), .Version(42)
  ) u_shell (
    .clk_i, .rst_ni,
    .s_axis_tvalid_i, .s_axis_tready_o, .s_axis_tdata_i, .s_axis_tkeep_i, .s_axis_tlast_i,
    .m_axis_tvalid_o, .m_axis_tready_i, .m_axis_tdata_o, .m_axis_tkeep_o, .m_axis_tlast_o,
    .s_axil_awvalid_i, .s_axil_awready_o, .s_axil_awaddr_i, .s_axil_wvalid_i, .s_axil_wready_o,
    .s_axil_wdata_i, .s_axil_wstrb_i, .s_axil_bvalid_o, .s_axil_bready_i, .s_axil_bresp_o,
    .s_axil_arvalid_i, .s_axil_arready_o, .s_axil_araddr_i,
    .s_axil_rvalid_o, .s_axil_rready_i, .s_axil_rdata_o, .s_axil_rresp_o,
    .core_in_valid_o(in_valid), .core_in_ready_i(in_ready), .core_in_data_o(in_data),
    .core_out_valid_i(out_valid), .core_out_ready_o(out_ready), .core_out_data_i(out_data)
  );

  qfx_gate #(.Width(Lanes * InWidth), .Credits(5)) u_gate (
    .clk_i, .rst_ni, .in_valid_i(in_valid), .in_ready_o(in_ready), .in_data_i(in_data),
    .out_valid_o(valid), .out_data_o(data), .give_i(give)
  );

  for (genvar i = 0; i < Lanes; i++) begin : gen_lane
    assign sum[i*OutWidth +: OutWidth] = OutWidth'($signed(data[i*InWidth +: InWidth])) + index_q;
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni) index_q <= '0;
    else if (valid) index_q <= (32'(index_q) == Words - 1) ? '0 : index_q + 1'b1;
  end

  qfx_fifo #(.Width(Lanes * OutWidth), .Depth(5)) u_fifo (
    .clk_i, .rst_ni, .in_valid_i(valid), .in_ready_o(room), .in_data_i(sum),
    .out_valid_o(out_valid), .out_ready_i(out_ready), .out_data_o(out_data), .pop_o(give)
  );

  always_ff @(posedge clk_i) assert (!rst_ni || !valid || room) else $error("the closing FIFO overflowed");

endmodule
