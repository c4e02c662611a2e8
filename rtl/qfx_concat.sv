// SPDX-License-Identifier: Apache-2.0
// Source of a segment with two inputs: of each pixel first the words of a, then those of b, while a credit is there.
//
//   out = a for WordsA words, b for WordsB words, and so on; each code sign- or zero-extended to OutWidth bits
//
// So the channels of b stand behind those of a, if a has no idle lanes: Lanes divides its channels.
// Latency 2 cycles, one word per cycle. give_i returns one credit: connect it to pop_o of the FIFO that closes the segment.
module qfx_concat #(
  parameter int unsigned AWidth   = 8,    // bits of a code of a, at least 1
  parameter bit          ASigned  = 1'b1, // codes of a are two's complement
  parameter int unsigned BWidth   = 8,    // bits of a code of b, at least 1
  parameter bit          BSigned  = 1'b1, // codes of b are two's complement
  parameter int unsigned OutWidth = 8,    // bits of a code of the result, AWidth and BWidth at least
  parameter int unsigned Lanes    = 1,    // codes a word, at least 1
  parameter int unsigned WordsA   = 1,    // words of a a pixel, at least 1
  parameter int unsigned WordsB   = 1,    // words of b a pixel, at least 1
  parameter int unsigned Credits  = 4     // depth of the FIFO that closes the segment, at least 1
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      a_valid_i,
  output logic                      a_ready_o,
  input  logic [Lanes*AWidth-1:0]   a_data_i,
  input  logic                      b_valid_i,
  output logic                      b_ready_o,
  input  logic [Lanes*BWidth-1:0]   b_data_i,
  output logic                      out_valid_o,
  output logic [Lanes*OutWidth-1:0] out_data_o,
  input  logic                      give_i
);

  localparam int unsigned Words = WordsA + WordsB;

  if (AWidth < 1 || BWidth < 1 || Lanes < 1) begin : gen_check_sizes
    $fatal(1, "qfx_concat: AWidth, BWidth and Lanes must be at least 1, not %0d, %0d and %0d", AWidth, BWidth, Lanes);
  end
  if (OutWidth < AWidth || OutWidth < BWidth) begin : gen_check_width
    $fatal(1, "qfx_concat: OutWidth must hold AWidth %0d and BWidth %0d, not be %0d", AWidth, BWidth, OutWidth);
  end
  if (WordsA < 1 || WordsB < 1) begin : gen_check_words
    $fatal(1, "qfx_concat: WordsA and WordsB must be at least 1, not %0d and %0d", WordsA, WordsB);
  end

  logic                     a_valid, b_valid, credit, take, of_b, last_unused;
  logic [Lanes*AWidth-1:0]  a_data;
  logic [Lanes*BWidth-1:0]  b_data;
  logic [$clog2(Words)-1:0] word; // of the pixel

  // Each input has a buffer of its own, so that its ready does not depend on whose turn it is.
  qfx_fifo_shift #(.Width(Lanes * AWidth), .Depth(2)) u_a (
    .clk_i,
    .rst_ni,
    .in_valid_i (a_valid_i),
    .in_ready_o (a_ready_o),
    .in_data_i  (a_data_i),
    .out_valid_o(a_valid),
    .out_ready_i(take && !of_b),
    .out_data_o (a_data)
  );

  qfx_fifo_shift #(.Width(Lanes * BWidth), .Depth(2)) u_b (
    .clk_i,
    .rst_ni,
    .in_valid_i (b_valid_i),
    .in_ready_o (b_ready_o),
    .in_data_i  (b_data_i),
    .out_valid_o(b_valid),
    .out_ready_i(take && of_b),
    .out_data_o (b_data)
  );

  qfx_credit #(.Credits(Credits)) u_credit (
    .clk_i,
    .rst_ni,
    .take_i     (take),
    .give_i,
    .available_o(credit)
  );

  qfx_agu_counter #(.Count(Words)) u_word (
    .clk_i, .rst_ni, .step_i(take), .value_o(word), .last_o(last_unused)
  );

  assign of_b = 32'(word) >= WordsA;
  assign take = credit && (of_b ? b_valid : a_valid);

  always_ff @(posedge clk_i) begin
    if (!rst_ni) out_valid_o <= 1'b0;
    else out_valid_o <= take;
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [AWidth-1:0]   a;
    logic [BWidth-1:0]   b;
    logic [OutWidth-1:0] a_code, b_code;

    assign a = a_data[lane*AWidth +: AWidth];
    assign b = b_data[lane*BWidth +: BWidth];
    if (ASigned) begin : gen_a_signed
      assign a_code = OutWidth'(signed'(a));
    end else begin : gen_a_unsigned
      assign a_code = OutWidth'(a);
    end
    if (BSigned) begin : gen_b_signed
      assign b_code = OutWidth'(signed'(b));
    end else begin : gen_b_unsigned
      assign b_code = OutWidth'(b);
    end

    always_ff @(posedge clk_i) out_data_o[lane*OutWidth +: OutWidth] <= of_b ? b_code : a_code;
  end

  // Assertions: those of qfx_fifo_shift and qfx_credit.

endmodule
