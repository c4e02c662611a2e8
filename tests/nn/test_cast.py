"""The cast: its values against qfx.fixed, its gradients against finite differences and torch's own operator."""

import math

import numpy as np
import pytest
import torch

from qfx.fixed import FRAC_RANGE, Fixed, Overflow, Rounding, decode, digits_of, encode
from qfx.fixed.khot import magnitudes
from qfx.nn.functional import cast, cast_to_grid, power_of_two

LN2 = math.log(2)


def probes(rng: np.random.Generator, frac: int) -> np.ndarray:
    """Ties, both sides of ties, ends of ranges, far outside, and random numbers, all exact in float32."""
    ties = np.arange(-80, 81) / 2
    near = np.concatenate([np.nextafter(np.float32(ties), np.float32(side)) for side in (-1e9, 1e9)])
    spread = rng.normal(0, 20, 500).astype(np.float32)
    pitfalls = np.float32([0.49999997, 8388609.0, -0.49999997, -8388609.0, 3.0e6, 1.0e-30, -1.0e-30])
    return np.ldexp(np.concatenate([ties, near, spread, pitfalls]).astype(np.float32), -frac)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("rounding", Rounding)
def test_cast_equals_encode_and_decode_in_every_mode(rng, rounding, overflow, dtype) -> None:
    for width, signed in ((0, True), (1, True), (1, False), (2, True), (4, True), (5, False), (8, True), (20, True)):
        for frac in (-3, 0, 4):
            fixed = Fixed(width, frac, signed)
            x = probes(rng, frac)
            y = cast(torch.from_numpy(x).to(dtype), torch.tensor(float(frac)), width, signed, rounding, overflow)
            assert y.dtype == dtype
            expected = decode(encode(x, fixed, rounding, overflow), fixed)
            np.testing.assert_array_equal(y.double().numpy(), expected)


def test_another_rounding_mode_is_noticed(rng) -> None:
    x = probes(rng, 0)
    y = cast(torch.from_numpy(x), torch.tensor(0.0), 8, True, Rounding.RND_CONV).double().numpy()
    assert (y != decode(encode(x, Fixed(8, 0), Rounding.RND), Fixed(8, 0))).any()


def test_rnd_is_right_where_two_float32_shortcuts_fail() -> None:
    x = torch.tensor([0.49999997, 8388609.0, 2.5, -2.5])
    y = cast(x, torch.tensor(0.0), 32, True, Rounding.RND)
    assert y.tolist() == [0.0, 8388609.0, 3.0, -2.0]
    assert torch.floor(x + 0.5).tolist() != y.tolist() and torch.round(x).tolist() != y.tolist()


def test_wide_formats_are_computed_in_float64() -> None:
    x = torch.tensor([1e9, -1e12])
    y = cast(x, torch.tensor(3.0), 31, True)
    assert y.dtype == torch.float64
    assert y.tolist() == [(2**30 - 1) / 8, -(2**30) / 8]


def test_per_channel_fracs_belong_to_their_axis(rng) -> None:
    x = rng.normal(0, 3, (2, 3, 4)).astype(np.float32)
    for axis in range(3):
        fracs = rng.integers(-1, 5, x.shape[axis])
        y = cast(torch.from_numpy(x), torch.tensor(fracs).float(), 5, True, axis=axis).double().numpy()
        fixed = Fixed(5, tuple(int(f) for f in fracs))
        expected = decode(encode(np.moveaxis(x, axis, -1), fixed), fixed)
        np.testing.assert_array_equal(np.moveaxis(y, axis, -1), expected)


def test_powers_of_two_are_exact_over_the_whole_range() -> None:
    exponents = torch.arange(-126, 128)
    assert power_of_two(exponents, torch.float64).tolist() == [2.0**e for e in range(-126, 128)]


def test_frac_is_rounded_and_held_within_its_range() -> None:
    x = torch.tensor([0.3])
    assert torch.equal(cast(x, torch.tensor(3.4), 8), cast(x, torch.tensor(3.0), 8))
    x = torch.tensor([2.0**-20])
    assert torch.equal(cast(x, torch.tensor(500.0), 8), cast(x, torch.tensor(float(FRAC_RANGE[1])), 8))
    assert torch.isfinite(cast(x, torch.tensor(-500.0), 8)).all()


@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("rounding", Rounding)
def test_gradients_are_those_of_the_design(rng, rounding, overflow) -> None:
    x = torch.tensor(rng.normal(0, 6, 400), requires_grad=True)
    frac = torch.tensor(2.0, requires_grad=True)
    y = cast(x, frac, 6, True, rounding, overflow)
    weights = torch.tensor(rng.normal(0, 1, 400))
    (y * weights).sum().backward()
    saturated = cast(x.detach(), frac.detach(), 6, True, rounding, Overflow.SAT)
    wide = cast(x.detach(), frac.detach(), 30, True, rounding)
    low = -31 if overflow is Overflow.SAT_SYM else -32
    inside = (wide * 4 >= low) & (wide * 4 <= 31)
    assert inside.any() and (~inside).any()
    assert torch.equal(x.grad, torch.where(inside, weights, 0.0))
    if overflow is Overflow.SAT_SYM:
        saturated = saturated.clamp(min=-31 / 4)
    slope = torch.where(inside, LN2 * (x.detach() - wide), -LN2 * saturated)
    assert frac.grad.item() == pytest.approx((weights * slope).sum().item(), rel=1e-6)


def test_gradients_equal_torchs_learnable_fake_quantizer(rng) -> None:
    data, weights = rng.normal(0, 4, 1000), torch.tensor(rng.normal(0, 1, 1000)).float()
    for frac, width in ((2, 5), (0, 4), (4, 8)):
        x, f = torch.tensor(data).float().requires_grad_(), torch.tensor(float(frac), requires_grad=True)
        y = cast(x, f, width)
        (y * weights).sum().backward()
        z = torch.tensor(data).float().requires_grad_()
        scale, zero = torch.tensor([2.0**-frac], requires_grad=True), torch.zeros(1)
        low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
        other = torch._fake_quantize_learnable_per_tensor_affine(z, scale, zero, low, high, 1.0)
        (other * weights).sum().backward()
        assert torch.equal(y, other) and torch.equal(x.grad, z.grad)
        assert f.grad.item() == pytest.approx(scale.grad.item() * -LN2 * 2.0**-frac, rel=1e-4)


def test_clipped_gradient_equals_finite_differences() -> None:
    for x, code in ((100.0, 7), (-100.0, -8)):
        frac = torch.tensor(1.0, requires_grad=True)
        cast(torch.tensor([x]), frac, 4).sum().backward()
        step = 1e-4
        slope = (code * 2.0 ** -(1 + step) - code * 2.0 ** -(1 - step)) / (2 * step)
        assert frac.grad.item() == pytest.approx(slope, rel=1e-4)


def test_default_gain_is_lsqs(rng) -> None:
    data = torch.tensor(rng.normal(0, 4, (2, 3, 50))).float()
    for axis, count in ((None, 300), (1, 100)):
        grads = []
        for gain in (1.0, None):
            frac = torch.full((3,) if axis else (), 1.0, requires_grad=True)
            cast(data, frac, 4, axis=axis or 0, gain=gain).square().sum().backward()
            grads.append(frac.grad)
        torch.testing.assert_close(grads[1], grads[0] / math.sqrt(count * 7))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_khot_takes_the_exact_nearest_of_all_words(width: int, k: int, signed: bool) -> None:
    allowed = [c for c in range(1 << (width - 1)) if len(digits_of(c, width, signed)) <= k]
    table = torch.tensor(magnitudes(width, k, signed), dtype=torch.float32)
    assert table.tolist() == allowed
    sizes = torch.arange(0, (1 << (width - 1)) * 8 + 9) / 8
    x = torch.cat([sizes, -sizes]) / 4
    y = cast(x, torch.tensor(2.0), width, khot=((table[1:] + table[:-1]) / 2, table))
    for real, found in zip((x * 4).tolist(), (y * 4).tolist(), strict=True):
        best = min(allowed, key=lambda c: (abs(abs(real) - c), c))
        assert found == math.copysign(best, real)


def test_khot_of_a_code_rounded_before_would_differ() -> None:
    table = torch.tensor(magnitudes(8, 2, False), dtype=torch.float32)
    khot = ((table[1:] + table[:-1]) / 2, table)
    x = torch.tensor([21.6, 22.0 - 0.01, 22.01])  # between 20 and 24; 22 is the tie, which goes to 20
    once = cast(x, torch.tensor(0.0), 8, khot=khot)
    twice = cast(cast(x, torch.tensor(0.0), 8), torch.tensor(0.0), 8, khot=khot)
    assert once.tolist() == [20.0, 20.0, 24.0] and twice.tolist() == [20.0, 20.0, 20.0]


def test_khot_passes_gradients_straight_through_and_stops_them_where_clipped() -> None:
    table = torch.tensor(magnitudes(8, 2, False), dtype=torch.float32)
    x = torch.tensor([21.0, -96.4, 96.6, 500.0], requires_grad=True)
    frac = torch.tensor(0.0, requires_grad=True)
    y = cast(x, frac, 8, khot=((table[1:] + table[:-1]) / 2, table))
    y.sum().backward()
    assert y.tolist() == [20.0, -96.0, 96.0, 96.0]
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert frac.grad.item() == pytest.approx(LN2 * (1.0 - 0.4 - 96 - 96), rel=1e-5)


def test_a_bias_is_rounded_to_its_grid_and_keeps_its_gradient(rng) -> None:
    x = torch.tensor(rng.normal(0, 3, 200)).float().requires_grad_()
    y = cast_to_grid(x, torch.tensor(5.0))
    y.sum().backward()
    fixed = Fixed(30, 5)
    np.testing.assert_array_equal(y.detach().double().numpy(), decode(encode(x.detach().numpy(), fixed), fixed))
    assert x.grad.tolist() == [1.0] * 200


def test_cast_of_a_cast_is_the_cast(rng) -> None:
    x = torch.from_numpy(probes(rng, 3))
    for rounding in Rounding:
        for overflow in Overflow:
            once = cast(x, torch.tensor(3.0), 6, True, rounding, overflow)
            assert torch.equal(cast(once, torch.tensor(3.0), 6, True, rounding, overflow), once)
