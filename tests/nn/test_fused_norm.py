"""The kernels of BatchNorm: values with the bits of the formula, sums and gradients equal to it in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qfx.fixed import Overflow
from qfx.nn import BatchNorm2d, fused_norm
from qfx.nn.quantizer import Spec

SHAPES = [(4, 5), (300, 33), (3, 16, 9), (4, 3, 5, 7), (8, 16, 32, 33), (2, 40, 1, 1)]


def tensor(shape: tuple[int, ...], last: bool, seed: int = 0, spread: float = 3.0) -> Tensor:
    """Random values about means of their own, in either memory format."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * spread
    x = x + 5 * torch.randn(shape[1], generator=generator).reshape(1, -1, *[1] * (len(shape) - 2))
    return x.contiguous(memory_format=torch.channels_last) if last and len(shape) == 4 else x


def layer(channels: int, width: int = 8, overflow: Overflow = Overflow.SAT, signed: bool = True) -> BatchNorm2d:
    """A calibrated BatchNorm."""
    made = BatchNorm2d(channels, output_spec=Spec(width, overflow=overflow))
    torch.manual_seed(1)
    with torch.no_grad():
        made.weight.uniform_(0.5, 2), made.bias.normal_()
    for quantizer, frac in ((made.scale_quant, 6.0), (made.shift_quant, 4.0), (made.output_quant, 4.4)):
        quantizer.start_at(torch.full_like(quantizer.frac, frac), signed or quantizer is not made.output_quant)
    return made.train()


def compiled(made: BatchNorm2d) -> Callable[[Tensor], Tensor]:
    """What torch.compile makes of a layer, but for the code itself."""
    torch._dynamo.reset()  # of the layers before
    return torch.compile(made, fullgraph=True, backend="aot_eager")


def results(made: BatchNorm2d, x: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
    """What a step makes of ``x``: the result, every gradient, and the running statistics."""
    made.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = (made if run is None else run)(x)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(x.dtype)
    y.backward(grad)
    grads = {name: parameter.grad.clone() for name, parameter in made.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "mean": made.running_mean, "var": made.running_var, **grads}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_and_statistics_are_those_of_the_formula(shape: tuple[int, ...], last: bool) -> None:
    x = tensor(shape, last)
    assert fused_norm.serves(x) and not fused_norm.serves(x.double())
    ours, formula = results(layer(shape[1]), x), results(layer(shape[1]).double(), x.double())
    assert ours["y"].stride() == x.stride() and ours["x"].stride() == x.stride()
    apart = (ours["y"].double() - formula["y"]).abs() * 16
    assert apart.max() <= 1 and (apart > 0).float().mean() < 1e-3  # ties that a last bit of the statistics decides
    for name in ours.keys() - {"y"}:
        size = formula[name].abs().max().clamp_min(1e-6)
        assert ((ours[name].double() - formula[name]).abs() / size).max() < 2e-3, name


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("overflow", [Overflow.SAT, Overflow.SAT_SYM])
@pytest.mark.parametrize("width", [1, 4, 8])
def test_with_given_constants_results_have_the_bits_of_the_formula(
    width: int, overflow: Overflow, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = layer(16, width, overflow), tensor((8, 16, 20, 21), last)
    made.frozen = True
    ours = results(made, x)
    monkeypatch.setattr(fused_norm, "serves", lambda x: False)
    formula = results(made, x)
    assert torch.equal(ours["y"], formula["y"]) and torch.equal(ours["x"], formula["x"])
    for name in ("weight", "bias", "output_quant.frac"):
        torch.testing.assert_close(ours[name], formula[name], rtol=1e-4, atol=1e-4)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x, threads = tensor((8, 16, 32, 33), True), torch.get_num_threads()
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(results(layer(16), x))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0].values(), other.values(), strict=True))


def test_a_gradient_in_another_memory_format_is_brought_in_order() -> None:
    x, grads = tensor((4, 3, 5, 7), False), []
    for last in (False, True):
        a = x.clone().requires_grad_()
        y = layer(3)(a)
        grad = torch.ones_like(y) * y.detach()
        y.backward(grad.contiguous(memory_format=torch.channels_last) if last else grad)
        grads.append(a.grad)
    assert torch.equal(*grads)


def test_variance_is_right_far_from_zero_and_nan_is_kept() -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 1000.0
    _, mean, var = fused_norm.moments(x)
    exact, middle = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(var.double(), exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(mean.double(), middle, rtol=1e-6, atol=0)
    x[5, 1, 2, 3] = torch.nan
    _, mean, var = fused_norm.moments(x)
    assert var.isnan().tolist() == mean.isnan().tolist() == [False, True, False]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("width", [1, 4, 8, 9, 12])
def test_compiled_results_and_gradients_have_the_bits_of_eager_ones(width: int, signed: bool, last: bool) -> None:
    made, x = layer(16, width, signed=signed), tensor((8, 16, 5, 7), last)
    made.frozen = True
    eager, ours = results(made, x), results(made, x, compiled(made))
    assert all(torch.equal(eager[name], ours[name]) for name in eager)
    fault = layer(16, width, signed=signed)
    fault.frozen, fault.weight.data[3] = True, -fault.weight.data[3]
    assert not torch.equal(results(fault, x, compiled(fault))["y"], eager["y"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_a_nan_is_not_lost_in_compiled_training() -> None:
    made, x = layer(16), tensor((8, 16, 5, 7), True)
    made.frozen = True
    assert not compiled(made)(x).isnan().any()
    x[1, 2, 3, 4] = torch.nan
    assert made(x).isnan().sum() == 1 and compiled(made)(x).isnan().all()


@pytest.mark.parametrize("fault", ["high", "scale"])
def test_a_planted_fault_is_seen(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, kernel = layer(16, 4), tensor((4, 16, 9, 9), False), fused_norm._call
    made.frozen = True

    def faulty(name: str, x: Tensor, tensors: tuple[Tensor, ...], *codes: int) -> None:
        if name == "qfx_affine":
            scale = tensors[1] * (1 + 2.0**-9) if fault == "scale" else tensors[1]
            tensors = (tensors[0], scale, *tensors[2:])
            codes = codes[0], codes[1] - (fault == "high")
        kernel(name, x, tensors, *codes)

    whole: Callable[[], Tensor] = lambda: results(made, x)["y"]  # noqa: E731
    right = whole()
    monkeypatch.setattr(fused_norm, "_call", faulty)
    assert not torch.equal(right, whole())
