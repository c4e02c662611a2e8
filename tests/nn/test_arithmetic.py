"""Which arithmetic a sum of products is exact in: at the edges of float32 and float64, and away from the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
import qfx.nn as qnn
from qfx.graph.lower import lower
from qfx.nn import Spec, arithmetic, exact, integer
from qfx.nn.arithmetic import conv2d_of_matrices, convolution, plain_floats
from tests.nn.nets import RECIPE, Net, digits_like

PRECISIONS = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul]


@pytest.fixture
def spied(monkeypatch) -> list[torch.dtype]:
    """The dtypes of the dense products that are computed."""
    seen: list[torch.dtype] = []

    def linear(x: Tensor, *others: Tensor) -> Tensor:
        seen.append(x.dtype)
        return product(x, *others)

    product = F.linear
    monkeypatch.setattr(F, "linear", linear)
    return seen


def shares(total: int) -> list[int]:
    """Sixteen weights that add up to ``total``."""
    return [(total + place) // 16 for place in range(16)]


def dense(total: int, x_width: int, weight_width: int) -> nn.Module:
    """A layer whose weights' codes add up to ``total``."""
    weight, entry = Spec(weight_width, frac=0, signed=True), Spec(x_width, frac=0, signed=False)
    layer = qnn.Linear(16, 1, bias=False, weight_spec=weight, input_spec=entry)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([shares(total)]))
    return nn.Sequential(layer).eval()


@pytest.mark.parametrize(
    ("total", "x_width", "chosen"),
    [
        (2**12 + 1, 12, torch.float32),  # bound 2**24 - 1
        (2**12 + 2, 12, torch.float64),
        (2**12 + 3, 12, torch.float64),
        (2**26 + 1, 26, torch.float64),  # bound 2**52 - 1
        (2**27 + 1, 27, torch.int64),  # bound 2**54 - 1: digits that float64 holds
    ],
)
def test_the_bound_chooses_the_arithmetic(total: int, x_width: int, chosen: torch.dtype, spied) -> None:
    layer, largest = dense(total, x_width, 28), 2**x_width - 1
    rows = [
        [largest] * 16 if chosen is not torch.int64 else [largest] * 7 + [0] * 9,
        [largest - 2, 1, 3, 0] * 2 + [0] * 8,
    ]
    x = torch.tensor(rows, dtype=torch.float64)
    wanted = [sum(code * weight for code, weight in zip(row, shares(total), strict=True)) for row in rows]
    assert max(wanted) < 2**53 and exact(layer)(x)[:, 0].tolist() == wanted
    products = [torch.float64] * 2 if chosen is torch.int64 else [chosen]
    assert spied == products
    assert lower(layer, x).evaluate(x.numpy())[:, 0].tolist() == wanted


def test_float32_would_be_wrong_just_above_the_bound(monkeypatch) -> None:
    layer = dense(2**12 + 3, 12, 16)
    x = torch.full((1, 16), 2.0**12 - 1)
    wanted = (2**12 - 1) * (2**12 + 3)
    assert exact(layer)(x).item() == wanted > 2**24
    assert layer(x).item() != wanted
    monkeypatch.setattr(integer, "FLOAT32_BITS", 30)
    assert exact(layer)(x).item() != wanted


def test_float32_would_be_wrong_for_16_bits_times_8(rng) -> None:
    torch.manual_seed(0)
    weight, entry = Spec(8, frac=6, signed=True), Spec(16, 8, True)
    conv = nn.Sequential(qnn.Conv2d(16, 8, 3, padding=1, weight_spec=weight, input_spec=entry)).eval()
    with torch.no_grad():
        conv[0].weight.uniform_(-2, 2)
    x = torch.tensor(rng.uniform(-128, 128, (4, 16, 6, 6)))
    found = exact(conv)(x)
    assert (found.numpy() == lower(conv, x).evaluate(x.numpy(), "NCHW")).all()
    with torch.no_grad():
        assert (conv(x.float()).double() != found).float().mean() > 0.2


SHAPES = [
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "groups": 2},
    {"stride": 2, "padding": 1, "dilation": 2, "groups": 4},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_matrices_is_the_convolution(shape: dict, dtype: torch.dtype, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (5, 4, 9, 8), generator=generator).to(dtype)
    weight = torch.randint(-128, 128, (8, 4 // shape["groups"], 3, 2), generator=generator).to(dtype)
    bias = torch.randint(-9999, 9999, (8,), generator=generator).to(dtype)
    for held in (arithmetic.UNFOLDED, 1):  # all images at once, one by one
        monkeypatch.setattr(arithmetic, "UNFOLDED", held)
        assert torch.equal(conv2d_of_matrices(x, weight, bias, **shape), F.conv2d(x, weight, bias, **shape))
        assert torch.equal(conv2d_of_matrices(x, weight, None, **shape), F.conv2d(x, weight, None, **shape))


def test_other_devices_get_products_of_matrices_and_the_same_integers(monkeypatch) -> None:
    assert convolution("cpu") is F.conv2d and convolution("cuda") is convolution("mps") is conv2d_of_matrices
    torch.manual_seed(0)
    x = digits_like(8, 0)
    model = qfx.calibrate(qfx.convert(Net(), RECIPE).eval(), [x])
    wanted, calls = lower(model, x).evaluate(x.numpy(), "NCHW"), []

    def elsewhere(device: str):
        calls.append(device)
        return conv2d_of_matrices

    monkeypatch.setattr(qnn.compute, "convolution", elsewhere)
    assert (exact(model)(x).numpy() == wanted).all() and calls
    calls.clear()
    model(x)
    assert not calls  # training and evaluation keep torch's convolution


def test_deformable_convolution_takes_them_too(monkeypatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model = qfx.calibrate(qfx.convert(nn.Sequential(qnn.SquareDeformConv2d(3, 3)), None, x).eval(), [x])
    wanted = lower(model, x).evaluate(x.numpy(), "NCHW")
    assert (exact(model)(x).numpy() == wanted).all()
    for module in (qnn.compute, qnn.deform):
        monkeypatch.setattr(module, "convolution", lambda device: conv2d_of_matrices)
    assert (exact(model)(x).numpy() == wanted).all()


def test_a_gated_convolution_takes_them_too(monkeypatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    net = nn.Sequential(qnn.BinaryActivation(2), qnn.PrecisionGatedConv2d(3, 4, 3, 1, 1))
    model = qfx.calibrate(qfx.convert(net, None, x).eval(), [x])
    wanted, calls = lower(model, x).evaluate(x.numpy(), "NCHW"), []

    def one_off(*given: Any) -> torch.Tensor:
        calls.append(given)
        return conv2d_of_matrices(*given) + planted

    monkeypatch.setattr(qnn.gated, "convolution", lambda device: one_off)
    planted = 0
    assert (exact(model)(x).numpy() == wanted).all() and calls
    planted = 2
    assert (exact(model)(x).numpy() != wanted).any()


def test_torch_s_short_cuts_are_off_inside_and_as_before_outside() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        set_before = [backend.fp32_precision for backend in PRECISIONS]
        assert "bf16" in set_before
        with pytest.raises(ZeroDivisionError), plain_floats("cpu"), torch.autocast("cpu", enabled=False):
            assert {backend.fp32_precision for backend in PRECISIONS} == {"ieee"}
            assert not torch.is_autocast_enabled("cpu")
            raise ZeroDivisionError
        assert [backend.fp32_precision for backend in PRECISIONS] == set_before
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_exact_is_the_graph_whatever_precision_is_set_outside() -> None:
    torch.manual_seed(0)
    x = digits_like(64, 0)
    model = qfx.calibrate(qfx.convert(Net(), RECIPE).eval(), [x])
    wanted, before = lower(model, x).evaluate(x.numpy(), "NCHW"), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert np.array_equal(exact(model)(x).numpy(), wanted)
            assert not np.array_equal(model(x).detach().float().numpy(), wanted)
    finally:
        torch.set_float32_matmul_precision(before)
