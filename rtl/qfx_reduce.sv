// SPDX-License-Identifier: Apache-2.0
// Source of a segment that takes the maximum or the exact sum of all channels of each pixel.
//
//   out = maximum or sum over c of in[c]
//
// Two results are kept: while one waits for a credit, the next pixel comes. A pixel takes ceil(Channels/Lanes) cycles.
// Latency from a pixel's last word in to its word out 3 + clog2(Lanes) cycles. out_valid_o has no ready: a FIFO of Credits
// words must follow within the segment, its pop_o on give_i.
module qfx_reduce #(
  parameter string       Reduction = "max", // max or sum
  parameter int unsigned InWidth   = 8,     // bits of a code, at least 1
  parameter bit          InSigned  = 1'b0,  // codes are two's complement
  parameter int unsigned OutWidth  = 8,     // bits of a result, signed as the codes: InWidth, or what holds every sum
  parameter int unsigned Channels  = 1,     // channels a pixel, at least 1
  parameter int unsigned Lanes     = 1,     // channels a word in, at least 1
  parameter int unsigned Credits   = 4      // depth of the FIFO that closes the segment, at least 1
) (
  input  logic                     clk_i,
  input  logic                     rst_ni,
  input  logic                     in_valid_i,
  output logic                     in_ready_o,
  input  logic [Lanes*InWidth-1:0] in_data_i,
  output logic                     out_valid_o,
  output logic [OutWidth-1:0]      out_data_o,
  input  logic                     give_i
);

  localparam bit          Maximum   = Reduction == "max";
  localparam int unsigned Words     = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned Used      = Channels - (Words - 1) * Lanes; // lanes of the last word
  localparam int unsigned WordWidth = (Words > 1) ? $clog2(Words) : 1;
  localparam int unsigned Levels    = $clog2(Lanes);
  localparam int unsigned TermWidth = InWidth + 32'(!InSigned);       // a code in two's complement
  localparam int unsigned SumWidth  = (TermWidth + Levels < OutWidth) ? TermWidth + Levels : OutWidth;
  localparam int unsigned TreeWidth = Maximum ? TermWidth : SumWidth;
  localparam int unsigned AccWidth  = Maximum ? TermWidth : OutWidth;
  localparam int unsigned Delay     = 1 + Levels;                     // from a word in to what the tree makes of it

  if (Reduction != "max" && Reduction != "sum") begin : gen_check_reduction
    $fatal(1, "qfx_reduce: Reduction must be max or sum, not %s", Reduction);
  end
  if (Maximum && OutWidth != InWidth) begin : gen_check_width
    $fatal(1, "qfx_reduce: OutWidth of a maximum must be InWidth %0d, not %0d", InWidth, OutWidth);
  end
  if (InWidth < 1 || OutWidth < 1 || Channels < 1 || Lanes < 1) begin : gen_check_sizes
    $fatal(1, "qfx_reduce: InWidth, OutWidth, Channels and Lanes must be at least 1, not %0d, %0d, %0d and %0d",
           InWidth, OutWidth, Channels, Lanes);
  end

  // A place for a result is taken by the pixel's last word and left when the result goes.
  logic                 push, take, last;
  logic [WordWidth-1:0] word;

  qfx_agu_counter #(.Count(Words)) u_word (
    .clk_i, .rst_ni, .step_i(push), .value_o(word), .last_o(last)
  );
  qfx_places #(.Credits(Credits)) u_places (
    .clk_i,
    .rst_ni,
    .in_valid_i,
    .in_ready_o,
    .in_last_i (last),
    .push_o    (push),
    .out_last_i(1'b1),
    .take_o    (take),
    .give_i
  );

  // The words on their way through the tree, and the results on their way out: Delay cycles each.
  logic [Delay-1:0] push_q, first_q, last_q;
  logic [Delay:0]   take_q;
  logic             write_slot_q, read_slot_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) begin
      push_q       <= '0;
      take_q       <= '0;
      write_slot_q <= 1'b0;
      read_slot_q  <= 1'b0;
    end else begin
      push_q <= Delay'({push_q, push});
      take_q <= {take_q[Delay-1:0], take};
      if (push_q[Delay-1] && last_q[Delay-1]) write_slot_q <= !write_slot_q;
      if (take_q[Delay-1]) read_slot_q <= !read_slot_q;
    end
  end

  always_ff @(posedge clk_i) begin
    first_q <= Delay'({first_q, word == '0});
    last_q  <= Delay'({last_q, last});
  end

  // Lanes without a channel change nothing: 0 in a sum, the smallest code in a maximum.
  localparam logic [TermWidth-1:0] Neutral = TermWidth'(Maximum && InSigned) << (TermWidth - 1);

  logic [Lanes*TermWidth-1:0] terms_q;

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [InWidth-1:0]   code;
    logic [TermWidth-1:0] term;

    assign code = in_data_i[lane*InWidth +: InWidth];
    assign term = TermWidth'(signed'({InSigned && code[InWidth-1], code}));
    always_ff @(posedge clk_i) terms_q[lane*TermWidth +: TermWidth] <= (last && lane >= Used) ? Neutral : term;
  end

  logic [TreeWidth-1:0] reduced;

  qfx_tree #(.Reduction(Reduction), .Terms(Lanes), .InWidth(TermWidth), .OutWidth(TreeWidth)) u_tree (
    .clk_i,
    .terms_i(terms_q),
    .out_o  (reduced)
  );

  logic signed [AccWidth-1:0] acc_q, acc_d;
  logic [1:0][OutWidth-1:0]   result_q;

  if (Maximum) begin : gen_max
    assign acc_d = (first_q[Delay-1] || signed'(reduced) > acc_q) ? reduced : acc_q;
  end else begin : gen_sum
    assign acc_d = (first_q[Delay-1] ? '0 : acc_q) + AccWidth'(signed'(reduced));
  end

  always_ff @(posedge clk_i) begin
    if (push_q[Delay-1]) begin
      acc_q <= acc_d;
      if (last_q[Delay-1]) result_q[write_slot_q] <= OutWidth'(acc_d);
    end
    out_data_o <= result_q[read_slot_q];
  end

  assign out_valid_o = take_q[Delay];

endmodule
