"""The kernel of the cast: the very bits of the formula in torch, and its sums in double precision."""

import pytest
import torch

from qfx.fixed import Overflow, Rounding
from qfx.nn import fused
from qfx.nn.functional import cast

PITFALLS = [0.0, -0.0, 0.49999997, -0.49999997, 0.5, -0.5, 1.5, -1.5, 8388609.0, -8388609.0, 1e-30, -1e-30, 3e38, -3e38]
PITFALLS += [float("inf"), float("-inf"), float("nan")]


def values(shape: tuple[int, ...], seed: int, spread: float = 3.0) -> torch.Tensor:
    """Random numbers, ties and pitfalls among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * spread
    x.view(-1)[::3] = (x.view(-1)[::3] * 8).round() / 8
    x.view(-1)[: len(PITFALLS)] = torch.tensor(PITFALLS)
    return x


def both(
    x: torch.Tensor, frac: float | torch.Tensor, width: int, signed: bool, overflow: Overflow, gain, monkeypatch
) -> list:
    """Result and gradients, of the kernel and of the formula."""
    found = []
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(x)
    for served in (True, False):
        with monkeypatch.context() as patch:
            if not served:
                patch.setattr(fused, "serves", lambda x: False)
            a, f = (
                x.clone(memory_format=torch.preserve_format).requires_grad_(),
                torch.as_tensor(frac).clone().requires_grad_(),
            )
            y = cast(a, f, width, signed, Rounding.RND, overflow, gain=gain)
            assert ("Fused" in type(y.grad_fn).__name__) is served
            y.backward(grad)
            found.append((y.detach(), a.grad, f.grad))
    return found


def bits(tensor: torch.Tensor) -> list[int]:
    return torch.nan_to_num(tensor, nan=123.0).contiguous().view(torch.int32).reshape(-1).tolist()


@pytest.mark.parametrize("overflow", [Overflow.SAT, Overflow.SAT_SYM])
@pytest.mark.parametrize(("width", "signed"), [(1, True), (1, False), (4, True), (4, False), (8, True), (24, True)])
def test_the_kernel_gives_the_bits_of_the_formula(width, signed, overflow, monkeypatch) -> None:
    for frac in (-21.4, -2.0, 0.5, 1.5, 3.2, 21.0, 400.0):
        x = values((4, 3, 5, 7), 1)
        ours, formula = both(x, frac, width, signed, overflow, None, monkeypatch)
        for a, b in zip(ours[:2], formula[:2], strict=True):
            assert bits(a) == bits(b), (frac, width)
        assert ours[2].isnan() and formula[2].isnan()  # as one of the values is


@pytest.mark.parametrize("width", [1, 4, 8, 24])
def test_the_gradient_of_each_binary_point_is_that_of_the_formula(width, monkeypatch) -> None:
    x = torch.nan_to_num(values((6, 3, 50, 70), 1), 0.0, 1e3, -1e3)
    for frac in (torch.tensor(2.4), torch.tensor([-30.0, -1.5, 0.5, 2.6, 3.0, 22.0])):
        ours, formula = both(x, frac, width, True, Overflow.SAT_SYM, None, monkeypatch)
        assert all(bits(a) == bits(b) for a, b in zip(ours[:2], formula[:2], strict=True))
        torch.testing.assert_close(ours[2], formula[2], rtol=1e-4, atol=1e-5 * formula[2].abs().max().item())


@pytest.mark.parametrize("last", [False, True])
def test_many_values_in_either_memory_format_on_two_threads(last, monkeypatch) -> None:
    x = torch.nan_to_num(values((8, 16, 33, 31), 2), 0.0, 1e3, -1e3)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    torch.set_num_threads(2)
    ours, formula = both(x, 3.0, 4, True, Overflow.SAT, None, monkeypatch)
    assert ours[0].stride() == x.stride()
    assert all(bits(a) == bits(b) for a, b in zip(ours[:2], formula[:2], strict=True))
    torch.set_num_threads(1)
    assert torch.equal(both(x, 3.0, 4, True, Overflow.SAT, None, monkeypatch)[0][2], ours[2])


def test_a_gradient_in_another_memory_format_is_brought_in_order() -> None:
    x = values((2, 3, 4, 5), 3).nan_to_num(0, 1, -1)
    grad = torch.randn(2, 3, 4, 5)
    frac = torch.tensor(2.0)
    plain = fused.cast_backward(x, frac, grad, -8, 7)
    other = fused.cast_backward(x, frac, grad.contiguous(memory_format=torch.channels_last), -8, 7)
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("width", [1, 8, 24, 40, 53])
def test_the_kernel_in_double_precision_gives_the_bits_of_the_formula(width, monkeypatch) -> None:
    x = torch.cat([values((4, 3, 5, 7), 1).double(), torch.randn(4, 3, 5, 7).double() * 2.0**30])
    kernel = fused.cast
    x.view(-1)[-3:] = torch.tensor([0.49999999999999994, 4503599627370497.5, -4503599627370497.5])
    for frac in (torch.tensor(-2.0), torch.tensor(3.5), torch.linspace(-23, 23, 8)):
        ours = _in_double(x, frac, width)
        with monkeypatch.context() as patch:
            patch.setattr(fused, "serves", lambda x: False)
            assert bits(_in_double(x, frac, width)) == bits(ours)
        with monkeypatch.context() as patch:
            patch.setattr(fused, "cast", lambda x, frac, low, high: kernel(x, frac, low, high - 1))
            assert bits(_in_double(x, frac, width)) != bits(ours)


@torch.no_grad()
def _in_double(x: torch.Tensor, frac: torch.Tensor, width: int) -> torch.Tensor:
    assert fused.serves(x) or fused.serves.__name__ == "<lambda>"
    return cast(x, frac, width, True, Rounding.RND, Overflow.SAT)


def test_a_planted_fault_in_the_kernel_is_seen(monkeypatch) -> None:
    kernel = fused.cast
    monkeypatch.setattr(fused, "cast", lambda x, frac, low, high: kernel(x, frac, low, high - 1))
    ours, formula = both(values((40,), 4), 2.0, 4, True, Overflow.SAT, 1.0, monkeypatch)
    assert bits(ours[0]) != bits(formula[0])


def test_what_the_kernel_cannot_take_goes_to_the_formula() -> None:
    assert fused.serves(torch.zeros(2, 3))
    assert not fused.serves(torch.zeros(2, 3).double())  # gradients are computed in float32 alone
    assert not fused.serves(torch.zeros(4, 6)[:, ::2])


def test_without_a_compiler_the_formula_serves(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    fused.compiled.cache_clear()
    assert not fused.serves(torch.zeros(2))
    monkeypatch.undo()
    fused.compiled.cache_clear()
    assert fused.serves(torch.zeros(2))
