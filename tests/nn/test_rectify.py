"""Results that ReLUs alone read are unsigned, since saturation at 0 is the ReLU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx.nn import quantizers


class Net(nn.Module):
    """A sum that a ReLU reads, of a BatchNorm that a ReLU and the sum read, and one that the sum alone reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1, self.bn2, self.bn3 = nn.Conv2d(2, 3, 1), *(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv(x)))
        y = self.bn2(x)
        return F.relu(F.relu(y) * 0.5 + self.bn3(x) + y)


def made(recipe: dict | None = None) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net, x = Net().train(), torch.randn(16, 2, 5, 5)
    net(x * 2)  # statistics
    with torch.no_grad():
        net.bn1.bias.sub_(2.0)  # the largest value in size is negative
    model = qfx.convert(net.eval(), recipe or {"default": {"elementwise": 4, "activation": 4}}, x)
    return qfx.calibrate(model, [x]), x


def test_results_that_relus_alone_read_are_unsigned_and_the_graph_has_the_integers_of_torch() -> None:
    model, x = made()
    found = {name: each.signed for name, each in quantizers(model).items() if name.endswith("output_quant")}
    assert not found["bn1.output_quant"] and found["bn2.output_quant"] and found["bn3.output_quant"]
    sums = [signed for name, signed in found.items() if name.startswith("add")]
    assert sorted(sums) == [False, True]  # the last sum alone is rectified
    graph = qfx.lower(model, x)
    assert (graph.evaluate(x.numpy(), "NCHW") == qfx.exact(model)(x).numpy()).all()


def passed(signed: bool | None) -> tuple[Tensor, Tensor]:
    """What a ReLU passes of the BatchNorm's result: as it would be in float, and as it is in 4 bits."""
    stated = {} if signed is None else {"signed": signed}
    model, x = made({"layers": {"bn1": {"elementwise": {"width": 4, **stated}, "constant": 16}}})
    layer, seen = model.get_submodule("bn1"), []
    layer.register_forward_hook(lambda _, given, y: seen.append((given[0], y)))
    with torch.no_grad():
        model(x)
    (given, y), scale = seen[0], (layer.weight / torch.sqrt(layer.running_var + layer.eps)).reshape(1, -1, 1, 1)
    real = (given - layer.running_mean.reshape(1, -1, 1, 1)) * scale + layer.bias.reshape(1, -1, 1, 1)
    assert -real.min() > 2 * real.max() > 0
    return F.relu(real), F.relu(y)


def test_the_range_is_that_of_the_values_which_pass() -> None:
    real, y = passed(None)
    assert (
        0.9 * real.max() < y.max() <= 15 / 16 and (y * 16 % 1 == 0).all()
    )  # u4.4: s4.2, or less, had to hold the rest


def test_what_a_relu_passes_is_finer_than_with_a_sign() -> None:
    plain, signed = ((real - y).abs().mean() for real, y in (passed(None), passed(True)))
    assert plain < 0.7 * signed


@pytest.mark.parametrize("said", [{"signed": True}, {"overflow": "WRAP"}])
def test_a_stated_sign_and_an_overflow_that_does_not_saturate_stay(said: dict) -> None:
    model, x = made({"layers": {"bn1": {"elementwise": {"width": 6, **said}}}})
    assert quantizers(model)["bn1.output_quant"].signed
    graph = qfx.lower(model, x)
    assert (graph.evaluate(x.numpy(), "NCHW") == qfx.exact(model)(x).numpy()).all()
