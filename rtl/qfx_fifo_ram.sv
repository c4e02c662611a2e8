// SPDX-License-Identifier: Apache-2.0
// FIFO over a memory, with a prefetch buffer that hides the memory's two-cycle read.
//
//   words leave in the order in which they came; in_ready_o = fewer than Depth words inside
//
// Latency 4 cycles, one word per cycle. Ready and valid come from state only.
module qfx_fifo_ram #(
  parameter int unsigned Width = 8, // bits a word, at least 1
  parameter int unsigned Depth = 64 // words held, prefetched ones included, at least 4
) (
  input  logic             clk_i,
  input  logic             rst_ni,
  input  logic             in_valid_i,
  output logic             in_ready_o,
  input  logic [Width-1:0] in_data_i,
  output logic             out_valid_o,
  input  logic             out_ready_i,
  output logic [Width-1:0] out_data_o
);

  // From the issue of a read to the return of its credit: 2 cycles memory, 1 buffer, 1 credit counter.
  localparam int unsigned Prefetch   = 4;
  localparam int unsigned AddrWidth  = $clog2(Depth);
  localparam int unsigned CountWidth = $clog2(Depth + 1);

  if (Depth < Prefetch) begin : gen_check_depth
    $fatal(1, "qfx_fifo_ram: Depth must be at least 4, not %0d", Depth);
  end

  logic [AddrWidth-1:0]  write_q, read_q;
  logic [CountWidth-1:0] inside_q; // words inside, prefetched ones included
  logic [CountWidth-1:0] stored_q; // words in the memory whose read is not issued
  logic [1:0]            flight_q; // reads on their way through the memory
  logic                  push, pop, issue, room;
  logic [Width-1:0]      rdata;
  logic                  prefetch_ready_unused;

  assign push  = in_valid_i && in_ready_o;
  assign pop   = out_valid_o && out_ready_i;
  assign issue = stored_q != '0 && room;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      write_q    <= '0;
      read_q     <= '0;
      inside_q   <= '0;
      stored_q   <= '0;
      flight_q   <= '0;
      in_ready_o <= 1'b0;
    end else begin
      if (push) write_q <= (32'(write_q) == Depth - 1) ? '0 : write_q + 1'b1;
      if (issue) read_q <= (32'(read_q) == Depth - 1) ? '0 : read_q + 1'b1;
      inside_q   <= inside_q + CountWidth'(push) - CountWidth'(pop);
      stored_q   <= stored_q + CountWidth'(push) - CountWidth'(issue);
      flight_q   <= {flight_q[0], issue};
      in_ready_o <= 32'(inside_q) + 32'(push) < Depth + 32'(pop);
    end
  end

  qfx_credit #(.Credits(Prefetch)) u_room (
    .clk_i,
    .rst_ni,
    .take_i     (issue),
    .give_i     (pop),
    .available_o(room)
  );

  qfx_ram_sdp #(.Width(Width), .Depth(Depth)) u_ram (
    .clk_i,
    .we_i   (push),
    .waddr_i(write_q),
    .wdata_i(in_data_i),
    .raddr_i(read_q),
    .rdata_o(rdata)
  );

  qfx_fifo_shift #(.Width(Width), .Depth(Prefetch)) u_prefetch (
    .clk_i,
    .rst_ni,
    .in_valid_i (flight_q[1]),
    .in_ready_o (prefetch_ready_unused),
    .in_data_i  (rdata),
    .out_valid_o(out_valid_o),
    .out_ready_i(out_ready_i),
    .out_data_o (out_data_o)
  );

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (rst_ni) begin
      // A prefetched word always finds room.
      assert (!flight_q[1] || prefetch_ready_unused) else $error("qfx_fifo_ram: prefetch buffer overflowed");
      // Never more words than places.
      assert (32'(inside_q) <= Depth) else $error("qfx_fifo_ram: more than Depth words inside");
      // A write does not go past the last word.
      assert (32'(write_q) < Depth) else $error("qfx_fifo_ram: write_q beyond the memory");
    end
  end
`endif

endmodule
