"""What torch.compile keeps whole: its values, its gradient, and that it is a call in the compiled program."""

import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code

from qfx.nn import barrier

HEADER = Path(sysconfig.get_paths()["include"]) / "Python.h"


def test_powers_of_two_and_their_inverses_are_exact() -> None:
    exponents = torch.arange(-126, 127).float()
    powers, inverses = barrier.powers_of_two(exponents)
    assert powers.double().tolist() == [2.0**e for e in range(-126, 127)]
    assert inverses.double().tolist() == [2.0**-e for e in range(-126, 127)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("kept", [barrier.keep, barrier._apart])  # on a CPU, and on a GPU
def test_keep_changes_neither_value_nor_gradient(kept: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, requires_grad=True)
    assert barrier.keep(x) is x
    y = torch.compile(lambda x: kept(x) * 3, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert torch.equal(y, x * 3) and x.grad.tolist() == [3.0] * 5


@pytest.mark.skipif(not HEADER.is_file(), reason="compiled code needs Python's headers: apt install python3.11-dev")
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_kept_is_computed_outside_of_the_loop_over_other_values(kept: bool) -> None:
    same = barrier.keep if kept else (lambda x: x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        run = torch.compile(lambda x, c: x * same(c.sqrt()), fullgraph=True)
        result, (code,) = run_and_get_code(run, torch.ones(64, 16), torch.full((16,), 4.0))
    loops = code.count("for(int64_t x0=")
    assert torch.equal(result, torch.full((64, 16), 2.0)) and loops == (2 if kept else 1)
