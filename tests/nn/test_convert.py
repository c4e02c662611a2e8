"""convert: what it makes of a float model, what it shares, and what it refuses."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qfx
import qfx.nn as qnn
from qfx.errors import LowerError, TrainError
from qfx.nn import calibrate, convert, quantizers
from qfx.nn.calibrate import floating
from tests.nn.nets import RECIPE, Net, digits_like


def test_a_converted_model_in_float_equals_the_float_model() -> None:
    net, x = Net(), digits_like(16, 0)
    with torch.no_grad():
        for p in net.parameters():  # BatchNorm beyond its initial 1 and 0
            p.add_(0.05 * torch.randn_like(p))
    for training in (False, True):
        model = convert(net.train(training), RECIPE, x)
        assert model.training == training
        with floating(model):
            torch.testing.assert_close(model(x), copy.deepcopy(net)(x), rtol=1e-4, atol=1e-5)


def test_the_float_model_is_unchanged_and_its_keys_stay_valid() -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = convert(net, RECIPE)
    assert type(net.stem) is nn.Conv2d
    assert before.keys() == net.state_dict().keys() and before.keys() <= model.state_dict().keys()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    missing, unexpected = model.load_state_dict(before, strict=False)
    assert not unexpected and all("quant" in key or key.split(".")[0] in ("input", "output") for key in missing)
    with torch.no_grad():
        model.stem.weight.zero_()
    assert net.stem.weight.abs().sum() > 0


def test_functional_calls_get_the_path_of_the_module_they_stand_in() -> None:
    model = convert(Net())
    names = dict(model.named_modules())
    assert isinstance(names["block.add"], qnn.Add) and isinstance(names["max_pool2d"], qnn.MaxPool2d)
    assert isinstance(names["adaptive_avg_pool2d"], qnn.AdaptiveAvgPool2d) and isinstance(names["view"], qnn.Flatten)
    assert isinstance(names["deform"], qnn.DeformConv2d) and isinstance(names["norm"], qnn.Affine)
    assert names["stem"].padding == (1, 1, 1, 1)


def test_layers_that_read_one_tensor_share_its_quantizer() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.bn_a, self.bn_b = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            return F.relu(self.bn_a(self.a(x)) + self.bn_b(self.b(x)))

    model = convert(Forked())
    assert model.a.input_quant is model.b.input_quant is not model.stem.input_quant
    assert model.add.a_quant is model.bn_a.output_quant and model.add.b_quant is model.bn_b.output_quant
    assert model.stem.input_quant is model.input
    names = quantizers(model)
    assert "a.input_quant" in names and "b.input_quant" not in names
    with pytest.raises(LowerError, match=r"b \(Conv2d\): its input must have one format at point 'activation' for all"):
        convert(Forked(), {"layers": {"b": {"activation": 3}}})
    assert convert(Forked(), {"layers": {"stem": {"activation": 3}}}).stem.input_quant.width == 3


def test_a_pool_called_twice_has_a_quantizer_for_each_call() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.a, self.b = nn.MaxPool2d(2), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(F.relu(self.b(self.pool(F.relu(self.a(x))))))

    names = quantizers(convert(Pooled()))
    assert "pool.input_quant" in names and "pool_1.input_quant" in names


def test_the_recipes_last_match_wins() -> None:
    recipe = {
        "default": {"weight": 4, "activation": {"width": 5, "rounding": "RND_CONV"}, "input": "u8.0"},
        "layers": {
            "block.*": {"weight": 3},
            "block.conv2": {"weight": {"width": 8, "digits": {"k": 2}, "granularity": "tensor"}},
            "fc": {"activation": {"frac": 2, "signed": False, "overflow": "WRAP"}},
            "block.add": {"elementwise": 6},
            "deform.offset": {"weight": 7},
        },
    }
    model = convert(Net(), recipe)
    assert (model.stem.weight_quant.width, model.block.conv1.weight_quant.width) == (4, 3)
    spec = model.block.conv2.weight_quant.spec
    assert (spec.width, spec.digits.k, spec.per_channel, spec.overflow) == (8, 2, False, "SAT_SYM")
    assert model.deform.weight_quant.width == 4 and model.deform.offset.weight_quant.width == 7
    assert model.deform.offset.input_quant is model.deform.input_quant
    assert str(model.fc.input_quant.format()) == "u8.2" and model.fc.input_quant.spec.overflow == "WRAP"
    assert model.block.conv1.input_quant.spec.rounding == "RND_CONV"
    assert model.block.add.output_quant.width == 6 and model.block.bn1.output_quant.width == 8
    assert str(model.input.format()) == "u8.0" and not model.input.frac.requires_grad


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"defaults": {}}, r"recipe key 'defaults' must be one of default, layers"),
        ({"default": {"wieght": 4}}, r"recipe key 'default.wieght' must be one of input, weight, constant"),
        ({"layers": {"stem": {"weight": {"widht": 4}}}}, r"'layers.stem.weight.widht' must be one of width, frac"),
        (
            {"layers": {"stm": {"weight": 4}}},
            r"pattern 'layers.stm' must match a layer .*, but matches none; the nearest is 'stem'$",
        ),
        (
            {"layers": {"stem": {"constant": 4}}},
            r"'layers.stem.constant' must match a layer that has this point; 'stem' has weight, activation$",
        ),
        ({"default": {"bias": 8}}, r"'default.bias' must be left out: a bias follows its input and weight formats"),
        (
            {"default": {"weight": 4.5}},
            r"recipe key 'default.weight' must be a width, a format such as 's8.3', or a mapping, not 4.5",
        ),
        ({"default": {"weight": {"width": True}}}, r"'default.weight.width' must be an integer, not True"),
        ({"default": {"weight": 40}}, r"must lie in 0..32, not 40, in recipe key 'default.weight'"),
        ({"default": {"input": "u8"}}, r"must look like 's8.3' or 'u5.0' .*, not 'u8', in recipe key 'default.input'"),
        ({"default": {"input": "u0.0"}}, r"recipe key 'default.input' must be at least one bit wide, not 0"),
        ({"layers": {"input": {"input": 0}}}, r"'layers.input.input' must be at least one bit wide, not 0"),
        (
            {"default": {"input": {"width": 8, "rounding": "TRN"}}},
            r"'default.input.rounding' must be RND, by which the host's codes are made, not TRN",
        ),
        ({"default": {"input": {"width": 8, "overflow": "WRAP"}}}, r"input.overflow' must be SAT, .* not WRAP"),
        (
            {"default": {"activation": {"granularity": "channel"}}},
            r"must be 'tensor', not 'channel', except for weights",
        ),
        (
            {"layers": {"block.*": {"activation": {"granularity": "channel"}}}},
            r"recipe key 'layers.block.*.activation.granularity' must be 'tensor', not 'channel', except for weights "
            "and constants: leave it out; to give each channel its range, scale it in the BatchNorm before this layer",
        ),
        (
            {"default": {"activation": {"digits": {"k": 2}}}},
            r"must stand at one of weight, constant, not at activation",
        ),
        ({"default": {"weight": {"digits": {"k": 0}}}}, r"'default.weight.digits.k' must be at least 1, not 0"),
        (
            {"default": {"weight": {"learn_width": True, "overflow": "WRAP"}}},
            r"a learned width must have overflow SAT or SAT_SYM and no digits.*, in recipe key 'default.weight'",
        ),
        ({"default": {"weight": {"learn_width": True, "width": 17}}}, r"must start at 16 bits or less, not 17"),
        ({"default": {"weight": {"learn_width": 1}}}, r"'default.weight.learn_width' must be true or false, not 1"),
        ({"default": {"weight": {"rounding": "UP"}}}, r"must be one of TRN, TRN_ZERO, RND, .*, not 'UP'"),
        ({"layers": ["stem"]}, r"recipe key 'layers' must be a mapping"),
    ],
)
def test_an_impossible_recipe_is_refused_with_the_keys_path(recipe, message) -> None:
    with pytest.raises(TrainError, match=message):
        convert(Net(), recipe)


def test_a_recipe_is_read_from_yaml_too(tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("default: {weight: 3}\nlayers:\n  'block.*': {weight: {width: 5, frac: learn}}\n")
    model = convert(Net(), path)
    assert (model.stem.weight_quant.width, model.block.conv1.weight_quant.width) == (3, 5)


class Unsupported(nn.Module):
    """Much that convert does not know, so that one error must list it all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
        self.act = nn.Softmin(1)
        self.inner = nn.Sequential(nn.GroupNorm(2, 4), nn.AvgPool2d(2, ceil_mode=True))
        self.crop, self.border = nn.ZeroPad2d((0, -1, 0, 0)), nn.ZeroPad2d(1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(self.act(self.conv(x)))
        x = self.pool(self.border(self.crop(x))) + 1
        x = torch.add(F.pad(x, (1, 1, 0, 0), "reflect"), x.clamp(max=2), alpha=2)
        x = torch.cat([x, x * 2], 1)
        return F.log_softmax(x.reshape(2, 3, -1), 1)


def test_everything_that_cannot_be_converted_is_listed_at_once() -> None:
    with pytest.raises(LowerError) as caught:
        convert(Unsupported())
    text = str(caught.value)
    assert text.startswith(
        "the model must consist of layers that qfx knows, but 10 layers or calls cannot be converted:"
    )
    for line in (
        "conv (Conv2d): its padding_mode must be 'zeros', not 'reflect'",
        "act (Softmin): use nn.Softmax(1) of the negative, -x, instead",
        "inner.0 (GroupNorm): use nn.BatchNorm2d instead",
        "inner.1 (AvgPool2d): it must not have ceil_mode, and padding only with count_include_pad",
        "crop (ZeroPad2d): it must add zeros, not 0.0 at (0, -1, 0, 0)",
        "add_1 (add): use a sum of tensors, or of a tensor and a constant, without alpha instead",
        "pad (pad): use zeros of channels, or of the sides of an image right before a convolution or a pool, instead",
        "clamp (clamp): use both bounds, as numbers instead",
        "reshape (reshape): use torch.flatten(x, 1) instead",
        "log_softmax (log_softmax): it has no fixed-point form; leave it out: the argmax of the logits is the same, "
        "and nn.functional.cross_entropy trains on logits",
    ):
        assert f"\n  {line}" in text, text


def test_a_forward_that_branches_on_data_is_refused() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    remedy = "must be traceable by torch.fx, without branches or loops that depend on data: take the decision out of"
    with pytest.raises(LowerError, match=f"the forward of Branches {remedy} the network, or compute both sides"):
        convert(Branches())
    with pytest.raises(LowerError, match=rf"the forward of '1.0' {remedy}"):
        convert(nn.Sequential(nn.ReLU(), nn.Sequential(Branches())))


def test_what_the_shapes_of_an_example_forbid_is_listed_with_all_else() -> None:
    class Misshapen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.norm, self.act = nn.Linear(8, 8), nn.BatchNorm1d(128), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.wide(x))
            even = F.adaptive_avg_pool2d(x, (3, 4))
            a, b = x.flatten(1), F.avg_pool2d(torch.cat((x, x), 1), (2, 1)).flatten(1)
            return a + b, self.norm(a), even

    with pytest.raises(LowerError) as caught:
        convert(Misshapen(), None, torch.rand(2, 2, 8, 8))
    assert str(caught.value).splitlines()[1:] == [
        "  wide (Linear): it must read a tensor of axes (N, features), not one of 4 axes: put a Flatten before it, or "
        "use a Conv2d of 1x1",
        "  act (LayerNorm): use nn.BatchNorm2d instead",
        "  adaptive_avg_pool2d (AdaptiveAvgPool2d): its input must divide evenly into 3 windows, not be 8 wide: use "
        "AvgPool2d instead",
        "  add (Add): its operands must be flattened from images of one shape: put it before the Flatten",
        "  norm (BatchNorm1d): it must not read a flattened image: put a BatchNorm2d before the Flatten",
    ]


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.ReLU()),
            (1, 4, 4),
            r"2 \(ReLU\): it must not be the network's result, since the order of a flattened image is \(height, "
            r"width, channel\) here: give the image itself, or put a Linear behind",
        ),
        (
            nn.Sequential(nn.ReLU(), nn.Conv1d(2, 2, 1)),
            (4,),
            r"1 \(Conv1d\): it must read a tensor of axes \(N, C, L\), not one of 2 axes",
        ),
        (
            nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
            (4, 4),
            r"1 \(MaxPool2d\): it must read a tensor of axes \(N, C, H, W\), not one of 3 axes",
        ),
        (
            nn.ReLU(),
            (1, 2, 4, 4),
            r"input \(input\): it must be \(N, C, H, W\), \(N, C, L\) or \(N, features\), not of 5 axes",
        ),
    ],
)
def test_a_shape_that_no_operation_takes_is_refused(net: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LowerError, match=message):
        convert(nn.Sequential(net), None, torch.rand(2, *shape))


def test_shapes_that_the_graph_takes_are_converted() -> None:
    pooled = nn.Sequential(nn.Conv2d(1, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4))
    convert(pooled, None, torch.rand(2, 1, 4, 4))  # one pixel has one order
    convert(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), None, torch.rand(2, 1, 4, 4))
    convert(nn.Sequential(nn.Flatten()), None, torch.rand(2, 4))
    convert(nn.Sequential(nn.AdaptiveAvgPool1d(2)), None, torch.rand(2, 3, 8))


@pytest.mark.parametrize("name", ["code", "graph", "meta"])
def test_a_name_that_torch_fx_uses_is_refused_at_the_top_alone(name: str) -> None:
    net = nn.Sequential()
    net.add_module(name, nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    message = (
        f"must not have layers or parameters of the names '{name}', which torch.fx uses for its own: rename them, in"
    )
    for example in (None, torch.rand(2, 4)):
        with pytest.raises(LowerError, match=message):
            convert(net, None, example)
    convert(nn.Sequential(net), None, torch.rand(2, 4))


def test_a_second_input_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return F.relu(x)

    with pytest.raises(LowerError, match=r"mask \(mask\): it must be the only input: concatenate the inputs before"):
        convert(Two(), None, torch.rand(1, 2))


def test_other_spellings_of_flatten_and_mean_are_known(rng) -> None:
    class Spelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).relu()
            x = torch.flatten(x.mean((2, 3), keepdim=True), start_dim=1) + torch.mean(x, dim=(-1, -2))
            return self.fc(x.reshape(x.shape[0], -1)).flatten(1)

    net, x = Spelled(), torch.tensor(rng.normal(0, 1, (2, 1, 6, 6))).float()
    model = convert(net, None, x)
    with floating(model):
        torch.testing.assert_close(model(x), net(x))


@pytest.mark.parametrize("kind", [nn.Conv2d, partial(nn.ConvTranspose2d, stride=2)])
def test_batch_norm_folds_into_its_convolution_by_recipe(rng, kind) -> None:
    net = nn.Sequential(kind(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    x = torch.tensor(rng.normal(1, 2, (8, 1, 8, 8))).float()
    net.train()(x)
    model = convert(net, {"layers": {"1": {"fold": True}}}, x)
    for training in (False, True):  # training changes running statistics
        with floating(model.train(training)):
            torch.testing.assert_close(model(x), copy.deepcopy(net).train(training)(x), rtol=1e-4, atol=1e-5)
    assert net.state_dict().keys() <= model.state_dict().keys() and len(model.get_submodule("0").norm) == 1
    calibrate(model, [x])
    model.train()(x).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.get_submodule("1").weight.grad.abs().sum() > 0
    assert model.get_submodule("0").effective()[1].shape == (4,)
    with pytest.raises(LowerError, match=r"3 \(BatchNorm2d\): to be folded, it must stand alone behind a convolution"):
        convert(net, {"default": {"fold": True}})


class InPlace(nn.Module):
    """Two convolutions, and what the test does with their results."""

    def __init__(self, use) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.c, self.d, self.relu = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)
        self.use = use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self, self.c(x), self.d(x))


def _method(net, a, b):  # type: ignore[no-untyped-def]
    a.relu_()
    return a + b


def _function(net, a, b):  # type: ignore[no-untyped-def]
    torch.relu_(a)
    return a + b


def _sum(net, a, b):  # type: ignore[no-untyped-def]
    kept = a
    a += b
    return kept


@pytest.mark.parametrize(
    ("use", "path"),
    [
        (_method, "relu"),
        (_function, "relu"),
        (lambda net, a, b: net.relu(a) + a + b, "relu"),
        (lambda net, a, b: nn.functional.relu(a, inplace=True) + a + b, "relu"),
    ],
)
def test_a_tensor_that_is_changed_in_place_and_read_again_is_refused(use, path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LowerError, match=rf"must not read a tensor after changing it in place.*\n  {path}: it changes"):
        convert(InPlace(use))


class Mode(nn.Module):
    """A network that computes something else in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(-x) if self.training else torch.relu(x)


@pytest.mark.parametrize("net", [InPlace(_sum), Mode()], ids=["in place by another name", "training mode"])
def test_a_forward_that_its_trace_does_not_show_is_refused(net: nn.Module) -> None:
    with pytest.raises(LowerError, match=r"must be what torch.fx sees of it, but gives other values"):
        convert(net.train(), None, torch.zeros(2, 1, 5, 5))


def test_an_example_of_another_shape_is_a_sentence() -> None:
    with pytest.raises(LowerError, match=r"the network must take an input of shape 3x5x5, but torch says: "):
        convert(InPlace(lambda net, a, b: a + b), None, torch.zeros(2, 3, 5, 5))


def test_in_place_operations_whose_result_alone_is_read_are_what_they_say() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 1, 5, 5)
    for use in (lambda net, a, b: net.relu(a) + b, lambda net, a, b: a.relu_().add_(b)):
        net = InPlace(use)
        recipe = {"default": dict.fromkeys(("weight", "activation", "elementwise", "output", "input"), 20)}
        model = calibrate(convert(net, recipe, x), [x]).eval()
        torch.testing.assert_close(model(x), net(x), atol=1e-3, rtol=0)


def test_what_no_output_needs_stays_float_and_is_not_calibrated() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.idle = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            self.idle(y)
            return y

    net, x = Idle(), torch.rand(2, 1, 4, 4)
    model = calibrate(convert(net, {}, x), [x])
    assert type(model.get_submodule("idle")) is nn.Conv2d and not any("idle" in name for name in quantizers(model))
    assert not qfx.load(model, net.state_dict()).unexpected
    assert qfx.nn.Table is qnn.Table
