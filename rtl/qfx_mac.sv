// SPDX-License-Identifier: Apache-2.0
// Multiply-accumulate with constants from a ROM: the arithmetic of convolution and dense layers.
//
//   acc[l] = bias[l] + sum over the steps of a word and over the terms t of  a[l][t] * weight[l][t]
//
// step_i announces a step, first_i and last_i the first and last one of a word; a_i belongs to the step two cycles
// earlier. Latency from step_i with last_i to out_valid_o: 6 + clog2(Terms) cycles; one step per cycle, no back-pressure.
// The accumulator is exact modulo 2**AccWidth: AccWidth must hold every result, not every partial sum.
//
// WeightFile: WeightDepth words, one a step, read from the first to the last and again. A word holds Lanes*Terms constants,
// the one of lane l and term t at index l*Terms + t from the low end. A constant is a code of WeightWidth bits; with "khot"
// Digits fields {enable, negative, shift} of ShiftWidth + 2 bits each, digit 0 low, as qfx_mul_khot takes them.
// BiasFile: BiasDepth words, one a word of the result, of Lanes codes of BiasWidth bits, lane 0 low; "" for no bias.
module qfx_mac #(
  parameter int unsigned Lanes        = 1,     // results a word, at least 1
  parameter int unsigned Terms        = 1,     // products a lane and step, at least 1
  parameter int unsigned AWidth       = 8,     // bits of an activation, at least 1
  parameter bit          ASigned      = 1'b0,  // activations are two's complement
  parameter int unsigned WeightWidth  = 8,     // bits of a weight's code, at least 1
  parameter bit          WeightSigned = 1'b1,  // weights are two's complement
  parameter string       Arithmetic   = "dsp", // multiplier leaf: dsp, lut or khot
  parameter int unsigned Digits       = 2,     // digits a weight, for khot
  parameter int unsigned ShiftWidth   = 3,     // bits of a digit's shift, for khot
  parameter int unsigned AccWidth     = 24,    // bits of a result, two's complement, at least 1
  parameter int unsigned BiasWidth    = 16,    // bits of a bias, two's complement, at least 1
  parameter int unsigned WeightDepth  = 9,     // words of WeightFile, at least 1
  parameter int unsigned BiasDepth    = 1,     // words of BiasFile, at least 1
  parameter string       WeightFile   = "",    // weights (layout above)
  parameter string       BiasFile     = "",    // biases (layout above), "" for none
  parameter string       WeightStyle  = "auto" // rom_style of the weights
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          step_i,
  input  logic                          first_i,
  input  logic                          last_i,
  input  logic [Lanes*Terms*AWidth-1:0] a_i, // activation of lane l and term t at index l*Terms + t
  output logic                          out_valid_o,
  output logic [Lanes*AccWidth-1:0]     out_data_o
);

  localparam bit          KHot        = Arithmetic == "khot";
  localparam int unsigned ConstWidth  = KHot ? Digits * (ShiftWidth + 2) : WeightWidth;
  localparam int unsigned PWidth      = AWidth + WeightWidth + ((ASigned || WeightSigned) ? 0 : 1);
  localparam int unsigned Levels      = (Terms > 1) ? $clog2(Terms) : 0;
  localparam int unsigned TreeWidth   = (PWidth + Levels < AccWidth) ? PWidth + Levels : AccWidth;
  localparam int unsigned SumDelay    = 2 + 3 + Levels; // from step_i to the sum of the step's products
  localparam int unsigned Latency     = SumDelay + 1;
  localparam int unsigned WeightAddr  = (WeightDepth > 1) ? $clog2(WeightDepth) : 1;

  if (Lanes < 1 || Terms < 1 || AWidth < 1 || WeightWidth < 1 || AccWidth < 1 || BiasWidth < 1) begin : gen_check_sizes
    $fatal(1, "qfx_mac: Lanes, Terms, AWidth, WeightWidth, AccWidth, BiasWidth must be at least 1, not %0d, %0d, %0d, %0d, %0d, %0d",
           Lanes, Terms, AWidth, WeightWidth, AccWidth, BiasWidth);
  end
  if (Arithmetic != "dsp" && Arithmetic != "lut" && Arithmetic != "khot") begin : gen_check_arithmetic
    $fatal(1, "qfx_mac: Arithmetic must be dsp, lut or khot, not %s", Arithmetic);
  end

  logic [WeightAddr-1:0]                   weight_addr;
  logic                                    weight_last_unused;
  logic [Lanes*Terms*ConstWidth-1:0]       weight;
  logic [Lanes*AccWidth-1:0]               bias;
  logic [Latency-1:0]                      step_q, last_q;
  logic [SumDelay-1:0]                     first_q;

  qfx_agu_counter #(.Count(WeightDepth)) u_weight_addr (
    .clk_i,
    .rst_ni,
    .step_i,
    .value_o(weight_addr),
    .last_o (weight_last_unused)
  );

  qfx_rom #(
    .Width   (Lanes * Terms * ConstWidth),
    .Depth   (WeightDepth),
    .InitFile(WeightFile),
    .Style   (WeightStyle)
  ) u_weight (
    .clk_i,
    .addr_i(weight_addr),
    .data_o(weight)
  );

  always_ff @(posedge clk_i) begin
    if (!rst_ni) step_q <= '0;
    else step_q <= {step_q[Latency-2:0], step_i};
  end

  always_ff @(posedge clk_i) begin
    first_q <= {first_q[SumDelay-2:0], first_i};
    last_q  <= {last_q[Latency-2:0], last_i};
  end

  if (BiasFile != "") begin : gen_bias
    localparam int unsigned BiasAddr = (BiasDepth > 1) ? $clog2(BiasDepth) : 1;

    logic [BiasAddr-1:0]        bias_addr;
    logic                       bias_last_unused;
    logic [Lanes*BiasWidth-1:0] bias_word;

    // The read takes two cycles; the address moves on when the last sum of a word is two cycles away.
    qfx_agu_counter #(.Count(BiasDepth)) u_bias_addr (
      .clk_i,
      .rst_ni,
      .step_i (step_q[SumDelay-3] && last_q[SumDelay-3]),
      .value_o(bias_addr),
      .last_o (bias_last_unused)
    );

    qfx_rom #(.Width(Lanes * BiasWidth), .Depth(BiasDepth), .InitFile(BiasFile)) u_bias (
      .clk_i,
      .addr_i(bias_addr),
      .data_o(bias_word)
    );

    for (genvar lane = 0; lane < Lanes; lane++) begin : gen_extend
      assign bias[lane*AccWidth +: AccWidth] = AccWidth'(signed'(bias_word[lane*BiasWidth +: BiasWidth]));
    end
  end else begin : gen_no_bias
    assign bias = '0;
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
    logic [Terms*PWidth-1:0] product;
    logic [TreeWidth-1:0]    sum;
    logic [AccWidth-1:0]     acc_q;

    for (genvar term = 0; term < Terms; term++) begin : gen_term
      localparam int unsigned Index = lane * Terms + term;

      if (Arithmetic == "dsp") begin : gen_dsp
        qfx_mul_dsp #(
          .AWidth (AWidth),
          .ASigned(ASigned),
          .BWidth (WeightWidth),
          .BSigned(WeightSigned)
        ) u_mul (
          .clk_i,
          .a_i(a_i[Index*AWidth +: AWidth]),
          .b_i(weight[Index*ConstWidth +: ConstWidth]),
          .p_o(product[term*PWidth +: PWidth])
        );
      end else if (Arithmetic == "lut") begin : gen_lut
        qfx_mul_lut #(
          .AWidth (AWidth),
          .ASigned(ASigned),
          .BWidth (WeightWidth),
          .BSigned(WeightSigned)
        ) u_mul (
          .clk_i,
          .a_i(a_i[Index*AWidth +: AWidth]),
          .b_i(weight[Index*ConstWidth +: ConstWidth]),
          .p_o(product[term*PWidth +: PWidth])
        );
      end else begin : gen_khot
        qfx_mul_khot #(
          .AWidth    (AWidth),
          .ASigned   (ASigned),
          .BWidth    (WeightWidth),
          .BSigned   (WeightSigned),
          .Digits    (Digits),
          .ShiftWidth(ShiftWidth)
        ) u_mul (
          .clk_i,
          .a_i(a_i[Index*AWidth +: AWidth]),
          .b_i(weight[Index*ConstWidth +: ConstWidth]),
          .p_o(product[term*PWidth +: PWidth])
        );
      end
    end

    qfx_tree #(.Terms(Terms), .InWidth(PWidth), .OutWidth(TreeWidth)) u_tree (
      .clk_i,
      .terms_i(product),
      .out_o  (sum)
    );

    always_ff @(posedge clk_i) begin
      if (step_q[SumDelay-1]) begin
        acc_q <= (first_q[SumDelay-1] ? bias[lane*AccWidth +: AccWidth] : acc_q) + AccWidth'(signed'(sum));
      end
    end
    assign out_data_o[lane*AccWidth +: AccWidth] = acc_q;
  end

  assign out_valid_o = step_q[Latency-1] && last_q[Latency-1];

  // Assertions
`ifndef SYNTHESIS
  logic open_q; // a word has begun and not ended
  always_ff @(posedge clk_i) begin
    if (!rst_ni) open_q <= 1'b0;
    else if (step_i) open_q <= !last_i;
    // Words follow one another: each begins with first_i and ends with last_i.
    if (rst_ni && step_i) assert (first_i == !open_q) else $error("qfx_mac: first_i must begin each word");
  end
`endif

endmodule
