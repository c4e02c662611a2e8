"""cocotb tests of counter.sv, for the runner's own tests."""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge


async def start(dut):
    cocotb.start_soon(Clock(dut.clk_i, 4, "ns").start())
    dut.rst_ni.value = 0
    await RisingEdge(dut.clk_i)
    await RisingEdge(dut.clk_i)
    dut.rst_ni.value = 1


@cocotb.test()
async def wraps_at_the_limit(dut):
    await start(dut)
    limit = int(dut.Limit.value)
    for expected in range(2 * limit):
        await ReadOnly()
        assert int(dut.count_o.value) == expected % limit
        await RisingEdge(dut.clk_i)


@cocotb.test()
async def planted_fault(dut):
    await start(dut)
    await ReadOnly()
    assert int(dut.count_o.value) == 99, "the counter is not 99"
