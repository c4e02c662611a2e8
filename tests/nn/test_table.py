"""Functions of a single element: what training computes, and the table that evaluation reads."""

import copy
import re
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx.nn as qnn
from qfx.errors import LowerError, TrainError
from qfx.fixed import decode
from qfx.nn.calibrate import floating
from qfx.train import Data, Settings, fit

LAYERS = {
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(inplace=True),
    "tanh": nn.Tanh(),
    "silu": nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "mish": nn.Mish(),
    "elu": nn.ELU(0.7),
    "softplus": nn.Softplus(2.0, 10.0),
    "leaky_relu": nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU(init=0.15),
    "selu": nn.SELU(inplace=True),
    "celu": nn.CELU(0.6),
    "log_sigmoid": nn.LogSigmoid(),
    "softsign": nn.Softsign(),
    "softshrink": nn.Softshrink(0.3),
    "hardshrink": nn.Hardshrink(0.4),
    "tanhshrink": nn.Tanhshrink(),
    "threshold": nn.Threshold(0.1, -0.5),
}
CALLS = {
    "sigmoid": (F.sigmoid, torch.sigmoid, lambda x: x.sigmoid(), lambda x: x.sigmoid_()),
    "hardsigmoid": (F.hardsigmoid,),
    "tanh": (F.tanh, torch.tanh, lambda x: x.tanh(), lambda x: x.tanh_()),
    "silu": (F.silu, partial(F.silu, inplace=True)),
    "hardswish": (F.hardswish,),
    "gelu": (F.gelu,),
    "gelu_tanh": (partial(F.gelu, approximate="tanh"),),
    "mish": (F.mish,),
    "elu": (lambda x: F.elu(x, 0.7), partial(F.elu, alpha=0.7, inplace=True)),
    "softplus": (lambda x: F.softplus(x, 2.0, 10.0), partial(F.softplus, beta=2, threshold=10)),
    "selu": (F.selu, torch.selu, partial(F.selu, inplace=True)),
    "celu": (partial(F.celu, alpha=0.6), lambda x: torch.celu(x, 0.6)),
    "log_sigmoid": (F.logsigmoid,),
    "softsign": (F.softsign,),
    "softshrink": (lambda x: F.softshrink(x, 0.3),),
    "hardshrink": (lambda x: F.hardshrink(x, 0.4), lambda x: x.hardshrink(0.4)),
    "tanhshrink": (F.tanhshrink,),
    "threshold": (lambda x: F.threshold(x, 0.1, -0.5),),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), partial(F.leaky_relu, negative_slope=0.2)),
}


class Call(nn.Module):
    def __init__(self, call) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class Slopes(nn.Module):
    """A slope that the network owns, in both spellings of a call, and one module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.act, self.fc = nn.Parameter(torch.tensor([0.3])), nn.PReLU(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc(torch.prelu(x, self.slope)))
        return self.fc(self.act(F.prelu(x, weight=self.slope)))


def some(count: int = 64) -> Tensor:
    return torch.linspace(-6, 6, count * 4).reshape(count, 4)


def converted(network: nn.Module, x: Tensor, recipe: dict | None = None) -> nn.Module:
    return qnn.calibrate(qnn.convert(network, recipe, x), [x])


def table_of(model: nn.Module) -> qnn.Table:
    (found,) = (module for module in model.modules() if isinstance(module, qnn.Table))
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_the_converted_layer_in_float_is_torchs(name: str) -> None:
    layer, x = LAYERS[name], some()
    model = qnn.convert(layer, None, x)
    with floating(model):
        assert torch.equal(model(x.clone()), copy.deepcopy(layer)(x.clone()))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("recipe", [{}, {"elementwise": 5}, {"elementwise": 12, "input": 12}])
def test_evaluation_reads_the_table_in_every_dtype(name: str, recipe: dict) -> None:
    model = converted(LAYERS[name], some(), {"default": recipe}).eval()
    layer = table_of(model)
    given, found = layer.input_quant.format(), layer.constants()["table"]
    every = np.arange(given.min_code, given.max_code + 1)
    x = torch.tensor(decode(every, given)).reshape(-1, 1)
    expected = decode(found.codes, found.fixed)
    for dtype in (torch.float32, torch.float64):
        y = layer(x.to(dtype))
        assert y.dtype == dtype and (y.detach().double().numpy().ravel() == expected).all()
    assert (qnn.exact(layer)(x).numpy().ravel() == expected).all()
    assert found.codes.shape == (1 << given.width,) and len(np.unique(expected)) > 4
    with torch.no_grad():
        off = layer(x + 2.0**-given.scalar_frac)  # the next code: nothing but the right entry will do
    assert (off.double().numpy().ravel() != expected).any()


def test_the_table_is_not_what_float32_rounds_to() -> None:
    """Halfway between two codes in float32, not in float64: only the table says which."""
    layer = qnn.Table(lambda x: x * 0.1 * 5, input_spec=qnn.Spec(12, 0, True), output_spec=qnn.Spec(12, 0, True))
    x = torch.arange(-2048.0, 2048.0)[:, None]
    found = layer.eval()(x)
    trained = layer.train()(x)
    assert (found != trained).any() and (found - trained).abs().max() <= 1
    assert (found.ravel().numpy() == layer.constants()["table"].codes).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_function(training: bool) -> None:
    layer = qnn.Table(F.silu, input_spec=qnn.Spec(8, 5, True), output_spec=qnn.Spec(8, 5, True)).train(training)
    codes = torch.arange(-96.0, 97.0)[:, None] / 32
    x, plain = codes.clone().requires_grad_(), codes.clone().requires_grad_()
    layer(x).sum().backward()
    F.silu(plain).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)


def test_the_table_follows_the_slope_that_training_learns() -> None:
    x = torch.tensor([[-4.0], [-2.0], [1.0], [3.0]])
    model = converted(nn.PReLU(init=0.0), x)
    assert (model.eval()(x)[:2] == 0).all()
    optimizer = torch.optim.SGD(qnn.param_groups(model.train(), 0.05), 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        F.mse_loss(model(x), F.leaky_relu(x, -0.25)).backward()
        optimizer.step()
    slope = table_of(model).weight.item()
    assert slope == pytest.approx(-0.25, abs=0.05)
    assert model.eval()(x)[:2].ravel().tolist() == pytest.approx([-4 * slope, -2 * slope], abs=0.02)


def test_slopes_keep_the_keys_of_the_float_network() -> None:
    network, x = Slopes(), some()
    model = converted(network, x)
    assert {key for key in model.state_dict() if "quant" not in key and "put." not in key} == {*network.state_dict()}
    tables = [module for module in model.modules() if isinstance(module, qnn.Table)]
    assert [table.weight is model.slope for table in tables] == [
        table.weight is not model.act.weight for table in tables
    ]
    assert (
        len(tables) == 4 and len([p for p, _ in model.named_parameters() if "quant" not in p and "put" not in p]) == 4
    )
    assert not qnn.load(model, network.state_dict()).unexpected
    later = copy.deepcopy(model).double()
    assert later.prelu.weight is later.slope and later.slope.dtype == torch.float64
    model.eval()(x).sum().backward()
    assert model.slope.grad.abs() > 0 and model.act.weight.grad.abs() > 0


@pytest.mark.parametrize(("name", "number"), [(name, n) for name, calls in CALLS.items() for n in range(len(calls))])
def test_a_call_is_the_layer(name: str, number: int) -> None:
    x = some()
    call, layer = (converted(net, x).eval() for net in (Call(CALLS[name][number]), LAYERS[name]))
    assert torch.equal(call(x), layer(x)) and (table_of(call).constants()["table"].codes).any()


class Channels(nn.Module):
    """A PReLU with a slope for each channel as a module that is called twice, and as calls."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.slopes = nn.PReLU(3), nn.Parameter(torch.tensor([0.5, -0.25, 0.1]))
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(self.act(self.conv(self.act(x))), self.slopes)


def channels() -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(2)
    network, x = Channels(), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        network.act.weight.copy_(torch.tensor([0.3, 0.0, -0.7]))
    return network, converted(network, x), x


def test_a_slope_for_each_channel_is_a_layer_of_its_own() -> None:
    network, model, x = channels()
    assert {key for key in model.state_dict() if "quant" not in key and "put." not in key} == {*network.state_dict()}
    assert isinstance(model.act, qnn.PReLU) and model.prelu.weight is model.slopes
    assert model.act_1.weight is model.act.weight and model.act_1.slope_quant is model.act.slope_quant
    with floating(model):
        torch.testing.assert_close(model(x), network(x))
    layer = model.eval().act
    given, slope = layer.input_quant(x), layer.constants()["slope"]
    real = torch.tensor(decode(slope.codes, slope.fixed)).reshape(1, 3, 1, 1)
    expected = layer.output_quant(given.double().clamp(min=0) + real * given.double().clamp(max=0))
    assert torch.equal(layer(x).double(), expected) and torch.equal(qnn.exact(layer)(x), expected)
    assert not torch.equal(expected, layer.output_quant(torch.where(given > 0, given, given * real.flip(1)).double()))
    model.train()(x).sum().backward()
    assert model.act.weight.grad.ne(0).all() and model.slopes.grad.ne(0).any()


def test_slopes_for_channels_are_refused_where_they_have_none() -> None:
    network = nn.Sequential(nn.Flatten(), nn.PReLU(8), nn.Linear(8, 2))
    with pytest.raises(LowerError, match=r"1 \(PReLU\): it must not read a flattened image: put it before the Flatten"):
        qnn.convert(network, None, torch.rand(2, 2, 2, 2))
    wide = qnn.PReLU(
        1, constant_spec=qnn.Spec(30, 3, True), input_spec=qnn.Spec(30, 3, True), output_spec=qnn.Spec(8, 0, True)
    )
    with pytest.raises(TrainError, match="of '0' must have at most 53 bits together, not 60"):
        qnn.exact(nn.Sequential(wide))(torch.ones(1, 1))


def test_a_table_shares_the_format_of_a_batch_norm_before_it_and_gives_its_own_to_a_pool_behind() -> None:
    x = torch.rand(4, 2, 4, 4)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.SiLU(), nn.MaxPool2d(2))
    model = converted(network, x)
    assert model.get_submodule("2").input_quant is model.get_submodule("1").output_quant
    assert model.get_submodule("3").input_quant is model.get_submodule("2").output_quant


@pytest.mark.parametrize(
    ("layer", "recipe", "message"),
    [
        (nn.Tanh(), {"elementwise": 13, "input": 12}, ""),
        (nn.Tanh(), {"input": 13}, r"\(Tanh\): its input must be at most 12 bits wide at 'elementwise', not 13"),
        (nn.Softmin(1), {}, r"\(Softmin\): use nn.Softmax\(1\) of the negative"),
    ],
)
def test_what_has_no_table_is_refused(layer: nn.Module, recipe: dict, message: str) -> None:
    if not message:
        assert table_of(qnn.convert(layer, {"default": recipe})).output_quant.width == 13
        return
    with pytest.raises(LowerError, match=message):
        qnn.convert(nn.Sequential(layer), {"default": recipe})


def test_a_function_that_is_not_finite_somewhere_is_refused_in_lowering() -> None:
    layer = qnn.Table(torch.reciprocal, input_spec=qnn.Spec(4, 0, True), output_spec=qnn.Spec(8, 6, True))
    qnn.calibrate(nn.Sequential(layer), [torch.ones(1, 1)])
    with pytest.raises(LowerError, match="must be finite at every code of its input, but of s4.0 it is inf at 0"):
        layer.constants()
    wide = qnn.Table(torch.tanh, input_spec=qnn.Spec(13, 0, True), output_spec=qnn.Spec(8, 6, True))
    with pytest.raises(LowerError, match="must be at most 12 bits wide at point 'elementwise', not 13"):
        wide.eval()(torch.ones(1, 1))


BEFORE = "must be calibrated before it runs: call qfx.calibrate(model, batches) once after qfx.convert"
STATED = qnn.Spec(8, 4, True)


@pytest.mark.parametrize(
    ("specs", "open_"),
    [({}, "input"), ({"output_spec": STATED}, "input"), ({"input_spec": STATED}, "output")],
)
def test_a_table_without_formats_is_its_function_in_a_float_network_and_refused_in_fixed_point(
    specs: dict, open_: str
) -> None:
    x, y = some(), torch.arange(64) % 4
    table, once = qnn.Table(torch.sin, **specs), Settings(epochs=1, lr=0.01, batch=32)
    in_float = nn.Sequential(nn.Linear(4, 4), table)
    fit(in_float, Data(x, y, x, y), once)
    assert torch.equal(in_float(x), torch.sin(in_float[0](x)))
    in_fixed = nn.Sequential(qnn.Linear(4, 4, weight_spec=STATED, input_spec=STATED), table)
    for refusing in (
        lambda: qnn.exact(in_fixed)(x),
        lambda: qnn_lower(in_fixed, x),
        lambda: fit(in_fixed, Data(x, y, x, y), once),
    ):
        with pytest.raises((TrainError, LowerError), match=re.escape(f"quantizer '1.{open_}_quant' {BEFORE}")):
            refusing()
    qnn.calibrate(in_fixed, [x])
    fit(in_fixed, Data(x, y, x, y), once)
    found = qnn.exact(in_fixed)(x)
    assert (qnn_lower(in_fixed, x).evaluate(x.numpy()) == found.numpy()).all()
    assert not torch.equal(found, torch.sin(x.double())), "a planted one that gives f itself"


def test_a_softmax_whose_tables_have_no_formats_is_refused_though_its_own_are_stated() -> None:
    formats = {"input": "s8.4", **dict.fromkeys(("elementwise", "output"), {"width": 8, "frac": 4, "signed": True})}
    x = torch.randn(2, 4, 3, 3)
    model = qnn.convert(nn.Softmax(1), {"default": formats}, x)
    for running in (model, qnn.exact(model)):
        with pytest.raises(TrainError, match=re.escape(f"quantizer 'softmax.exp.input_quant' {BEFORE}")):
            running(x)
    assert qnn.exact(qnn.calibrate(model, [x]))(x).abs().max() <= 1


def test_nan_goes_through_a_table() -> None:
    layer = qnn.Table(torch.tanh, input_spec=qnn.Spec(8, 4, True), output_spec=qnn.Spec(8, 6, True)).eval()
    with torch.no_grad():
        assert layer(torch.tensor([[torch.nan]])).isnan().all()


@pytest.mark.parametrize("training", [True, False])
def test_a_table_compiles_without_a_graph_break(training: bool) -> None:
    model = converted(Slopes(), some()).train(training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(some()), model(some()))


LEARNED = {
    "default": {"input": "s6.3", "output": {"width": 8, "frac": 4}, "elementwise": {"width": 6, "frac": 4}},
    "layers": {"*": {"table": "learned"}},
}


def learned(seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A table of tanh whose entries have moved by random amounts."""
    x = some()
    model = converted(nn.Tanh(), x, LEARNED).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        table_of(model).offset += torch.rand(64, generator=random) - 0.5
    return model, x


def fit_curve(recipe: dict, steps: int = 200) -> tuple[nn.Module, float]:
    """Train a table that begins as tanh to give another curve, all formats fixed; its loss then, in evaluation."""
    x = some(256) * 0.65
    target = torch.tanh(x) * torch.cos(x) * 1.5
    model = converted(nn.Tanh(), x, recipe)
    optimizer = torch.optim.Adam([*model.train().parameters()], lr=3e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(x), target).backward()
        optimizer.step()
    return model.eval(), F.mse_loss(model(x), target).item()


def test_a_learned_table_begins_as_its_function() -> None:
    x = some()
    plain = {**LEARNED, "layers": {"*": {"table": "function"}}}
    found = [converted(nn.Tanh(), x, recipe) for recipe in (LEARNED, plain)]
    assert torch.equal(*(model.train()(x) for model in found)) and torch.equal(*(model.eval()(x) for model in found))
    assert table_of(found[0]).offset is not None and table_of(found[1]).offset is None


def test_learned_entries_move_and_reach_what_the_function_cannot() -> None:
    model, loss = fit_curve(LEARNED)
    fixed, before = fit_curve({**LEARNED, "layers": {"*": {"table": "function"}}}, 0)  # there is nothing to train
    assert loss < 0.01 < 0.2 < before, (loss, before)
    assert (table_of(model).offset.abs() > 0.1).sum() > 10
    x = some()
    graph = qnn_lower(model, x)
    assert (graph.evaluate(x.numpy()) == qnn.exact(model)(x).numpy()).all()
    assert (graph.evaluate(x.numpy()) != qnn.exact(fixed)(x).numpy()).any()  # the comparison sees other entries


def qnn_lower(model: nn.Module, x: Tensor):  # type: ignore[no-untyped-def]
    from qfx.graph.lower import lower

    return lower(model, x)


def test_the_graph_holds_the_learned_entries() -> None:
    model, x = learned()
    graph = qnn_lower(model, x)
    (lookup,) = (constant for name, constant in graph.constants.items() if name.endswith("table"))
    inputs = torch.arange(-32, 32).double() / 8
    entries = torch.tanh(inputs) + table_of(model).offset.detach().double()
    assert (lookup.codes == np.floor(entries.numpy() * 16 + 0.5).clip(-32, 31)).all()
    assert (graph.evaluate(x.numpy()) == qnn.exact(model)(x).numpy()).all()


def test_an_entry_learns_from_the_values_that_take_it_and_the_input_from_its_neighbours() -> None:
    model, _ = learned()
    table = table_of(model.train())
    x = torch.tensor([[0.25, 0.25, -4.0, 0.5]], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 5.0, 7.0]])
    (table(x) * weights).sum().backward()
    expected = torch.zeros(64)
    expected[[34, 0, 36]] = torch.tensor([3.0, 5.0, 7.0])
    assert torch.equal(table.offset.grad, expected)
    slope = (table.offset[35] - table.offset[33]) / 2 * 8 + 1 - torch.tanh(torch.tensor(0.25)) ** 2
    assert x.grad[0, 0].item() == pytest.approx(slope.item())
    first = (table.offset[1] - table.offset[0]) * 8 + 1 - torch.tanh(torch.tensor(-4.0)) ** 2
    assert x.grad[0, 2].item() == pytest.approx(5 * first.item(), rel=1e-4)


def test_learned_entries_are_saved_and_a_float_network_leaves_them_out() -> None:
    model, x = learned()
    other = converted(nn.Tanh(), x, LEARNED).eval()
    assert not torch.equal(qnn.exact(other)(x), qnn.exact(model)(x))
    report = qnn.load(other, model.state_dict())
    assert torch.equal(qnn.exact(other)(x), qnn.exact(model)(x)) and not report.unexpected
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    both = converted(net, x, {"layers": {"1": {"table": "learned"}}})
    assert "1.offset" in qnn.load(both, net.state_dict()).missing
    assert "1.offset" in qnn.load(net, both.state_dict()).unexpected


def test_a_learned_table_compiles_without_a_graph_break() -> None:
    model, x = learned()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), model(x))


def test_a_module_called_twice_learns_one_table() -> None:
    x = some()
    model = converted(Slopes(), x, {"layers": {"act*": {"table": "learned", "elementwise": 5}}})
    assert [name for name, _ in model.named_parameters() if name.endswith("offset")] == ["act.offset"]
    model.train()(x).square().sum().backward()
    assert model.get_submodule("act").offset.grad.abs().sum() > 0
    with pytest.raises(LowerError, match=r"called twice with one learned table: its input must have 5 bits.* not 4"):
        qnn.convert(
            Slopes(), {"layers": {"act": {"table": "learned", "elementwise": 5}, "act_1": {"elementwise": 4}}}, x
        )


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ({"0": {"table": "learn"}}, "'layers.0.table' must be one of function, learned, not 'learn'"),
        ({"1": {"table": "learned"}}, r"'layers.1.table' must match a layer that has this point; '1' has"),
        (
            {"0": {"table": "learned", "elementwise": {"width": 6, "learn_width": True}}},
            r"0 \(Tanh\): its input must have no learn_width at 'elementwise', since its table is learned",
        ),
    ],
)
def test_what_cannot_be_a_learned_table_is_refused(layers: dict, said: str) -> None:
    with pytest.raises((LowerError, TrainError), match=said):
        qnn.convert(nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), {"layers": layers}, some())
