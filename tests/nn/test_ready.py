"""convert refuses, by module path and with what to do, what its trace would lose or could not read."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import qfx
from qfx.errors import LowerError

X = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    return nn.Sequential(inner, nn.Flatten(), nn.Linear(8, 3))


def refusal(net: nn.Module, example: Tensor | None = X) -> str:
    with pytest.raises(LowerError) as caught:
        qfx.convert(net, None, example)
    return str(caught.value)


def changed(change: Callable[[nn.Sequential], Any]) -> nn.Module:
    net = network()
    change(net)
    return net


HOOK = "it must have no forward hook, which convert would lose: remove the hook, and do in forward what it does"
UTILS = "torch.nn.utils"
COMPUTED = "must be a parameter, not computed from others: call"


class Mine(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


@pytest.mark.filterwarnings("ignore:.*(weight_norm|Lazy modules).*")
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda net: net[0][0].register_forward_hook(lambda m, x, y: 2 * y), f"0.0 (Conv2d): {HOOK}"),
        (lambda net: net[0].register_forward_pre_hook(lambda m, x: None), f"0 (Sequential): {HOOK}"),
        (lambda net: net.register_forward_hook(lambda m, x, y: 2 * y), f"the model itself (Sequential): {HOOK}"),
        (
            lambda net: nn.utils.weight_norm(net[0][0]),
            f"0.0 (Conv2d): its weight {COMPUTED} {UTILS}.remove_weight_norm(layer, 'weight') before convert",
        ),
        (
            lambda net: nn.utils.spectral_norm(net[2]),
            f"2 (Linear): its weight {COMPUTED} {UTILS}.remove_spectral_norm(layer, 'weight') before convert",
        ),
        (
            lambda net: prune.l1_unstructured(net[2], "bias", 0.5),
            f"2 (Linear): its bias {COMPUTED} {UTILS}.prune.remove(layer, 'bias') before convert",
        ),
        (
            lambda net: parametrizations.weight_norm(net[2]),
            f"2 (ParametrizedLinear): its weight {COMPUTED} {UTILS}.parametrize.remove_parametrizations(layer, "
            "'weight') before convert",
        ),
        (
            lambda net: parametrizations.spectral_norm(net[0][0]),
            f"0.0 (ParametrizedConv2d): its weight {COMPUTED} {UTILS}.parametrize.remove_parametrizations(layer, "
            "'weight') before convert",
        ),
        (
            lambda net: net.append(nn.LazyLinear(2)),
            "3 (LazyLinear): it must know its shapes: run the network on one batch before convert",
        ),
        (
            lambda net: net[0].insert(0, Mine(1, 1, 1)),
            "0.0 (Mine): it must be nn.Conv2d itself, not a subclass of it, which may compute something else",
        ),
        (
            lambda net: net.append(nn.DataParallel(nn.ReLU())),
            "3 (DataParallel): it must be the network inside of it: convert its .module, then wrap the result",
        ),
        (
            lambda net: net.append(torch.compile(nn.ReLU(), backend="eager")),
            "3 (OptimizedModule): it must be the module itself, not what torch.compile made of it: convert it first, "
            "then compile",
        ),
    ],
)
def test_what_a_trace_would_lose_is_refused(change: Callable[[nn.Sequential], Any], line: str) -> None:
    for example in (X, None):
        text = refusal(changed(change), example)
        assert text == f"the model must be ready for convert, but is not:\n  {line}"


def test_all_that_is_in_the_way_is_listed_at_once() -> None:
    net = network()
    net[0][0].register_forward_hook(lambda m, x, y: 2 * y)
    nn.utils.spectral_norm(net[2])
    net.append(Mine(1, 1, 1))
    assert len(refusal(net).splitlines()) == 4


@pytest.mark.filterwarnings("ignore:.*(weight_norm|Lazy modules).*")
def test_what_the_message_says_to_do_works() -> None:
    net = network()
    hook = net[0][0].register_forward_hook(lambda m, x, y: 2 * y)
    hook.remove()
    nn.utils.spectral_norm(net[0][0])
    nn.utils.remove_spectral_norm(net[0][0], "weight")
    nn.utils.weight_norm(net[2])
    nn.utils.remove_weight_norm(net[2], "weight")
    parametrizations.weight_norm(net[2])
    nn.utils.parametrize.remove_parametrizations(net[2], "weight")
    prune.l1_unstructured(net[2], "bias", 0.5)
    prune.remove(net[2], "bias")
    net.append(nn.LazyLinear(2))
    net(X)
    qfx.convert(net, None, X)


@pytest.mark.parametrize(
    ("net", "example", "message"),
    [
        (network().half(), X, "the network must be float32, but '0.0.weight' is float16: convert model.float()"),
        (
            network().bfloat16(),
            None,
            "the network must be float32, but '0.0.weight' is bfloat16: convert model.float()",
        ),
        (
            network().double(),
            X.double(),
            "the network must be float32, but '0.0.weight' is float64: convert model.float()",
        ),
        (
            network().to("meta"),
            None,
            "the network must have values, but '0.0.weight' is on the device meta: call model.to_empty(device='cpu') "
            "and load a state_dict",
        ),
        (network(), X.long(), "example must be float32, not int64: give example.float()"),
        (network(), X.double(), "example must be float32, not float64: give example.float()"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3)),
            X[0],
            "example must have the axes (N, C, H, W), the batch first, not 3 axes: give example[None] if it is one "
            "input alone",
        ),
        (
            nn.Sequential(nn.Linear(4, 2)),
            torch.rand(4),
            "example must have the axes (N, features), the batch first, not 1 axes: give example[None] if it is one "
            "input alone",
        ),
    ],
)
def test_numbers_and_axes_that_convert_does_not_take_are_refused(net: nn.Module, example: Tensor, message: str) -> None:
    assert refusal(net, example) == message


class Calls(nn.Module):
    """A convolution, and what the test does with the network and its result."""

    def __init__(self, use: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.p, self.use = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(1)), use

    def forward(self, x: Tensor) -> Any:
        return self.use(self, self.conv(x))


NONE = "there is no fixed-point form of it"
AXES = f"{NONE}: keep the axes as they are, and bring the data into their order before the network"
PARTS = f"{NONE}: let a layer of its own give each part"
MANY = "output (output): it must be a tensor, or a tuple of two or more tensors, not"


@pytest.mark.parametrize(
    ("use", "lines"),
    [
        (lambda net, x: x.transpose(2, 3), [f"transpose (transpose): {AXES}"]),
        (lambda net, x: torch.permute(x, (0, 1, 3, 2)), [f"permute (permute): {AXES}"]),
        (lambda net, x: x.unbind(1)[0], [f"unbind (unbind): {PARTS}"]),
        (
            lambda net, x: x.chunk(2, 0)[0],
            ["chunk (chunk): it must chunk channels, dim=1, and keep the batch whole"],
        ),
        (
            lambda net, x: x[:1],
            ["getitem (getitem): it must keep the batch whole: the first slice must be ':'"],
        ),
        (
            lambda net, x: x.amax((1, 2)),
            [
                "amax (amax): use all of an image, dim=(2, 3), or its channels, its rows or its columns, with "
                "keepdim=True, instead"
            ],
        ),
        (lambda net, x: x.cumsum(1), [f"cumsum (cumsum): {NONE}: compute it behind the network, of its result"]),
        (
            lambda net, x: x / x.relu(),
            ["truediv (truediv): use a product with qfx.nn.Table(torch.reciprocal)(divisor) instead"],
        ),
        (
            lambda net, x: x * net.p.exp(),
            [
                "exp (exp): it computes of parameters alone: make its result a parameter or buffer",
                "mul (mul): use a product of tensors, or of a tensor and a constant instead",
            ],
        ),
        (
            lambda net, x: torch.add(x, net.p, alpha=2),
            ["add (add): use a sum of tensors, or of a tensor and a constant, without alpha instead"],
        ),
        (lambda net, x: {"a": x, "b": x.relu()}, [f"{MANY} a dict of 2: return the tensors alone"]),
        (lambda net, x: [x, (x, x)], [f"{MANY} a list with a tuple in it: return the tensors alone"]),
        (lambda net, x: (x,), [f"{MANY} a tuple of 1: return the tensors alone"]),
        (lambda net, x: None, [f"{MANY} None: return the tensors alone"]),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_calls_without_a_fixed_point_form_are_refused_shortly(use: Any, lines: list[str], training: bool) -> None:
    assert refusal(Calls(use).train(training)).splitlines()[1:] == [f"  {line}" for line in lines]


def test_a_module_path_that_no_node_can_have_is_refused() -> None:
    net = nn.Sequential(nn.Flatten())
    net.add_module("out layer", nn.Linear(16, 3))
    assert refusal(net).endswith(
        "\n  out layer (Linear): its path must be letters, digits, '_', '.' or '-', not begin with '.' or '-', and not "
        "be '__metadata__': rename the module"
    )


def test_several_results_are_those_of_the_graph_in_order() -> None:
    net = Calls(lambda net, x: (x, x.relu(), x)).eval()
    nn.init.constant_(net.conv.weight, -1.0)
    model = qfx.calibrate(qfx.convert(net, None, X), [X])
    graph = qfx.lower(model, X)
    found, expected = graph.evaluate(X.numpy(), "NCHW"), qfx.exact(model)(X)
    assert list(found) == list(graph.outputs) and len(expected) == 3
    for name, result in zip(graph.outputs, expected, strict=True):
        assert (found[name] == result.numpy()).all()
    assert (found[graph.outputs[0]] != expected[1].numpy()).any()  # a swapped pair shows


def test_a_layer_written_by_hand_that_returns_a_dict_is_not_lowered() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = qfx.calibrate(qfx.convert(network(), None, X), [X])

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"scores": self.net(x)}

    with pytest.raises(
        LowerError, match="the network's result: it must be a tensor, or a tuple of two or more tensors"
    ):
        qfx.lower(Named(), X)
