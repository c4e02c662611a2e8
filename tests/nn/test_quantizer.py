"""The quantizer as a module: formats, calibration, sharing, saving, precision."""

import copy
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import qfx
from qfx.errors import TrainError
from qfx.fixed import Fixed, Overflow, Rounding, decode, encode
from qfx.nn import Conv2d, Digits, Quantizer, Spec, calibrate, convert, freeze_formats, moves, param_groups, quantizers


def ready(spec: Spec, frac: float | list[float], signed: bool = True, axis: int = 0) -> Quantizer:
    channels = len(frac) if isinstance(frac, list) else 1
    quantizer = Quantizer(spec, channels, axis)
    quantizer.start_at(torch.tensor(frac), signed)
    return quantizer


def test_format_names_the_rounded_binary_point() -> None:
    assert ready(Spec(6), 2.4).format() == Fixed(6, 2)
    assert ready(Spec(6), 2.6, signed=False).format() == Fixed(6, 3, False)
    assert ready(Spec(4, per_channel=True), [1.0, 2.0]).format() == Fixed(4, (1, 2))
    assert ready(Spec(4), 400.0).format() == Fixed(4, 21)


def test_codes_are_the_values_forward_gives(rng) -> None:
    values = torch.tensor(rng.normal(0, 1, (3, 5))).float()
    quantizer = ready(Spec(6, per_channel=True, overflow=Overflow.SAT_SYM), [3.0, 4.0, 6.0])
    codes, form = quantizer.codes(values), quantizer.format()
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(decode(codes.T, form).T, quantizer(values).detach().double().numpy())
    np.testing.assert_array_equal(codes.T, encode(values.double().numpy().T, form, Rounding.RND, Overflow.SAT_SYM))


def test_a_quantizer_that_was_never_calibrated_refuses_to_run_and_names_itself() -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)))
    message = r"quantizer 'input' must be calibrated before it runs: call qfx.calibrate\(model, batches\) once"
    for mode in (True, False):
        with pytest.raises(TrainError, match=message):
            model.train(mode)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(TrainError, match="quantizer 'Quantizer' must be calibrated"):
        Quantizer(Spec())(torch.zeros(2))
    assert Quantizer(Spec(5, frac=0, signed=False))(torch.tensor([3.2])).item() == 3.0


def test_calibration_takes_unsigned_where_nothing_negative_was_seen(rng) -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)))
    calibrate(model, [torch.tensor(rng.normal(0, 1, (4, 1, 8, 8))).float()])
    formats = {name: quantizer.format() for name, quantizer in quantizers(model).items()}
    assert formats["input"].signed and not formats["2.input_quant"].signed and formats["output"].signed
    fixed = convert(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)),
        {"layers": {"2": {"activation": {"width": 6, "signed": True}}}},
    )
    calibrate(fixed, [torch.rand(2, 1, 8, 8)])
    assert quantizers(fixed)["2.input_quant"].format().signed


@pytest.mark.parametrize("width", [2, 3, 4, 8])
def test_calibration_minimises_the_squared_error(rng, width) -> None:
    values = torch.tensor(rng.laplace(0, 1, 4000)).float()
    quantizer = Quantizer(Spec(width))
    model = nn.Sequential(quantizer)
    calibrate(model, [values])
    errors = {f: ((ready(Spec(width), float(f))(values) - values) ** 2).mean().item() for f in range(-6, 12)}
    assert quantizer.format().frac == min(errors, key=lambda f: errors[f])


def test_calibration_is_refused_without_data_or_with_nan() -> None:
    model = nn.Sequential(Quantizer(Spec()))
    with pytest.raises(TrainError, match="calibration must have at least one batch, but there was none"):
        calibrate(model, [])
    with pytest.raises(TrainError, match="must be finite, but NaN or infinity is among them"):
        calibrate(model, [torch.tensor([float("nan")])])
    unreached = nn.ModuleDict({"used": Quantizer(Spec()), "spare": Quantizer(Spec())})
    unreached.forward = lambda x: unreached["used"](x)
    with pytest.raises(TrainError, match="quantizer 'spare' must see data in calibration, but no batch reached it"):
        calibrate(unreached, [torch.ones(3)])


def test_calibration_leaves_batch_statistics_and_mode_alone(rng) -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name or "tracked" in name}
    calibrate(model.train(), [torch.rand(4, 1, 8, 8)])
    assert model.training and before
    assert all(torch.equal(dict(model.named_buffers())[name], value) for name, value in before.items())


def test_constant_channels_of_zero_take_the_largest_channels_frac() -> None:
    conv = Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.0, 0.9]).reshape(2, 1, 1, 1))
    calibrate(nn.Sequential(conv), [torch.rand(1, 1, 4, 4)])
    assert conv.weight_quant.format().frac == (7, 7)


def test_quantizers_stay_in_float32_under_autocast(rng) -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)))
    x = torch.tensor(rng.normal(0, 1, (4, 1, 8, 8))).float()
    calibrate(model, [x])
    seen: dict[str, torch.Tensor] = {}
    for name, quantizer in quantizers(model).items():
        quantizer.register_forward_hook(lambda module, inputs, y, name=name: seen.__setitem__(name, y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x).sum().backward()
    for name, y in seen.items():
        quantizer = quantizers(model)[name]
        assert y.dtype == torch.float32, name
        code = torch.ldexp(y.detach(), quantizer.frac_now.reshape(-1, *[1] * (y.dim() - 1)))
        assert torch.equal(code, code.round()), name
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_width_zero_is_zero_and_learns_nothing() -> None:
    quantizer = ready(Spec(0), 3.0)
    x = torch.tensor([1.0, -5.0], requires_grad=True)
    y = quantizer(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 0.0] and x.grad.tolist() == [0.0, 0.0]
    assert quantizer.format() == Fixed(0, 3)


def test_a_state_dict_round_trip_through_safetensors_restores_formats_and_results(rng, tmp_path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(x))
            return self.a(x) + self.b(x)

    torch.manual_seed(1)
    net, x = Twice(), torch.tensor(rng.normal(0, 1, (4, 1, 8, 8))).float()
    trained = calibrate(convert(net, {"default": {"weight": 3}}), [x]).eval()
    assert trained.a.input_quant is trained.b.input_quant
    assert sum("input_quant" in key and key.endswith("frac") for key in trained.state_dict()) == 1
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    fresh = convert(Twice(), {"default": {"weight": 3}}).eval()
    fresh.load_state_dict(load_file(tmp_path / "net.safetensors"))
    assert torch.equal(fresh(x), trained(x))
    twin = copy.deepcopy(trained)
    assert twin.a.input_quant is twin.b.input_quant is not trained.a.input_quant
    assert torch.equal(twin(x), trained(x))
    other = convert(Twice(), {"default": {"weight": 5}})
    with pytest.raises(TrainError, match="must have the checkpoint's width 3, not 5"):
        other.load_state_dict(load_file(tmp_path / "net.safetensors"))


def test_param_groups_give_binary_points_no_decay_and_a_rate_of_their_own() -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), {"default": {"input": "u8.0"}})
    others, fracs = param_groups(model, 1e-3, weight_decay=0.1)
    assert (others["lr"], others["weight_decay"]) == (1e-3, 0.1)
    assert (fracs["lr"], fracs["weight_decay"]) == (1e-2, 0.0)
    learned = {id(q.frac) for q in quantizers(model).values() if q.learned}
    assert {id(p) for p in fracs["params"]} == learned
    assert id(quantizers(model)["input"].frac) not in learned | {id(p) for p in others["params"]}
    assert param_groups(model, 1e-3, frac_lr=0.5)[1]["lr"] == 0.5


def test_the_rate_of_binary_points_is_the_higher_the_fewer_steps_there_are() -> None:
    layer = nn.Sequential(nn.Conv2d(1, 1, 1))
    model = convert(layer)
    rates = [param_groups(model, 1e-3, steps=steps)[1]["lr"] for steps in (None, 100, 1600, 10**6)]
    assert rates == pytest.approx([0.01, 0.035, 0.005, 8e-6])
    assert param_groups(model, 1e-3, frac_lr=0.5, steps=4)[1]["lr"] == 0.5
    with pytest.raises(TrainError, match="steps must be a number of at least 1, not 0"):
        param_groups(model, 1e-3, steps=0)


def test_learned_widths_and_k_have_a_group_of_their_own() -> None:
    points = {"weight": {"width": 4, "learn_width": True}, "activation": 4}
    model = convert(nn.Sequential(nn.Conv2d(1, 1, 1)), {"default": points})
    _, fracs, sizes = param_groups(model, 1e-3, steps=1600)
    assert (fracs["lr"], sizes["lr"]) == pytest.approx((0.005, 0.01))
    assert [id(p) for p in sizes["params"]] == [id(quantizers(model)["0.weight_quant"].bits)]


def test_frozen_formats_stay_and_moves_are_logged() -> None:
    model = nn.Sequential(ready(Spec(4), 2.0), ready(Spec(4, frac=1), 1.0))
    with torch.no_grad():
        model[0].frac.fill_(3.3)
    assert (moves(model)["0"].before, moves(model)["0"].now, moves(model)["0"].moved) == ((2,), (3,), 1)
    freeze_formats(model)
    assert model[0].frac.item() == 3.0 and not model[0].frac.requires_grad
    freeze_formats(model, False)
    assert model[0].frac.requires_grad and not model[1].frac.requires_grad
    assert "1" not in moves(model)


def test_impossible_specs_are_refused() -> None:
    with pytest.raises(TrainError, match=r"the width of a quantizer must lie in 0..32, not 33"):
        Spec(33)
    with pytest.raises(TrainError, match=r"the frac of a quantizer must lie in -21..21, not 22"):
        Spec(8, frac=22)
    with pytest.raises(TrainError, match="a K-hot word must be signed"):
        Spec(8, signed=False, digits=Digits(2))


def test_nan_in_calibration_names_the_quantizer_and_where_to_look() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1))
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    with pytest.raises(TrainError, match=r"reach quantizer '0.weight_quant' must be finite.*weights of this layer"):
        convert(model, {"default": {"input": "u8.0"}}, torch.zeros(1, 1, 4, 4))


def test_nan_in_the_data_names_the_quantizer_that_it_reaches_first() -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 2, 3)), {}, torch.zeros(1, 1, 4, 4))
    with pytest.raises(TrainError, match=r"reach quantizer 'input' must be finite.*look at the data"):
        calibrate(model, [torch.full((1, 1, 4, 4), float("nan"))])


@pytest.mark.parametrize(
    ("recipe", "values", "said"),
    [
        (
            {"input": "s4.2"},
            [-40.0] * 99 + [0.25],
            "'input' must hold the values that reach it, but 99 % of them saturate: s4.2 ends at 1.75, and they lie in "
            "0.25..40; give it a lower frac or a larger width in the recipe, or leave frac out",
        ),
        (
            {"input": "u8.8"},
            [-0.5] * 100,
            "'input' must hold the values that reach it, but 100 % of them are negative and saturate at 0: u8.8 has no "
            "sign; make it signed in the recipe, or leave frac out",
        ),
        (
            {"input": "u8.0", "weight": {"width": 4, "frac": -10}},
            [3.0] * 100,
            "'0.weight_quant' must hold the values that reach it, but 100 % of them become 0: s4.-10 has steps of "
            "1024, and they lie in 0.5..0.5; give it a higher frac in the recipe, or leave frac out",
        ),
    ],
)
def test_a_stated_format_that_holds_next_to_nothing_is_refused_with_its_layer(
    recipe: dict, values: list[float], said: str
) -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    nn.init.constant_(net[0].weight, 0.5)
    model = convert(net, {"default": recipe}, torch.zeros(1, 1, 2, 2))
    with pytest.raises(TrainError, match=re.escape(said)):
        calibrate(model, [torch.tensor(values).reshape(1, 1, 10, 10)])


def test_a_stated_format_may_clip_a_part_and_hold_zeros() -> None:
    model = convert(nn.Sequential(nn.Conv2d(1, 1, 1)), {"default": {"input": "s4.2"}}, torch.zeros(1, 1, 2, 2))
    calibrate(model, [torch.tensor([40.0] * 49 + [0.25] + [0.0] * 50).reshape(1, 1, 10, 10)])
    assert str(model.get_submodule("input").format()) == "s4.2"


def test_formats_are_the_same_whatever_weights_are_cast_to() -> None:
    x = torch.rand(4, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    recipe = {"default": {"input": "u8.8", "weight": 4, "activation": 4}}
    model = calibrate(convert(net, recipe, x).eval(), [x])
    before = {name: (str(q.format()), q.frac.dtype) for name, q in quantizers(model).items()}
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        cast = copy.deepcopy(model).to(kind)
        assert {name: (str(q.format()), q.frac.dtype) for name, q in quantizers(cast).items()} == before
        assert (qfx.lower(cast, x).evaluate(x.numpy(), "NCHW") == qfx.exact(cast)(x).numpy()).all()
        if kind is torch.float64:
            with torch.no_grad():
                plain = cast(x.double())
            assert torch.equal(plain, cast(x.double())) and torch.equal(plain, qfx.exact(model)(x))


@pytest.mark.parametrize(("scale", "size"), [(1e9, "1e+09"), (1e-9, "1e-09")])
def test_values_out_of_reach_of_a_binary_point_are_refused(scale: float, size: str) -> None:
    x = torch.linspace(0, 1, 64).reshape(4, 16) * scale
    with pytest.raises(TrainError) as caught:
        calibrate(convert(nn.Sequential(nn.Linear(16, 2))), [x])
    assert str(caught.value) == (
        f"quantizer 'input' must see values that a frac in -21..21 reaches, not values of up to {size} in size: scale "
        "the data, or the weights of the layers before it"
    )


def test_values_in_reach_zeros_and_small_weights_are_calibrated() -> None:
    net = nn.Sequential(nn.Linear(16, 2))
    with torch.no_grad():
        net[0].weight[1] *= 1e-12
        net[0].bias.zero_()
    recipe = {"default": {"output": {"width": 8, "frac": 0}}}
    for scale in (255 * 2.0**21, 2.0**-22, 0.0):  # the ends of what eight bits hold, with a frac of -21 and of 21
        quantizer = calibrate(convert(net, recipe), [torch.full((1, 16), scale)]).input
        assert quantizer.format().scalar_frac == (-21 if scale > 1 else 21)


def test_methods_of_calibration_differ_as_they_should(rng) -> None:
    values = torch.tensor(rng.normal(0, 1, (1, 4000))).float()
    values[0, 0] = 100.0
    fracs = {}
    for method in ("max", "percentile", "error"):
        model = nn.Sequential(Quantizer(Spec(width=8, signed=True)))
        calibrate(model, [values], method=method)
        fracs[method] = int(model[0].frac_now)
    assert fracs["max"] == fracs["error"] == 0  # 127 holds 100, and clipping it would be the largest error
    assert fracs["percentile"] == 5  # 127 / 32 holds the 99.9th percentile, about 3.3
    coarse = nn.Sequential(Quantizer(Spec(width=3, signed=True)))
    assert calibrate(coarse, [values[:, 1:]], method="error")[0].frac_now == 1  # 3 / 2: clips some of 4,000
    assert calibrate(coarse, [values[:, 1:]], method="max")[0].frac_now == -1


def test_an_unknown_method_of_calibration_is_refused() -> None:
    with pytest.raises(TrainError, match=r"must use the method error, max or percentile .*, not median"):
        calibrate(nn.Sequential(), [], method="median")
