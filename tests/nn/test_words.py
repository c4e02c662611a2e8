"""What a new user meets: models that travel by pickle, and refusals that name the cause, the line and the remedy."""

import copy
import io
import operator
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
from qfx.errors import LowerError, TrainError
from tests.nn.nets import RECIPE, Net, digits_like

X = digits_like(16, 0)


def refusal(net: nn.Module, example: Tensor) -> str:
    with pytest.raises(LowerError) as caught:
        qfx.convert(net, None, example)
    return str(caught.value)


class Use(nn.Module):
    """What ``use`` makes of the result of a layer."""

    def __init__(self, use) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.layer, self.use = nn.Linear(8, 8), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.layer(x))


@pytest.mark.parametrize("trained", [False, True])
def test_a_pickled_model_is_the_same_when_it_is_loaded(trained: bool) -> None:
    model = qfx.calibrate(qfx.convert(Net(), RECIPE, X), [X])
    if trained:
        optimizer = torch.optim.AdamW(qfx.param_groups(model.train(), lr=1e-2))
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
    model.eval()
    for _ in range(2):  # and again
        file = io.BytesIO()
        torch.save(copy.deepcopy(model), file)
        file.seek(0)
        found = torch.load(file, weights_only=False)
        assert torch.equal(found(X), model(X)) and torch.equal(qfx.exact(found)(X), qfx.exact(model)(X))
        assert (qfx.lower(found, X).evaluate(X.numpy(), "NCHW") == qfx.exact(model)(X).numpy()).all()
        assert found.state_dict().keys() == model.state_dict().keys()
        assert [row.points for row in qfx.describe(found).rows if row.points] == [
            row.points for row in qfx.describe(model).rows if row.points
        ]
        with torch.no_grad():
            found.stem.weight.neg_()
        assert not torch.equal(qfx.exact(found)(X), qfx.exact(model)(X))  # it has weights of its own
        with torch.no_grad():
            found.stem.weight.neg_()
        model = found


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda y: y * 2 if float(y.max()) > 1 else y, r"of Use must not take a number from data, .*test_words.py:\d+"),
        (lambda y: y * float(y.mean().item()), r"compute with the tensor itself, or take what needs the number out"),
        (lambda y: y * list(range(9))[y.argmax()], r"must not take a number from data"),
        (lambda y: y if y.sum() > 0 else -y, r"without branches or loops that depend on data: .*test_words.py:\d+: "),
        (lambda y: np.tanh(y.detach().numpy()), r"must compute in torch, not in numpy: use torch's function"),
        (lambda y: np.clip(y, 0, 1), r"must compute in torch, not in numpy"),
        (lambda y: y * len(y), r"must leave open how many inputs a batch has"),
    ],
)
def test_what_cannot_be_traced_says_why_and_where(use, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LowerError, match=message):
        qfx.convert(Use(use), None, torch.rand(4, 8))


def test_layers_that_are_not_known_are_listed_beside_a_branch() -> None:
    net = nn.Sequential(Use(lambda y: y if y.sum() > 0 else -y), nn.LayerNorm(8), Use(lambda y: y if y.max() else -y))
    lines = refusal(net, torch.rand(4, 8)).splitlines()
    assert lines[0].startswith("the forward of '0' must be traceable")
    assert lines[0].endswith("; beside that there are layers that qfx does not know:")
    assert lines[1:] == ["  1 (LayerNorm): use nn.BatchNorm2d instead"]


def test_an_argument_with_a_default_is_that_and_one_without_is_named() -> None:
    class Flagged(nn.Module):
        def forward(self, x: Tensor, flag: bool = True, *, mask: Tensor | None = None, **more: int) -> Tensor:
            x = x if flag else -x
            return F.relu(x if mask is None else x * mask)

    class Asked(nn.Module):
        def forward(self, x: Tensor, flag: bool) -> Tensor:
            return F.relu(x) if flag else x

    x = torch.randn(4, 8)
    model = qfx.calibrate(qfx.convert(Flagged(), None, x), [x])
    assert torch.equal(model(x) > 0, x > 1 / 64) or (model(x) - F.relu(x)).abs().max() < 0.05
    assert "of Asked must not branch on its argument 'flag': give it a default, which is then used" in refusal(
        Asked(), x
    )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv2d(1, 2, 3), (1, 8, 8)), (nn.Linear(8, 2), (8,)), (nn.BatchNorm2d(1), (1, 4, 4))]
    + [(nn.ConvTranspose2d(1, 2, 2), (1, 4, 4)), (nn.Conv1d(1, 2, 3), (1, 8)), (qfx.nn.Table(torch.exp), (8,))],
)
def test_a_layer_alone_is_refused_and_converts_in_a_sequential(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(2, *shape)
    said = f"model must be a network of layers, not a {type(layer).__name__} alone: convert nn.Sequential(layer)"
    assert refusal(layer, x) == said
    qfx.convert(nn.Sequential(layer), None, x)


NONE = "there is no fixed-point form of it"


@pytest.mark.parametrize(
    ("use", "line"),
    [
        (lambda y: y @ y.t(), f"matmul (matmul): {NONE}: products of tensors are those of their elements; use"),
        (lambda y: torch.einsum("nc,nc->nc", y, y), f"einsum (einsum): {NONE}: products of tensors are those"),
        (lambda y: F.scaled_dot_product_attention(y, y, y), f"(scaled_dot_product_attention): {NONE}: products"),
        (lambda y: F.layer_norm(y, (8,)), "layer_norm (layer_norm): use nn.BatchNorm2d instead"),
        (lambda y: torch.where(y > 0, y, y * 2), "where (where): use torch.maximum, torch.minimum or clamp, or qfx.nn"),
        (lambda y: y.view_as(y), "view_as (view_as): use torch.flatten(x, 1) instead"),
        (lambda y: y.repeat(1, 1, 2), "repeat (repeat): use x.repeat(1, k, 1, 1) of channels, or nn.Upsample of"),
        (lambda y: y.sort().values, f"sort (sort): {NONE}: compute it behind the network, of its result"),
        (
            lambda y: y.std(1),
            "std (std): use nn.BatchNorm2d, or the mean of x * x less the square of the mean, instead",
        ),
        (lambda y: y * y.mean().item(), f"item (item): {NONE}: keep what it takes from the data a tensor, or take"),
        (lambda y: y + torch.randn_like(y), "(randn_like): use nn.Dropout, or random values in the training data,"),
        (lambda y: torch.fft.fft(y).real, f"fft_fft (fft_fft): {NONE}: compute it before or behind the network"),
    ],
)
def test_a_call_without_a_fixed_point_form_has_a_remedy(use, line: str) -> None:  # type: ignore[no-untyped-def]
    assert line in refusal(Use(use), torch.rand(4, 8))


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (nn.RMSNorm(8), "use nn.BatchNorm2d instead"),
        (nn.LocalResponseNorm(2), "use nn.BatchNorm2d instead"),
        (nn.FractionalMaxPool2d(2, 2), "use nn.MaxPool2d or nn.AdaptiveMaxPool2d instead"),
        (nn.GRU(8, 8), "use convolutions over time, nn.Conv1d with padding and dilation, instead"),
        (nn.TransformerEncoderLayer(8, 2), f"{NONE}: products of tensors are those of their elements; use"),
        (nn.Conv3d(1, 1, 1), "use images whose channels are the frames, (N, C, H, W), and nn.Conv2d and its like inst"),
    ],
)
def test_a_layer_without_a_fixed_point_form_has_a_remedy(layer: nn.Module, line: str) -> None:
    with pytest.raises(LowerError) as caught:
        qfx.convert(nn.Sequential(nn.ReLU(), layer))
    assert f"  1 ({type(layer).__name__}): {line}" in str(caught.value)


def test_tied_weights_that_are_transposed_are_not_called_a_linear() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.e(x), self.e.weight.t())

    assert (
        "linear (linear): its weight must be a parameter itself, not computed of one: use an nn.Linear of its own"
        in (refusal(Tied(), torch.rand(4, 8)))
    )


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    net = Use(operator.neg)
    net.kept = (each for each in [1])  # type: ignore[assignment]
    assert "model must be a network that copy.deepcopy takes, which ends in TypeError" in refusal(net, torch.rand(4, 8))


@pytest.mark.parametrize(("variance", "eps"), [(-1.0, 1e-5), (0.0, 0.0), (float("nan"), 1e-5)])
def test_a_variance_that_is_not_above_zero_is_named(variance: float, eps: float) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=eps)).eval()
    net[1].running_var[0] = variance
    assert refusal(net, torch.rand(2, 1, 4, 4)).startswith("running_var of '1' must be above 0 where eps is added, not")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("u4.4", r"weight_quant' should hold .* % of them are negative"),
        ("s4.5", r"should hold .* of them saturate: s4.5"),
    ],
)
def test_a_stated_format_that_loses_many_values_is_warned_of(weight: str, message: str) -> None:
    net, x = nn.Sequential(nn.Linear(8, 16)), torch.rand(8, 8)
    with torch.no_grad():
        net[0].weight.copy_(torch.linspace(-0.99, 1, 128)[torch.randperm(128)].reshape(16, 8))
    with pytest.warns(UserWarning, match=message):
        qfx.calibrate(qfx.convert(net, {"default": {"weight": weight}}, x), [x])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        qfx.calibrate(qfx.convert(net, {"default": {"weight": "s4.3"}}, x), [x])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"weight": {"width": 8, "digits": {"k": 20}}}, r"must be at most 7, the digits that 8 bits have .*, not 20"),
        ({"activation": 0}, r"recipe key 'default.activation' must be at least one bit wide, not 0"),
        ({"elementwise": {"width": 0}}, r"recipe key 'default.elementwise' must be at least one bit wide, not 0"),
    ],
)
def test_a_recipe_that_leaves_nothing_or_asks_for_too_much_is_refused(recipe, message) -> None:  # type: ignore
    with pytest.raises(TrainError, match=message):
        qfx.convert(Net(), {"default": recipe}, X)


def test_only_the_shape_of_lowers_example_counts() -> None:
    model = qfx.calibrate(qfx.convert(Net(), RECIPE, X), [X]).eval()
    one, other = qfx.lower(model, X), qfx.lower(model, torch.full_like(X, float("nan")))
    assert (one.evaluate(X.numpy(), "NCHW") == other.evaluate(X.numpy(), "NCHW")).all()
    with pytest.raises(TrainError, match="NaN or infinity is among its values: look at the data"):
        qfx.exact(model)(torch.full_like(X, float("nan")))
