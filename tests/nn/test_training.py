"""Training: it reduces the loss, and works compiled and under autocast. (Binary points: train/test_learned_points.)"""

import sysconfig
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qfx.errors import TrainError
from qfx.nn import calibrate, check_optimizer, convert, exact, freeze_formats, functional, param_groups, quantizers
from tests.nn.nets import RECIPE, Net, digits_like

GENERATES = pytest.mark.skipif(
    not (Path(sysconfig.get_path("include")) / "Python.h").is_file(),
    reason="torch.compile's generated code needs Python's headers: apt install python3.11-dev",
)


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, frac_lr: float = 0.05) -> float:
    optimizer = torch.optim.Adam(param_groups(model.train(), 2e-3, frac_lr=frac_lr))
    for _ in range(steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_few_steps_reduce_the_loss_of_the_whole_network() -> None:
    torch.manual_seed(0)
    x, y = digits_like(32, 1), torch.arange(32) % 10
    model = calibrate(convert(Net(), RECIPE), [x])
    before = F.cross_entropy(model(x), y).item()
    after = train(model, x, y, 40)
    assert after < 0.8 * before
    with torch.no_grad():
        expected = model.eval()(x).double()
    assert torch.equal(exact(model)(x), expected)


def test_every_learned_parameter_gets_a_finite_gradient() -> None:
    x = digits_like(16, 2)
    model = calibrate(convert(Net(), RECIPE).train(), [x])
    F.cross_entropy(model(x), torch.arange(16) % 10).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_training_under_autocast_stays_finite_and_reduces_the_loss() -> None:
    torch.manual_seed(0)
    x, y = digits_like(32, 3), torch.arange(32) % 10
    model = calibrate(convert(Net(), RECIPE), [x])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = F.cross_entropy(model(x), y).item()
        after = train(model, x, y, 30)
    assert after < before


def test_the_network_compiles_without_a_graph_break() -> None:
    torch.manual_seed(0)
    x = digits_like(8, 4)
    model = calibrate(convert(Net(), RECIPE), [x]).train()
    expected = model(x)
    expected.sum().backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        found = compiled(x)
        found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for name, parameter in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6)


@GENERATES
def test_generated_code_computes_the_same_codes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    x = digits_like(4, 5)
    model = calibrate(convert(model, {"layers": {"3": {"weight": {"digits": {"k": 2}}}}}).eval(), [x])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model, fullgraph=True)
        with torch.no_grad():
            assert torch.equal(compiled(x), model(x))


def frozen_gradients(backend: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of eager and of compiled training with frozen formats, of which many values are outside."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    x = digits_like(4, 6).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        model = calibrate(convert(net, {"default": {"weight": 3, "activation": 3}}).train(), [x.detach()])
        for quantizer in quantizers(model).values():
            quantizer.frac.data += 1
        freeze_formats(model)
        torch._dynamo.reset()
        found = []
        for run in (model, torch.compile(model, fullgraph=True, backend=backend)):
            model.zero_grad()
            x.grad = None
            run(x).square().sum().backward()
            named = {"input": x, **dict(model.named_parameters())}
            found.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
    return found[0], found[1]


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The gradients that are not equal in every bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=GENERATES)])
def test_compiled_training_with_frozen_formats_has_the_gradients_of_eager_training(backend: str) -> None:
    eager, compiled = frozen_gradients(backend)
    assert differ(eager, compiled) == [] and {"input", "0.weight", "2.weight", "4.weight"} <= eager.keys()
    assert all((eager[name] == 0).any() for name in ("input", "0.weight", "2.weight"))  # outside of their formats


@pytest.mark.parametrize(
    "mask",
    [
        lambda a, b: torch.ones_like(a),  # nothing is outside
        lambda a, b: (a - b).abs().clamp(max=1),  # the others are
        lambda a, b: 1 - (a - b).abs().clamp(max=2) / 2,  # neighbours are half equal
    ],
)
def test_a_planted_fault_in_the_mask_of_compiled_training_is_seen(mask, monkeypatch) -> None:
    monkeypatch.setattr(functional, "equal", lambda a, b: mask(a, b) if torch.compiler.is_compiling() else a == b)
    assert {"input", "0.weight", "2.weight"} <= set(differ(*frozen_gradients("aot_eager")))


def test_an_optimizer_that_was_built_before_convert_is_refused() -> None:
    net = Net()
    before = torch.optim.SGD(net.parameters(), lr=0.1)
    model = convert(net)
    count, held = len(list(net.parameters())), len(list(model.parameters()))
    with pytest.raises(TrainError) as caught:
        check_optimizer(before, model)
    assert str(caught.value) == (
        f"the optimizer must hold parameters of the converted model only, but {count} of its {count} are of another, "
        f"and {held} of the model's are not among them ('norm.scale_quant.frac', ...): build it after qfx.convert, "
        "from qfx.param_groups(model)"
    )
    check_optimizer(torch.optim.AdamW(param_groups(model, 1e-3)), model)
    check_optimizer(torch.optim.SGD(model.fc.parameters(), lr=0.1), model)  # a part of the model is the user's choice
    both = [*model.parameters(), next(net.parameters())]
    with pytest.raises(TrainError, match=rf"but 1 of its {held + 1} are of another: build it after qfx.convert"):
        check_optimizer(torch.optim.SGD(both, lr=0.1), model)


def test_an_optimizer_that_was_built_before_convert_is_refused_at_its_first_step() -> None:
    net, x = Net(), digits_like(8, 0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    model = calibrate(convert(net), [x])
    model(x).sum().backward()
    count = len(list(net.parameters()))
    with pytest.raises(TrainError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        f"the optimizer must hold parameters of the converted model, but all its {count} are of the model before "
        "qfx.convert and have no gradient: build it after qfx.convert, from qfx.param_groups(model)"
    )
    torch.optim.AdamW(param_groups(model, 1e-3)).step()
    net(x).sum().backward()
    optimizer.step()  # the float model is trained too


def test_an_operand_that_has_just_left_its_quantizer_is_not_quantized_again(monkeypatch) -> None:
    torch.manual_seed(0)
    x = digits_like(8, 6)
    model = calibrate(convert(Net(), RECIPE), [x]).train()
    add = model.block.add
    assert add.settled == {"a_quant"} and add.a_quant is model.block.bn2.output_quant
    found = []
    for settled in (add.settled, frozenset()):
        monkeypatch.setattr(add, "settled", settled)
        torch.manual_seed(1)
        model.zero_grad()
        y = model(x)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
