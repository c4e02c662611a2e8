"""Learned widths: the casts are those of the fixed ones, the gradients those of the moving bound, and 0 bits prune."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx.nn as qnn
from qfx.fixed import Overflow, Rounding
from qfx.graph.lower import lower
from qfx.nn.functional import cast
from qfx.nn.learned_width import WIDEST_LEARNED, cast_learned_width, round_width

LN2 = math.log(2.0)


@pytest.mark.parametrize("overflow", [Overflow.SAT, Overflow.SAT_SYM])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rounding", Rounding)
def test_a_learned_width_casts_as_the_same_fixed_one(rng, rounding, signed, overflow) -> None:
    x = torch.tensor(rng.normal(0, 30, 500)).float()
    for width in range(WIDEST_LEARNED + 1):
        expected = cast(x, torch.tensor(2.0), width, signed, rounding, overflow) if width else torch.zeros_like(x)
        found = cast_learned_width(x, torch.tensor(2.3), torch.tensor(width + 0.4), signed, rounding, overflow)
        assert torch.equal(found, expected), width


def test_each_channel_has_a_width_of_its_own(rng) -> None:
    x = torch.tensor(rng.normal(0, 9, (3, 50))).float()
    widths, fracs = torch.tensor([2.0, 0.0, 6.0]), torch.tensor([0.0, 1.0, 2.0])
    found = cast_learned_width(x, fracs, widths, True, Rounding.RND, Overflow.SAT_SYM)
    for row, (width, frac) in enumerate(zip(widths, fracs, strict=True)):
        expected = cast(x[row], frac, int(width), True, Rounding.RND, Overflow.SAT_SYM) if width else x[row] * 0
        assert torch.equal(found[row], expected)


@pytest.mark.parametrize(
    ("x", "signed", "overflow", "bound"),
    [
        (100.0, True, Overflow.SAT, lambda w: 2.0 ** (w - 1) - 1),
        (100.0, False, Overflow.SAT, lambda w: 2.0**w - 1),
        (-100.0, True, Overflow.SAT, lambda w: -(2.0 ** (w - 1))),
        (-100.0, True, Overflow.SAT_SYM, lambda w: 1 - 2.0 ** (w - 1)),
        (-100.0, False, Overflow.SAT, lambda w: 0.0),
        (0.7, True, Overflow.SAT, lambda w: 0.0),
    ],
)
def test_the_gradient_of_the_width_is_that_of_the_bound(x, signed, overflow, bound) -> None:
    frac, width, step = 1.0, torch.tensor(4.0, requires_grad=True), 1e-4
    y = cast_learned_width(torch.tensor([x]), torch.tensor(frac), width, signed, Rounding.RND, overflow)
    y.sum().backward()
    slope = (bound(4 + step) - bound(4 - step)) / (2 * step) * 2.0**-frac
    gain = (2.0 ** (4 - signed) - 1) ** -0.5
    assert width.grad.item() == pytest.approx(slope * gain, rel=1e-4, abs=1e-9)


def test_the_other_gradients_are_those_of_a_fixed_width(rng) -> None:
    data, weights = rng.normal(0, 6, (4, 200)), torch.tensor(rng.normal(0, 1, (4, 200))).float()
    grads = []
    for learned in (False, True):
        x, frac = torch.tensor(data).float().requires_grad_(), torch.full((4,), 2.0, requires_grad=True)
        if learned:
            y = cast_learned_width(x, frac, torch.full((4,), 5.0), True, Rounding.RND, Overflow.SAT)
        else:
            y = cast(x, frac, 5, gain=None)
        (y * weights).sum().backward()
        grads.append((x.grad, frac.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1])


def net() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network, of whose first layer two channels carry nothing, in fixed point with learned widths."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight[2:] *= 1e-3
    x = torch.randint(0, 16, (64, 1, 4, 4)).float()
    y = (x[:, 0, :2].sum((1, 2)) > x[:, 0, 2:].sum((1, 2))).long()
    recipe = {
        "default": {
            "weight": {"width": 8, "learn_width": True},
            "activation": {"width": 8, "learn_width": True},
            "input": "u4.0",
        }
    }
    return qnn.calibrate(qnn.convert(model, recipe, x), [x]), x, y


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, price: float) -> None:
    optimizer = torch.optim.Adam(qnn.param_groups(model.train(), lr=1e-2, frac_lr=0.05))
    for _ in range(120):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + price * qnn.constant_bits(model)).backward()
        optimizer.step()
    model.eval()


def test_a_price_on_bits_shrinks_widths_and_the_graph_computes_the_same_integers() -> None:
    model, x, y = net()
    start = qnn.constant_bits(model).item()
    train(model, x, y, price=2e-4)
    weight = model.get_submodule("0").weight_quant
    assert qnn.constant_bits(model).item() < 0.5 * start
    assert (qnn.exact(model)(x).argmax(1) == y).float().mean() > 0.8
    used, idle = round_width(weight.bits)[:2], round_width(weight.bits)[2:]
    assert used.min() > idle.max()  # the channels that carry something keep more bits
    graph = lower(model, x)
    assert graph.constants["0.weight"].fixed.width == max(weight.width, 1)
    assert (graph.evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()


def test_a_channel_of_no_bits_is_pruned() -> None:
    model, x, _ = net()
    weight = model.get_submodule("0").weight_quant
    with torch.no_grad():
        weight.bits[1] = 0.4
    graph = lower(model.eval(), x)
    assert not graph.constants["0.weight"].codes[..., 1].any()
    assert graph.constants["0.weight"].codes[..., 0].any()
    assert (graph.evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()


def test_a_tensor_of_no_bits_lowers_too() -> None:
    model, x, _ = net()
    with torch.no_grad():
        model.get_submodule("4").input_quant.bits.fill_(0.0)
    graph = lower(model.eval(), x)
    assert (graph.evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()


def test_a_width_of_zero_can_grow_again() -> None:
    width = torch.tensor(0.0, requires_grad=True)
    y = cast_learned_width(torch.tensor([5.0]), torch.tensor(0.0), width, True, Rounding.RND, Overflow.SAT)
    y.sum().backward()
    assert y.item() == 0 and width.grad.item() > 0


def test_freezing_stops_widths_at_integers() -> None:
    model, x, y = net()
    bits = model.get_submodule("0").weight_quant.bits
    with torch.no_grad():
        bits -= 0.3
    qnn.freeze_formats(model)
    assert torch.equal(bits, round_width(bits)) and not bits.requires_grad
    assert len(qnn.param_groups(model, 1e-3)) == 1


def test_a_learned_width_compiles_without_a_graph_break() -> None:
    model, x, _ = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), model(x))


def test_a_state_dict_restores_learned_widths() -> None:
    model, x, y = net()
    train(model, x, y, price=2e-4)
    other, _, _ = net()
    other.load_state_dict(model.state_dict())
    assert np.array_equal(qnn.exact(other.eval())(x).numpy(), qnn.exact(model)(x).numpy())
