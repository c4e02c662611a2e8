"""K of each channel, stated or learned: the nearest word exactly, digits counted as the graph does, and a budget."""

import warnings
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
import qfx.nn as qnn
from qfx.errors import LowerError, QfxError, TrainError
from qfx.fixed import digits_of
from qfx.fixed.khot import nested_magnitudes
from qfx.graph import verify
from qfx.nn.channel_digits import cast_channel_digits, round_k, words

WORD = {"width": 8, "digits": {"k": 3, "signed": True, "learn": True}}


def brute(value: float, width: int, k: int, signed: bool) -> int:
    """The magnitude with at most k digits nearest to a size, the smaller one at a tie, by looking at all of them."""
    allowed = [code for code in range(1 << (width - 1)) if len(digits_of(code, width, signed)) <= k]
    return min(allowed, key=lambda code: (abs(code - value), code))


@pytest.mark.parametrize(("width", "signed"), [(2, False), (5, True), (6, False), (7, True)])
def test_each_channel_takes_the_nearest_of_all_words_with_its_own_k(width: int, signed: bool) -> None:
    sizes = np.arange(0, (1 << (width - 1)) + 2, 0.25)  # ties among them, and sizes beyond the largest word
    table = words(width, signed)
    x = torch.tensor(np.concatenate([sizes, -sizes])).float().repeat(table.most + 1, 1)
    k = torch.arange(table.most + 1) + 0.3
    for frac in (0.0, 3.0):
        y = cast_channel_digits(x * 2.0**-frac, torch.tensor(frac), k, table, 7) * 2.0**frac
        for row in range(table.most + 1):
            expected = [np.copysign(brute(abs(v), width, row, signed), v) for v in x[row].tolist()]
            assert y[row].tolist() == expected


def test_another_k_gives_other_words() -> None:  # the comparison above would see it
    table, x = words(8, True), torch.tensor([[91.0], [91.0]])
    y = cast_channel_digits(x, torch.tensor(0.0), torch.tensor([2.0, 3.0]), table, 127)
    assert y[:, 0].tolist() == [brute(91, 8, 2, True), brute(91, 8, 3, True)] and y[0] != y[1]


@pytest.mark.parametrize("signed", [False, True])
def test_one_k_for_all_channels_gives_the_words_of_a_plain_k(signed: bool, rng: np.random.Generator) -> None:
    weight = torch.tensor(rng.normal(0, 1, (4, 3, 3, 3))).float()
    found = []
    for k in (2, (2, 2, 2, 2)):
        spec = qnn.Spec(8, 5, True, per_channel=True, digits=qnn.Digits(k, signed))
        quantizer = qnn.Quantizer(spec, 4)
        found.append((quantizer(weight), quantizer.codes(weight), quantizer.max_digits))
    assert torch.equal(found[0][0], found[1][0]) and (found[0][1] == found[1][1]).all() and found[0][2] == found[1][2]


@pytest.mark.parametrize("signed", [False, True])
def test_digits_never_fall_with_k(signed: bool) -> None:
    _, levels, digits = nested_magnitudes(8, signed)
    assert (np.diff(digits, axis=0) >= 0).all()
    assert all(len(digits_of(int(c), 8, signed)) == n for c, n in zip(levels.flat, digits.flat, strict=True))


def test_gradients_are_those_of_the_weights_and_of_the_error_between_two_k() -> None:
    x = torch.tensor([[0.45, -0.35], [5.2, 0.1]], requires_grad=True)
    frac, k = torch.tensor([7.0, 4.0], requires_grad=True), torch.tensor([1.4, 2.0], requires_grad=True)
    table, weights = words(8, True), torch.tensor([[2.0, -3.0], [1.0, 4.0]])
    (cast_channel_digits(x, frac, k, table, 127) * weights).sum().backward()
    expected = []
    for row, (lower, step) in enumerate(((1, 2.0**-7), (2, 2.0**-4))):
        sizes = (x.detach()[row].abs() / step).tolist()
        gain = [abs(size - brute(size, 8, lower, True)) - abs(size - brute(size, 8, lower + 1, True)) for size in sizes]
        expected.append(-sum(abs(w) * g * step for w, g in zip(weights[row].tolist(), gain, strict=True)))
    assert k.grad.tolist() == pytest.approx(expected) and (k.grad < 0).all()
    assert torch.equal(x.grad, weights)  # straight through, nothing is clipped
    assert frac.grad.abs().min() > 0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.PReLU(6),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def images() -> torch.Tensor:
    return torch.randint(0, 16, (64, 2, 7, 7), generator=torch.Generator().manual_seed(1)).float()


def fixed(**points: object) -> nn.Module:
    """A network whose weights, BatchNorm constants and slopes learn their K."""
    x = images()
    net = network()
    net(x)
    recipe = {"default": {"input": "u4.0", "weight": WORD, "constant": WORD, **points}}
    return qnn.calibrate(qnn.convert(net, recipe, x).eval(), [x])


def in_graph(model: nn.Module) -> dict[str, int]:
    """The digits of each K-hot constant of the graph, counted one by one; pools have none of training's."""
    graph = qfx.lower(model, images()[:1])
    verify(graph)
    return {
        name: sum(len(digits_of(int(code), c.fixed.width, c.signed_digits)) for code in c.codes.flat)
        for name, c in graph.constants.items()
        if c.max_digits is not None and not name.startswith("6.")
    }


def with_k(model: nn.Module, seed: int) -> nn.Module:
    """Give each channel a K of its own."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for quantizer in qnn.quantizers(model).values():
            if quantizer.k is not None:
                quantizer.k.copy_(torch.rand(quantizer.k.shape, generator=random) * 4)
    return model


def test_the_count_is_that_of_the_graphs_constants() -> None:
    model = with_k(fixed(), 3)
    counted = qnn.digits_by_constant(model)
    lowered = in_graph(model)
    shifts = {path for path in counted if path.endswith("shift_quant")}  # the graph adds them: they are no factors
    assert sum(n for path, n in counted.items() if path not in shifts) == sum(lowered.values())
    assert int(qnn.nonzero_digits(model)) == sum(counted.values())
    assert len(counted) == 8 and len(lowered) == 6


def test_the_gradient_of_the_count_is_what_one_digit_more_adds() -> None:
    model = with_k(fixed(), 4)
    quantizer = model.get_submodule("3").weight_quant
    with torch.no_grad():
        quantizer.k.copy_(torch.tensor([0.0, 1.0, 2.4, 3.0]))
    qnn.nonzero_digits(model).backward()
    for channel, k in enumerate((0, 1, 2, 3)):
        counts = []
        for each in (k, k + 1):
            with torch.no_grad():
                quantizer.k[channel] = each
            counts.append(qnn.digits_by_constant(model)["3.weight_quant"])
        assert quantizer.k.grad[channel].item() == counts[1] - counts[0] > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_model_with_a_k_for_each_channel_computes_the_integers_of_its_graph(seed: int) -> None:
    model, x = with_k(fixed(), seed), images()
    graph = qfx.lower(model, x)
    assert (graph.evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()
    before = graph.constants["3.weight"]
    assert before.max_digits == int(model.get_submodule("3").weight_quant.k_now.max())
    with torch.no_grad():
        model.get_submodule("3").weight_quant.k.fill_(1.0)  # planted: another K, other integers
    assert (graph.evaluate(x.numpy(), "NCHW") != qnn.exact(model)(x).numpy()).any()


def test_a_list_states_the_k_of_each_channel() -> None:
    x = images()
    recipe = {
        "default": {"input": "u4.0"},
        "layers": {"3": {"weight": {"digits": {"k": [1, 0, 3, 2]}}}, "1": {"constant": {"digits": {"k": [2, 1] * 3}}}},
    }
    model = qnn.calibrate(qnn.convert(network(), recipe, x).eval(), [x])
    codes = model.get_submodule("3").constants()["weight"].codes
    most = [max(len(digits_of(int(c), 8, False)) for c in codes[..., channel].flat) for channel in range(4)]
    assert most == [1, 0, 3, 2]
    assert not any(quantizer.learns_digits for quantizer in qnn.quantizers(model).values())
    assert (qfx.lower(model, x).evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()


def test_limit_digits_keeps_its_budget_and_prunes_only_where_it_must() -> None:
    for budget in (700, 500, 400, 60):
        model = fixed()
        assert qnn.limit_digits(model, budget) <= budget
        assert sum(in_graph(model).values()) <= budget
        pruned = any((move.now == np.array(0)).any() for move in map(_Now, qnn.digit_moves(model).values()))
        assert pruned == (budget == 60)
    assert qnn.limit_digits(model, 10**6) == int(qnn.nonzero_digits(model))  # what fits stays as it is


class _Now:
    def __init__(self, move: qnn.Move) -> None:
        self.now = np.array(move.now)


def test_limit_digits_takes_the_k_of_least_error(rng: np.random.Generator) -> None:
    x = torch.zeros(2, 5)
    net = nn.Sequential(nn.Linear(5, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor(rng.normal(0, 1, (3, 5))))
    recipe = {"default": {"input": "u4.0", "weight": {"width": 8, "digits": {"k": 4, "signed": True, "learn": True}}}}
    model = qnn.calibrate(qnn.convert(net, recipe, x).eval(), [x])
    quantizer, weight = model.get_submodule("0").weight_quant, net[0].weight.detach()

    start = quantizer.frac.detach().clone()

    def measured(words: Sequence[tuple[float, float]]) -> tuple[int, list[float]]:
        """The digits, and the error of each channel, with these K and so many fraction bits less."""
        with torch.no_grad():
            for channel, (k, coarser) in enumerate(words):
                quantizer.k[channel], quantizer.frac[channel] = k, start[channel] - coarser
        error = ((quantizer(weight.double()) - weight) ** 2).sum(1) / (weight.double() ** 2).sum(1)
        return int(qnn.nonzero_digits(model)), error.tolist()

    def nearer(channel: int, k: int) -> tuple[int, int]:
        errors = [measured([(k, coarser)] * 3)[1][channel] for coarser in (0, 1)]
        return k, int(k < 4 and errors[1] < errors[0])

    each = [[nearer(channel, k) for k in range(1, 5)] for channel in range(3)]
    choices = [measured(words) for words in product(*each)]
    for budget in range(16, 40, 3):
        measured(((4, 0),) * 3)
        reached = qnn.limit_digits(model, budget)
        digits, errors = measured([*zip(quantizer.k.tolist(), (start - quantizer.frac).tolist(), strict=True)])
        assert digits == reached
        assert sum(errors) == pytest.approx(min(sum(e) for digits, e in choices if digits <= reached))


def test_a_channel_takes_a_fraction_bit_less_where_its_words_of_fewer_digits_end_too_low() -> None:
    x, net = torch.zeros(2, 4), nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.8, -0.8, 0.8, 0.7], [0.8, 0.1, 0.3, 0.45]]))
    recipe = {"default": {"input": "u4.0", "weight": {"width": 8, "digits": {"k": 4, "signed": True, "learn": True}}}}
    model = qnn.calibrate(qnn.convert(net, recipe, x).eval(), [x])
    quantizer = model.get_submodule("0").weight_quant
    start = quantizer.frac.detach().clone()
    assert qnn.limit_digits(model, 8) == 8 and quantizer.k.tolist() == [1, 1]
    assert (start - quantizer.frac).tolist() == [1, 1]
    assert quantizer(net[0].weight)[0].tolist() == [1.0, -1.0, 1.0, 0.5]  # 1.0 ends the words of one digit now


def test_a_price_on_digits_lowers_k_where_the_loss_allows() -> None:
    x, model = images(), fixed()
    y = (x[:, 0, :3].sum((1, 2)) > x[:, 0, 3:].sum((1, 2)) * 0.75).long()
    start = int(qnn.nonzero_digits(model))
    optimizer = torch.optim.Adam(qnn.param_groups(model.train(), lr=1e-2, frac_lr=0.05))
    for _ in range(60):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + 1e-3 * qnn.nonzero_digits(model)).backward()
        optimizer.step()
    qnn.freeze_formats(model.eval())
    assert int(qnn.nonzero_digits(model)) < 0.7 * start
    assert sum(move.moved for move in qnn.digit_moves(model).values()) > 5
    assert (qfx.lower(model, x).evaluate(x.numpy(), "NCHW") == qnn.exact(model)(x).numpy()).all()


def test_freezing_stops_k_at_integers() -> None:
    model = with_k(fixed(), 5)
    qnn.freeze_formats(model)
    quantizer = model.get_submodule("0").weight_quant
    assert torch.equal(quantizer.k, round_k(quantizer.k, 4)) and not quantizer.k.requires_grad
    assert len(qnn.param_groups(model, 1e-3)) == 1
    qnn.freeze_formats(model, frozen=False)
    assert quantizer.k.requires_grad


def test_k_for_each_channel_compiles_without_a_graph_break() -> None:
    model, x = with_k(fixed(), 6), images()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), model(x))


def test_a_state_dict_restores_learned_k() -> None:
    model, x = with_k(fixed(), 7), images()
    other = fixed()
    assert not np.array_equal(qnn.exact(other)(x).numpy(), qnn.exact(model)(x).numpy())
    other.load_state_dict(model.state_dict())
    assert np.array_equal(qnn.exact(other)(x).numpy(), qnn.exact(model)(x).numpy())
    report = qnn.load(network(), model.state_dict())  # the float network takes the weights
    assert not report.missing and any(key.endswith(".k") for key in report.unexpected)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        ({"digits": {"k": [1, 2]}}, r"3 \(Conv2d\): its digits must have one k, or a list of one for each of its 4"),
        ({"digits": {"k": []}}, r"'layers.3.weight.digits.k' must be at least 0 for each channel, and above 0 for one"),
        ({"digits": {"k": [0, 0]}}, r"'layers.3.weight.digits.k' must be at least 0 for each channel.*not \[0, 0\]"),
        ({"digits": {"k": ["two"]}}, r"'layers.3.weight.digits.k' must be an integer, or a list of one for each"),
        ({"digits": {"k": "learn"}}, r"'layers.3.weight.digits.k' must be an integer, or a list of one for each"),
        ({"digits": {"k": 2, "learn": 1}}, r"'layers.3.weight.digits.learn' must be true or false, not 1"),
        (
            {"width": 17, "digits": {"k": 2, "learn": True}},
            r"a word with a K for each channel must have a width in 2..16, not 17, in recipe key 'layers.3.weight'",
        ),
    ],
)
def test_an_impossible_k_is_refused(weight: dict, said: str) -> None:
    with pytest.raises(QfxError, match=said):
        qnn.convert(network(), {"layers": {"3": {"weight": weight}}}, images())


def test_a_k_for_each_channel_is_refused_where_there_is_one_constant_or_none() -> None:
    with pytest.raises(TrainError, match=r"'layers.3.activation.digits' must stand at one of weight, constant, not at"):
        qnn.convert(network(), {"layers": {"3": {"activation": {"digits": {"k": [1] * 6}}}}}, images())
    with pytest.raises(LowerError, match=r"6 \(AvgPool2d\): its digits must have one k, or a list of one for each of"):
        qnn.convert(network(), {"layers": {"6": {"constant": {"digits": {"k": [1] * 4}}}}}, images())


def test_an_impossible_budget_is_refused() -> None:
    with pytest.raises(TrainError, match=r"must leave room for the 3\d\d non-zero digits of constants whose K is not"):
        qnn.limit_digits(fixed(weight={"width": 8, "digits": {"k": 1}}), 20)
    with pytest.raises(TrainError, match="budget must be a number of digits, not 1.5"):
        qnn.limit_digits(fixed(), 1.5)  # type: ignore[arg-type]
