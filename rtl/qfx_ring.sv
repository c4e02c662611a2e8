// SPDX-License-Identifier: Apache-2.0
// Row ring: keeps the last Rows rows of an endless sequence of image rows for readers that follow the writer.
//
//   word w of the n-th row since reset lies at address (n mod Rows) * RowPixels * PixelWords + w
//
// Words come in row-major, PixelWords channel groups a pixel. in_ready_o = the row being written has a place; a row takes
// one of Rows row credits, release_i gives back that many. So a row is overwritten only after the reader has released it,
// and the next frame flows in while this one is being read. row_o pulses for each complete row; pixels_o, which follows
// one cycle later, counts the complete pixels of the row behind it. What they announce can be read.
//
// Reads: rdata_o(t + 2) = word raddr_i(t), one a cycle on each port; every port has a copy of the memory. The reader
// releases a row only in the cycle of its last read address, or later. One word per cycle in.
module qfx_ring #(
  parameter int unsigned Width        = 8,      // bits a word, at least 1
  parameter int unsigned RowPixels    = 8,      // pixels a row, at least 1
  parameter int unsigned PixelWords   = 1,      // channel groups a pixel, at least 1
  parameter int unsigned Rows         = 4,      // rows held, at least 2
  parameter int unsigned ReadPorts    = 1,      // read ports, at least 1
  parameter int unsigned ReleaseWidth = 2,      // bits of release_i, at least 1
  parameter string       Style        = "auto", // ram_style of the memory
  localparam int unsigned RowWords   = RowPixels * PixelWords,
  localparam int unsigned Depth      = Rows * RowWords,
  localparam int unsigned AddrWidth  = $clog2(Depth),
  localparam int unsigned PixelWidth = (RowPixels > 1) ? $clog2(RowPixels) : 1
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,
  input  logic                           in_valid_i,
  output logic                           in_ready_o,
  input  logic [Width-1:0]               in_data_i,
  output logic                           row_o,
  output logic [PixelWidth-1:0]          pixels_o,
  input  logic [ReleaseWidth-1:0]        release_i,
  input  logic [ReadPorts*AddrWidth-1:0] raddr_i,
  output logic [ReadPorts*Width-1:0]     rdata_o
);

  localparam int unsigned FreeWidth = $clog2(Rows + (1 << ReleaseWidth));

  if (Width < 1 || RowPixels < 1 || PixelWords < 1 || ReadPorts < 1 || ReleaseWidth < 1) begin : gen_check_sizes
    $fatal(1, "qfx_ring: Width, RowPixels, PixelWords, ReadPorts and ReleaseWidth must be at least 1, not %0d, %0d, %0d, %0d, %0d",
           Width, RowPixels, PixelWords, ReadPorts, ReleaseWidth);
  end
  if (Rows < 2) begin : gen_check_rows
    $fatal(1, "qfx_ring: Rows must be at least 2, not %0d", Rows);
  end

  logic                  push, word_last, pixel_last, row_end, wrap_unused;
  logic [AddrWidth-1:0]  waddr;
  logic [PixelWidth-1:0] pixel;
  logic [FreeWidth-1:0]  free_q, free_d; // rows that may be written, the one being written included

  assign push    = in_valid_i && in_ready_o;
  assign row_end = push && word_last && pixel_last;
  assign free_d  = free_q + FreeWidth'(release_i) - FreeWidth'(row_end);

  // The unused outputs of the counters are dropped by name.
  logic [((PixelWords > 1) ? $clog2(PixelWords) : 1)-1:0] word_unused;

  qfx_agu_counter #(.Count(Depth)) u_address (
    .clk_i, .rst_ni, .step_i(push), .value_o(waddr), .last_o(wrap_unused)
  );
  qfx_agu_counter #(.Count(PixelWords)) u_word (
    .clk_i, .rst_ni, .step_i(push), .value_o(word_unused), .last_o(word_last)
  );
  qfx_agu_counter #(.Count(RowPixels)) u_pixel (
    .clk_i, .rst_ni, .step_i(push && word_last), .value_o(pixel), .last_o(pixel_last)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      free_q     <= FreeWidth'(Rows);
      in_ready_o <= 1'b0;
      row_o      <= 1'b0;
      pixels_o   <= '0;
    end else begin
      free_q     <= free_d;
      in_ready_o <= free_d != '0;
      row_o      <= row_end;
      pixels_o   <= pixel;
    end
  end

  for (genvar port = 0; port < ReadPorts; port++) begin : gen_port
    qfx_ram_sdp #(.Width(Width), .Depth(Depth), .Style(Style)) u_ram (
      .clk_i,
      .we_i   (push),
      .waddr_i(waddr),
      .wdata_i(in_data_i),
      .raddr_i(raddr_i[port*AddrWidth +: AddrWidth]),
      .rdata_o(rdata_o[port*Width +: Width])
    );
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // A word enters only a row that has a place.
      assert (!push || free_q != '0) else $error("qfx_ring: a word entered a row without a place");
    end
  end
`endif

endmodule
