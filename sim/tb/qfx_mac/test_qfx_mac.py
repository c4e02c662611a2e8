"""Bench of qfx_mac: bias and products of every word, exact, whatever its number of steps and the gaps between them."""

import random
from collections import deque
from typing import Any

import cocotb
import numpy as np
import pytest

from qfx.emit import rtl_memory
from qfx.fixed.khot import nearest_khot
from qfx_sim import cases
from qfx_sim.lanes import codes_of, word_of
from qfx_sim.lockstep import goes, lockstep
from qfx_sim.ports import start
from qfx_sim.runner import BenchFailure, run

A_DELAY = 2  # cycles from a step to its activations


def mac_case(name: str, **chosen: Any) -> cases.Case:
    """One multiply-accumulate with its constants."""
    p: dict[str, Any] = {
        "Lanes": 1, "Terms": 1, "AWidth": 4, "ASigned": 0, "WeightWidth": 4, "WeightSigned": 1, "Arithmetic": "dsp",
        "AccWidth": 14, "BiasWidth": 9, "WeightDepth": 7, "BiasDepth": 3, "WeightFile": f"{name}_weight.mem",
        "BiasFile": f"{name}_bias.mem",
    }  # fmt: skip
    p |= chosen
    weight, bias = constants(name, p)
    field: rtl_memory.Field = rtl_memory.CodeField(p["WeightWidth"])
    if p["Arithmetic"] == "khot":
        field = rtl_memory.DigitField(p["WeightWidth"], 2, True)
        p |= {"Digits": field.digits, "ShiftWidth": field.shift_width}
    per_word = p["Lanes"] * p["Terms"]
    words = rtl_memory.channel_words(weight.ravel(), lanes=per_word, field=field)
    files = {p["WeightFile"]: rtl_memory.mem_text(words, per_word * field.bits)}
    if p["BiasFile"]:
        words = rtl_memory.channel_words(bias.ravel(), lanes=p["Lanes"], field=rtl_memory.CodeField(p["BiasWidth"]))
        files[p["BiasFile"]] = rtl_memory.mem_text(words, p["Lanes"] * p["BiasWidth"])
    ports = {"step_i": 1, "first_i": 1, "last_i": 1, "a_i": per_word * p["AWidth"]}
    ports |= {"out_valid_o": 1, "out_data_o": p["Lanes"] * p["AccWidth"]}
    return cases.Case(name, p, ports=ports, files=files)


def constants(name: str, p: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (depth, lanes, terms) and biases (depth, lanes): the same in pytest and inside the simulator."""
    rng = np.random.default_rng(list(name.encode()))
    low = -(1 << p["WeightWidth"] - 1) if p["WeightSigned"] else 0
    weight = rng.integers(low, low + (1 << p["WeightWidth"]), (p["WeightDepth"], p["Lanes"], p["Terms"]))
    if p["Arithmetic"] == "khot":
        weight = nearest_khot(weight, p["WeightWidth"], 2, True)
    half = 1 << p["BiasWidth"] - 1
    bias = rng.integers(-half, half, (p["BiasDepth"], p["Lanes"]))
    return weight, bias if p["BiasFile"] else 0 * bias


CASES = [
    mac_case("least", AWidth=1, WeightWidth=1, AccWidth=3, WeightDepth=1, BiasFile=""),
    mac_case("dsp", Lanes=2, Terms=3, ASigned=1),
    mac_case("lut_modulo", Lanes=2, Terms=2, WeightSigned=0, Arithmetic="lut", AccWidth=5, BiasWidth=5, WeightDepth=4),
    mac_case("khot", Lanes=3, Terms=5, ASigned=1, AWidth=5, WeightWidth=6, Arithmetic="khot", AccWidth=20, BiasDepth=1),
]


class Mac:
    """The formula of the header, step by step."""

    def __init__(self, case: cases.Case, p: dict[str, Any]):
        self.p, (self.weight, self.bias) = p, constants(case.name, p)
        self.latency = 6 + (p["Terms"] - 1).bit_length()
        self.steps = self.words = 0
        self.acc = np.zeros(p["Lanes"], dtype=np.int64)
        self.orders: deque[tuple[int, int, int]] = deque([(0, 0, 0)] * A_DELAY)
        self.results: deque[int | None] = deque([None] * (self.latency - A_DELAY))

    def __call__(self, given):
        self.orders.append((given["step_i"], given["first_i"], given["last_i"]))
        step, first, last = self.orders.popleft()
        if step:
            self.add(first, given["a_i"])
        self.results.append(word_of(self.acc.tolist(), self.p["AccWidth"]) if step and last else None)
        result = self.results.popleft()
        return {"out_valid_o": result is not None} | ({} if result is None else {"out_data_o": result})

    def add(self, first, activations):
        p = self.p
        shape = (p["Lanes"], p["Terms"])
        a = np.array(codes_of(activations, p["AWidth"], shape[0] * shape[1], bool(p["ASigned"]))).reshape(shape)
        if first:
            self.acc = self.bias[self.words % p["BiasDepth"]]
            self.words += 1
        self.acc = self.acc + (a * self.weight[self.steps % p["WeightDepth"]]).sum(axis=1)
        self.steps += 1


def orders(case, seed, cycles=60):
    """Words of 1 to 4 steps, with every stall pattern between the steps; what means nothing is random."""
    left, first = 0, 0
    for go in [*goes(seed, cycles), *[0] * 20]:
        if go and not left:
            left, first = random.randint(1, 4), 1
        yield {
            "step_i": go,
            "first_i": first if go else random.getrandbits(1),
            "last_i": int(left == 1) if go else random.getrandbits(1),
            "a_i": random.getrandbits(case.ports["a_i"]),
        }
        left, first = left - go, first and not go


@cocotb.test()
async def results_are_exact_in_their_cycle(dut: Any) -> None:
    await start(dut)
    seed = random.getrandbits(16)
    models = {case.name: Mac(case, {**case.parameters, **cases.parameters(dut, case)}) for case in CASES}
    await lockstep(dut, {case.name: (orders(case, seed), models[case.name]) for case in CASES})
    assert all(model.words > 2 * model.p["BiasDepth"] for model in models.values())


def test_macs_are_exact(tmp_path):
    top, files = cases.write_top("mac_cases", "qfx_mac", CASES, tmp_path)
    run("mac_cases", __file__, sources=[top], data=files, quick_build=True)


def test_one_wrong_weight_bit_shows(tmp_path):
    top, files = cases.write_top("mac_cases", "qfx_mac", CASES, tmp_path)
    file = tmp_path / "khot_weight.mem"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([f"{int(first, 16) ^ 1:0{len(first)}x}", *rest]) + "\n")
    with pytest.raises(BenchFailure, match="khot_out_data_o must be"):
        run("mac_cases", __file__, sources=[top], data=files, seeds=[1], quick_build=True)
