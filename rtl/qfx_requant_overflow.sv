// SPDX-License-Identifier: Apache-2.0
// Brings an exact integer into the range of a result by one of ap_fixed's overflow modes.
//
//   WRAP      the low OutWidth bits
//   SAT       the nearest end of the range
//   SAT_ZERO  zero if out of range
//   SAT_SYM   as SAT in -max .. max if signed (one signed bit has no such range: as SAT)
//
// Combinational: the user puts a register behind it.
module qfx_requant_overflow #(
  parameter int unsigned InWidth   = 9,     // bits of the exact integer, two's complement, at least 2
  parameter int unsigned OutWidth  = 8,     // bits of a result, at least 1
  parameter bit          OutSigned = 1'b1,  // results are two's complement
  parameter string       Overflow  = "SAT"  // WRAP, SAT, SAT_ZERO or SAT_SYM
) (
  input  logic signed [InWidth-1:0]  in_i,
  output logic        [OutWidth-1:0] out_o
);

  if (InWidth < 2) begin : gen_check_in_width
    $fatal(1, "qfx_requant_overflow: InWidth must be at least 2, not %0d", InWidth);
  end
  if (OutWidth < 1) begin : gen_check_out_width
    $fatal(1, "qfx_requant_overflow: OutWidth must be at least 1, not %0d", OutWidth);
  end
  if (Overflow != "WRAP" && Overflow != "SAT" && Overflow != "SAT_ZERO" && Overflow != "SAT_SYM") begin : gen_check_overflow
    $fatal(1, "qfx_requant_overflow: Overflow must be WRAP, SAT, SAT_ZERO or SAT_SYM, not %s", Overflow);
  end

  // Bits above the result's value bits: all equal to the sign (signed) or all 0 (unsigned) when the integer fits.
  localparam int unsigned ValueBits = OutSigned ? OutWidth - 1 : OutWidth;
  localparam bit          Symmetric = Overflow == "SAT_SYM" && OutSigned && OutWidth > 1;
  localparam logic [OutWidth-1:0] Sign = {1'b1, {(OutWidth-1){1'b0}}};
  localparam logic [OutWidth-1:0] High = OutSigned ? ~Sign : '1;
  localparam logic [OutWidth-1:0] Low  = OutSigned ? (Symmetric ? (Sign | OutWidth'(1)) : Sign) : '0;

  logic [OutWidth-1:0] low_bits;
  logic                negative, above, below;

  assign low_bits = OutWidth'(in_i);
  assign negative = in_i[InWidth-1];

  if (InWidth > ValueBits) begin : gen_narrow
    logic [InWidth-ValueBits-1:0] top;
    logic                         lowest;

    assign top    = in_i[InWidth-1:ValueBits];
    assign lowest = Symmetric && low_bits == Sign;
    assign above  = !negative && |top;
    assign below  = negative && (!OutSigned || !(&top) || lowest);
  end else begin : gen_wide
    // Every integer fits, but for the lowest one of a symmetric range and for the negative ones of an unsigned.
    assign above = 1'b0;
    assign below = negative && (!OutSigned || (Symmetric && low_bits == Sign));
  end

  if (Overflow == "WRAP") begin : gen_wrap
    logic unused;
    assign unused = &{1'b0, above, below};
    assign out_o  = low_bits;
  end else if (Overflow == "SAT_ZERO") begin : gen_zero
    assign out_o = (above || below) ? '0 : low_bits;
  end else begin : gen_saturate
    assign out_o = above ? High : below ? Low : low_bits;
  end

  // Assertions
`ifndef SYNTHESIS
  always_comb begin
    // An integer is not both too large and too small.
    assert (!(above && below)) else $error("qfx_requant_overflow: above and below at once");
  end
`endif

endmodule
