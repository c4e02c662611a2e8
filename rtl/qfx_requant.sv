// SPDX-License-Identifier: Apache-2.0
// Moves codes to another binary point and width: the only part that rounds and saturates.
//
//   out = overflow(round(in * 2**-shift)),  shift = f_in[channel] - f_out, negative for an exact left shift
//
// Latency 3 cycles with one shift for all channels, 8 with a shift per channel; one word per cycle, no back-pressure.
// Rounding and Overflow have the meaning of ap_fixed's modes of the same names: the inner value is exact, rounding comes
// first, overflow second. Limit: shifts lie within MinShift .. MaxShift.
//
// ShiftFile, if PerChannel: word g holds, lane 0 low, (shift of channel g*Lanes+lane) - MinShift as an unsigned number of
// ShiftWidth = max(1, clog2(MaxShift - MinShift + 1)) bits; lanes beyond Channels hold 0.
module qfx_requant #(
  parameter int unsigned InWidth    = 24,      // bits of an input code, at least 1
  parameter bit          InSigned   = 1'b1,    // input codes are two's complement
  parameter int unsigned OutWidth   = 8,       // bits of a result, at least 1
  parameter bit          OutSigned  = 1'b1,    // results are two's complement
  parameter int unsigned Lanes      = 1,       // codes a word, at least 1
  parameter int unsigned Channels   = 1,       // channels a pixel, at least 1; used with PerChannel only
  parameter string       Rounding   = "RND",   // TRN, TRN_ZERO, RND, RND_ZERO, RND_INF, RND_MIN_INF or RND_CONV
  parameter string       Overflow   = "SAT",   // WRAP, SAT, SAT_ZERO or SAT_SYM
  parameter bit          PerChannel = 1'b0,    // the shift comes from ShiftFile; otherwise it is MinShift
  parameter int          MinShift   = 8,       // smallest shift
  parameter int          MaxShift   = MinShift, // largest shift; equal to MinShift unless PerChannel
  parameter string       ShiftFile  = ""       // shifts by channel group (layout above), if PerChannel
) (
  input  logic                      clk_i,
  input  logic                      rst_ni,
  input  logic                      in_valid_i,
  input  logic [Lanes*InWidth-1:0]  in_data_i,
  output logic                      out_valid_o,
  output logic [Lanes*OutWidth-1:0] out_data_o
);

  localparam int unsigned Latency    = PerChannel ? 8 : 3;
  localparam int unsigned Groups     = (Channels + Lanes - 1) / Lanes;
  localparam int unsigned Span       = unsigned'(MaxShift - MinShift);
  localparam int unsigned ShiftWidth = (Span > 1) ? $clog2(Span + 1) : 1;
  // The exact value: Left zeros below the code for left shifts, Fraction bits kept below the binary point.
  localparam int unsigned Left       = (MinShift < 0) ? unsigned'(-MinShift) : 0;
  localparam int unsigned Fraction   = (MaxShift > 0) ? unsigned'(MaxShift) : 0;
  localparam int unsigned WideWidth  = InWidth + 1 + Left + Fraction;
  localparam int unsigned IntWidth   = InWidth + 1 + Left;

  if (InWidth < 1 || OutWidth < 1 || Lanes < 1 || Channels < 1) begin : gen_check_sizes
    $fatal(1, "qfx_requant: InWidth, OutWidth, Lanes and Channels must be at least 1, not %0d, %0d, %0d and %0d",
           InWidth, OutWidth, Lanes, Channels);
  end
  if (MaxShift < MinShift || (!PerChannel && MaxShift != MinShift)) begin : gen_check_shift
    $fatal(1, "qfx_requant: MaxShift must be MinShift (%0d), or more with PerChannel, not %0d", MinShift, MaxShift);
  end
  if (Rounding != "TRN" && Rounding != "TRN_ZERO" && Rounding != "RND" && Rounding != "RND_ZERO" &&
      Rounding != "RND_INF" && Rounding != "RND_MIN_INF" && Rounding != "RND_CONV") begin : gen_check_rounding
    $fatal(1, "qfx_requant: Rounding must be one of ap_fixed's seven modes without AP_, not %s", Rounding);
  end
  if (Overflow != "WRAP" && Overflow != "SAT" && Overflow != "SAT_ZERO" && Overflow != "SAT_SYM") begin : gen_check_overflow
    $fatal(1, "qfx_requant: Overflow must be WRAP, SAT, SAT_ZERO or SAT_SYM, not %s", Overflow);
  end

  logic [Latency-1:0] valid_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni) valid_q <= '0;
    else valid_q <= Latency'({valid_q, in_valid_i});
  end
  assign out_valid_o = valid_q[Latency-1];

  logic [Lanes*WideWidth-1:0] wide; // in * 2**Fraction * 2**-shift of each lane, exact

  if (PerChannel) begin : gen_per_channel
    localparam int unsigned AddrWidth = (Groups > 1) ? $clog2(Groups) : 1;
    localparam int unsigned Start     = unsigned'(int'(Fraction) - MinShift); // in * 2**(Fraction - MinShift) first
    localparam logic [ShiftWidth-1:0] LowMask = ShiftWidth'((1 << (ShiftWidth / 2)) - 1); // bits of barrel stage 1

    logic [AddrWidth-1:0]        group;
    logic                        group_last_unused;
    logic [Lanes*ShiftWidth-1:0] shift;
    logic [Lanes*InWidth-1:0]    data_q, data_q2;

    qfx_agu_counter #(.Count(Groups)) u_group (
      .clk_i,
      .rst_ni,
      .step_i (in_valid_i),
      .value_o(group),
      .last_o (group_last_unused)
    );

    qfx_rom #(.Width(Lanes * ShiftWidth), .Depth(Groups), .InitFile(ShiftFile)) u_shift (
      .clk_i,
      .addr_i(group),
      .data_o(shift)
    );

    always_ff @(posedge clk_i) begin
      data_q  <= in_data_i;
      data_q2 <= data_q;
    end

    for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
      logic [InWidth-1:0]          code;
      logic signed [WideWidth-1:0] start_q, low_q, high_q;
      logic [ShiftWidth-1:0]       shift_q, shift_q2;

      assign code = data_q2[lane*InWidth +: InWidth];
      always_ff @(posedge clk_i) begin
        start_q  <= {{(WideWidth-InWidth){InSigned && code[InWidth-1]}}, code} << Start;
        shift_q  <= shift[lane*ShiftWidth +: ShiftWidth];
        low_q    <= start_q >>> (shift_q & LowMask);
        shift_q2 <= shift_q & ~LowMask;
        high_q   <= low_q >>> shift_q2;
      end
      assign wide[lane*WideWidth +: WideWidth] = high_q;
    end
  end else begin : gen_uniform
    for (genvar lane = 0; lane < Lanes; lane++) begin : gen_lane
      logic [InWidth-1:0] code;

      assign code = in_data_i[lane*InWidth +: InWidth];
      // A right shift only moves the binary point: Fraction = MinShift and Left = 0.
      assign wide[lane*WideWidth +: WideWidth] =
          {{(WideWidth-InWidth){InSigned && code[InWidth-1]}}, code} << Left;
    end
  end

  for (genvar lane = 0; lane < Lanes; lane++) begin : gen_round
    logic [WideWidth-1:0]       value;
    logic signed [IntWidth-1:0] floor_q;
    logic signed [IntWidth:0]   sum_q;
    logic                       up_q, half, sticky, negative;
    logic [OutWidth-1:0]        out_q;

    assign value    = wide[lane*WideWidth +: WideWidth];
    assign negative = value[WideWidth-1];

    if (Fraction == 0) begin : gen_whole
      assign half   = 1'b0;
      assign sticky = 1'b0;
    end else if (Fraction == 1) begin : gen_half
      assign half   = value[0];
      assign sticky = 1'b0;
    end else begin : gen_fraction
      assign half   = value[Fraction-1];
      assign sticky = |value[Fraction-2:0];
    end

    logic up;
    if (Rounding == "TRN") begin : gen_trn
      logic unused;
      assign unused = &{1'b0, half, sticky, negative};
      assign up = 1'b0;
    end else if (Rounding == "TRN_ZERO") begin : gen_trn_zero
      assign up = negative && (half || sticky);
    end else if (Rounding == "RND") begin : gen_rnd
      logic unused;
      assign unused = &{1'b0, sticky, negative};
      assign up = half;
    end else if (Rounding == "RND_ZERO") begin : gen_rnd_zero
      assign up = half && (sticky || negative);
    end else if (Rounding == "RND_INF") begin : gen_rnd_inf
      assign up = half && (sticky || !negative);
    end else if (Rounding == "RND_MIN_INF") begin : gen_rnd_min_inf
      logic unused;
      assign unused = &{1'b0, negative};
      assign up = half && sticky;
    end else begin : gen_rnd_conv
      logic unused;
      assign unused = &{1'b0, negative};
      assign up = half && (sticky || value[Fraction]);
    end

    always_ff @(posedge clk_i) begin
      floor_q <= value[WideWidth-1:Fraction];
      up_q    <= up;
      sum_q   <= (IntWidth+1)'(floor_q) + (IntWidth+1)'({1'b0, up_q});
    end

    qfx_requant_overflow #(
      .InWidth  (IntWidth + 1),
      .OutWidth (OutWidth),
      .OutSigned(OutSigned),
      .Overflow (Overflow)
    ) u_overflow (
      .in_i (sum_q),
      .out_o(out_q)
    );

    always_ff @(posedge clk_i) out_data_o[lane*OutWidth +: OutWidth] <= out_q;
  end

  // Assertions: the ranges above hold by construction; qfx_agu_counter checks the group.

endmodule
