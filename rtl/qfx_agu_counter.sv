// SPDX-License-Identifier: Apache-2.0
// Loop counter: one level of a nest of loops.
//
//   value_o = index * Step, index = 0 .. Count-1 and again from 0;  last_o = (index == Count-1)
//
// The index advances in a cycle with step_i. Both outputs are registers (last_o is 1 for Count = 1).
module qfx_agu_counter #(
  parameter int unsigned Count = 4, // iterations, at least 1
  parameter int unsigned Step  = 1, // increment of value_o, at least 1
  localparam int unsigned ValueWidth = (Count > 1) ? $clog2((Count - 1) * Step + 1) : 1
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,
  input  logic                  step_i,
  output logic [ValueWidth-1:0] value_o,
  output logic                  last_o
);

  if (Count < 1) begin : gen_check_count
    $fatal(1, "qfx_agu_counter: Count must be at least 1, not %0d", Count);
  end
  if (Step < 1) begin : gen_check_step
    $fatal(1, "qfx_agu_counter: Step must be at least 1, not %0d", Step);
  end

  if (Count == 1) begin : gen_once
    logic unused;
    assign unused  = &{1'b0, clk_i, rst_ni, step_i};
    assign value_o = '0;
    assign last_o  = 1'b1;
  end else begin : gen_count
    localparam logic [ValueWidth-1:0] BeforeLast = ValueWidth'((Count - 2) * Step);

    always_ff @(posedge clk_i) begin
      if (!rst_ni) begin
        value_o <= '0;
        last_o  <= 1'b0;
      end else if (step_i) begin
        value_o <= last_o ? '0 : value_o + ValueWidth'(Step);
        last_o  <= !last_o && value_o == BeforeLast;
      end
    end
  end

  // Assertions
`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    // The index stays below Count.
    if (rst_ni) assert (32'(value_o) <= (Count - 1) * Step) else $error("qfx_agu_counter: value_o left its range");
  end
`endif

endmodule
