// SPDX-License-Identifier: Apache-2.0
// Source of a segment that chooses channels: each lane of a pixel's words out is a lane of its words in, or 0.
//
//   out lane l of word g = in lane `lane` of word `word`, {taken, lane, word} = entry g*OutLanes + l of Order; 0 unless taken
//
// Two pixels are kept: while one is read, the next comes. For each pair of lanes that Order joins there is one memory of
// 2*InWords codes, so a pair that it never joins costs nothing, and with InWords = OutWords = 1 all is wiring behind it.
// A pixel takes max(InWords, OutWords) cycles. Latency from a pixel's last word in to its first word out 4 cycles.
// out_valid_o has no ready: a FIFO of Credits words must follow within the segment, its pop_o on give_i.
module qfx_select #(
  parameter int unsigned Width    = 8, // bits of a code, at least 1
  parameter int unsigned InLanes  = 1, // codes a word in, at least 1
  parameter int unsigned OutLanes = 1, // codes a word out, at least 1
  parameter int unsigned InWords  = 2, // words in a pixel, at least 1
  parameter int unsigned OutWords = 2, // words out a pixel, at least 1
  parameter int unsigned Credits  = 4, // depth of the FIFO that closes the segment, at least 1
  localparam int unsigned WordWidth  = (InWords > 1) ? $clog2(InWords) : 1,
  localparam int unsigned LaneWidth  = (InLanes > 1) ? $clog2(InLanes) : 1,
  localparam int unsigned EntryWidth = 1 + LaneWidth + WordWidth,
  localparam int unsigned LineWidth  = OutLanes * EntryWidth,
  parameter logic [OutWords-1:0][LineWidth-1:0] Order = 6'b101_100 // the entries, that of lane 0 of word 0 in the low bits
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      in_valid_i,
  output logic                      in_ready_o,
  input  logic [InLanes*Width-1:0]  in_data_i,
  output logic                      out_valid_o,
  output logic [OutLanes*Width-1:0] out_data_o,
  input  logic                      give_i
);

  localparam int unsigned Depth     = 2 * InWords;
  localparam int unsigned AddrWidth = $clog2(Depth);
  localparam int unsigned NextWidth = (OutWords > 1) ? $clog2(OutWords) : 1;

  if (Width < 1 || InLanes < 1 || OutLanes < 1 || InWords < 1 || OutWords < 1) begin : gen_check_sizes
    $fatal(1, "qfx_select: Width, InLanes, OutLanes, InWords and OutWords must be at least 1, not %0d, %0d, %0d, %0d and %0d",
           Width, InLanes, OutLanes, InWords, OutWords);
  end

  function automatic bit joins(int unsigned from, int unsigned to); // whether Order takes lane `from` for lane `to`
    joins = 1'b0;
    for (int unsigned g = 0; g < OutWords; g++) begin
      if (32'(Order[g][to*EntryWidth + WordWidth +: LaneWidth + 1]) == (1 << LaneWidth) + from) joins = 1'b1;
    end
  endfunction

  // The memory has two places, written and read in turn.
  logic                 push, take, in_last, out_last;
  logic                 write_slot_q, read_slot_q;
  logic [WordWidth-1:0] in_word;
  logic [AddrWidth-1:0] waddr;

  assign waddr = AddrWidth'(in_word) + (write_slot_q ? AddrWidth'(InWords) : '0);

  qfx_agu_counter #(.Count(InWords)) u_in_word (
    .clk_i, .rst_ni, .step_i(push), .value_o(in_word), .last_o(in_last)
  );
  qfx_places #(.Credits(Credits)) u_places (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_last_i (in_last),
    .push_o    (push),
    .out_last_i(out_last),
    .take_o    (take),
    .give_i
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      write_slot_q <= 1'b0;
      read_slot_q  <= 1'b0;
    end else begin
      if (push && in_last) write_slot_q <= !write_slot_q;
      if (take && out_last) read_slot_q <= !read_slot_q;
    end
  end

  // The entries of the word to read, looked up one word ahead.
  logic [LineWidth-1:0] line;

  if (OutWords > 1) begin : gen_lines
    logic [NextWidth-1:0] next_q;
    logic [LineWidth-1:0] line_q;
    logic                 out_last_q;

    always_ff @(posedge clk_i) begin
      if (!rst_ni) begin
        next_q     <= NextWidth'(1);
        line_q     <= Order[0];
        out_last_q <= 1'b0;
      end else if (take) begin
        next_q     <= (32'(next_q) == OutWords - 1) ? '0 : next_q + 1'b1;
        line_q     <= Order[next_q];
        out_last_q <= 32'(next_q) == OutWords - 1;
      end
    end

    assign line     = line_q;
    assign out_last = out_last_q;
  end else begin : gen_line
    assign line     = Order[0];
    assign out_last = 1'b1;
  end

  // The codes come 2 cycles after their address, and so does what chooses among them.
  logic [2:0] take_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) take_q <= '0;
    else take_q <= {take_q[1:0], take};
  end

  assign out_valid_o = take_q[2];

  for (genvar to = 0; to < OutLanes; to++) begin : gen_out
    logic [EntryWidth-1:0]          entry;
    logic [AddrWidth-1:0]           raddr;
    logic [1:0][LaneWidth:0]        chosen_q; // taken and lane, of what is being read and of what is read
    logic [InLanes-1:0][Width-1:0]  codes;
    logic [Width-1:0]               code;
    logic                           unused; // lanes that are not joined

    assign unused = &{1'b0, in_data_i, raddr, waddr};

    assign entry = line[to*EntryWidth +: EntryWidth];
    assign raddr = AddrWidth'(entry[WordWidth-1:0]) + (read_slot_q ? AddrWidth'(InWords) : '0);

    for (genvar from = 0; from < InLanes; from++) begin : gen_in
      if (joins(from, to)) begin : gen_pair
        qfx_ram_sdp #(.Width(Width), .Depth(Depth)) u_ram (
          .clk_i,
          .we_i   (push),
          .waddr_i(waddr),
          .wdata_i(in_data_i[from*Width +: Width]),
          .raddr_i(raddr),
          .rdata_o(codes[from])
        );
      end else begin : gen_none
        assign codes[from] = '0;
      end
    end

    always_comb begin
      code = '0;
      for (int unsigned i = 0; i < InLanes; i++) begin
        if (chosen_q[1] == {1'b1, LaneWidth'(i)}) code |= codes[i];
      end
    end

    always_ff @(posedge clk_i) begin
      chosen_q <= {chosen_q[0], entry[WordWidth +: LaneWidth + 1]};
      out_data_o[to*Width +: Width] <= code;
    end
  end

endmodule
