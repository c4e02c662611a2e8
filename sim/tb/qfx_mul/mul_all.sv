// Bench top: the three multiplier leaves side by side in each combination of signs, on the same operands.
module mul_all #(
  parameter int unsigned AWidth     = 4,
  parameter int unsigned BWidth     = 4,
  parameter int unsigned Digits     = 2,
  parameter int unsigned ShiftWidth = 2,
  localparam int unsigned DWidth    = Digits * (ShiftWidth + 2)
) (
  input  logic                     clk_i,
  input  logic [AWidth-1:0]        a_i,
  input  logic [BWidth-1:0]        b_i,
  input  logic [DWidth-1:0]        digits_i,
  // Products, signs in the order {a, b} = uu, us, su, ss; each sign-extended to AWidth + BWidth + 1 bits.
  output logic [4*(AWidth+BWidth+1)-1:0] dsp_o,
  output logic [4*(AWidth+BWidth+1)-1:0] lut_o,
  output logic [4*(AWidth+BWidth+1)-1:0] khot_o
);

  localparam int unsigned Full = AWidth + BWidth + 1;

  for (genvar i = 0; i < 4; i++) begin : gen_signs
    localparam bit ASigned = i >= 2;
    localparam bit BSigned = i % 2 == 1;
    localparam int unsigned PWidth = (i == 0) ? Full : Full - 1;

    logic signed [PWidth-1:0] dsp, lut, khot;

    qfx_mul_dsp #(.AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned)) u_dsp (
      .clk_i, .a_i, .b_i, .p_o(dsp)
    );
    qfx_mul_lut #(.AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned)) u_lut (
      .clk_i, .a_i, .b_i, .p_o(lut)
    );
    qfx_mul_khot #(
      .AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned), .Digits(Digits), .ShiftWidth(ShiftWidth)
    ) u_khot (
      .clk_i, .a_i, .b_i(digits_i), .p_o(khot)
    );

    assign dsp_o[i*Full +: Full]  = Full'(dsp);
    assign lut_o[i*Full +: Full]  = Full'(lut);
    assign khot_o[i*Full +: Full] = Full'(khot);
  end

endmodule
