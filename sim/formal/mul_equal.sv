// Proof harness: the leaves without a multiplier equal a * b, for all operands, three cycles later.
module mul_equal #(
  parameter int unsigned AWidth  = 6,
  parameter bit          ASigned = 1'b1,
  parameter int unsigned BWidth  = 5,
  parameter bit          BSigned = 1'b1
) (
  input logic                clk_i,
  input logic [AWidth-1:0]   a_i,
  input logic [BWidth-1:0]   b_i,
  input logic [1:0][4:0]     digits_i // two of {enable, negative, shift[2:0]}
);

  localparam int unsigned PWidth = AWidth + BWidth + ((ASigned || BSigned) ? 0 : 1);

  logic signed [PWidth-1:0] lut, khot;
  logic signed [11:0]       constant, term_0, term_1; // what the digits encode
  logic signed [23:0]       a_wide, b_wide, c_wide;
  logic signed [23:0]       lut_q1, lut_q2, lut_q3, khot_q1, khot_q2, khot_q3;
  logic                     code_q1, code_q2, code_q3;
  logic [1:0]               age_q = '0;

  qfx_mul_lut #(.AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned)) u_lut (
    .clk_i, .a_i, .b_i, .p_o(lut)
  );
  qfx_mul_khot #(
    .AWidth(AWidth), .ASigned(ASigned), .BWidth(BWidth), .BSigned(BSigned), .Digits(2), .ShiftWidth(3)
  ) u_khot (
    .clk_i, .a_i, .b_i(digits_i), .p_o(khot)
  );

  assign a_wide   = ASigned ? 24'($signed(a_i)) : 24'(a_i);
  assign b_wide   = BSigned ? 24'($signed(b_i)) : 24'(b_i);
  assign term_0   = digits_i[0][4] ? (12'sd1 <<< digits_i[0][2:0]) : 12'sd0;
  assign term_1   = digits_i[1][4] ? (12'sd1 <<< digits_i[1][2:0]) : 12'sd0;
  assign constant = (digits_i[0][3] ? -term_0 : term_0) + (digits_i[1][3] ? -term_1 : term_1);
  assign c_wide   = 24'(constant);

  always_ff @(posedge clk_i) begin
    {lut_q1, lut_q2, lut_q3}    <= {24'(a_wide * b_wide), lut_q1, lut_q2};
    {khot_q1, khot_q2, khot_q3} <= {24'(a_wide * c_wide), khot_q1, khot_q2};
    // The digits encode a code of BWidth bits.
    code_q1 <= BSigned ? c_wide >= -(24'sd1 <<< (BWidth - 1)) && c_wide < (24'sd1 <<< (BWidth - 1))
                       : c_wide >= 0 && c_wide < (24'sd1 <<< BWidth);
    {code_q2, code_q3} <= {code_q1, code_q2};
    if (age_q != 2'd3) age_q <= age_q + 2'd1;
    if (age_q == 2'd3) begin
      assert (24'(lut) == lut_q3);
      assert (!code_q3 || 24'(khot) == khot_q3);
    end
  end

endmodule
