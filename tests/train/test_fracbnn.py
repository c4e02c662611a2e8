"""designs/fracbnn: the published arrays make the published network, and it lowers to the integers of torch."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

import qfx
from qfx import steps
from qfx.design import Design
from qfx.nn import GatedConv2d, quantizers
from qfx.sections import AccuracySection, FloatSection
from qfx.train import Data, accuracy, runs
from tests.graph.lowering import changed, first_wrong

DESIGN = Design.load(Path(__file__).parents[2] / "designs" / "fracbnn")
sys.path.insert(0, str(DESIGN.folder))
published = DESIGN.object("model.py:published", "model")
with_statistics = DESIGN.object("checkpoint.py:with_statistics", "model")


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of the published names and shapes, of such sizes that signals neither vanish nor saturate."""
    rng, found = np.random.default_rng(seed), {}
    for name, value in runs.float_model(DESIGN).named_parameters():
        shape = tuple(value.shape)
        if len(shape) == 4:
            made = np.where(rng.random(shape) < 0.5, -1.0, 1.0) * rng.uniform(0.1, 1.3, shape)
        elif name.endswith("threshold"):
            made = rng.normal(0, 3, shape)
        elif "bn" in name and name.endswith("weight"):
            made = rng.uniform(0.5, 1.5, shape) * (0.7 if name[-8] in "34" else 0.03)
        else:
            made = rng.normal(0, 0.3, shape)
        found[name.replace(".", "_")] = made.astype(np.float32)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(tmp_path / "published.npz", **arrays())
    return tmp_path / "published.npz"


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float()


def in_thirds(given: dict[str, np.ndarray], x: Tensor) -> Tensor:
    """The network as it was published: levels in thirds, BatchNorm as factor and summand, all in float64."""
    p = {name: torch.from_numpy(value).double() for name, value in given.items()}

    def affine(x: Tensor, name: str) -> Tensor:
        return x * p[f"{name}_weight"].reshape(1, -1, 1, 1) + p[f"{name}_bias"].reshape(1, -1, 1, 1)

    def gated(x: Tensor, name: str, stride: int) -> Tensor:
        levels = torch.round((x.clamp(-1, 1) + 1) * 1.5) / 1.5 - 1
        weight = torch.sign(p[f"{name}_weight"])
        high = F.conv2d(torch.sign(levels), weight, None, stride, 1) * 2 / 3
        full = F.conv2d(levels, weight, None, stride, 1)
        return torch.where(high > p[f"{name}_threshold"].reshape(-1, 1, 1), full, high)

    def rprelu(x: Tensor, name: str) -> Tensor:
        x = F.prelu(x + p[f"{name}_shift_x_bias"].reshape(-1, 1, 1), p[f"{name}_prelu_weight"])
        return x + p[f"{name}_shift_y_bias"].reshape(-1, 1, 1)

    digits = torch.where(torch.round(x.double().unsqueeze(2) / 8) > torch.arange(32.0).reshape(-1, 1, 1), 1.0, -1.0)
    x = affine(F.conv2d(digits.flatten(1, 2).double(), torch.sign(p["conv1_weight"]), None, 1, 1), "bn1")
    for stage in (1, 2, 3):
        for block in range(3):
            at, stride = f"layer{stage}_{block}_", 2 if stage > 1 and block == 0 else 1
            y = rprelu(affine(gated(x, at + "conv1", stride), at + "bn1"), at + "rprelu1")
            x = torch.cat((F.avg_pool2d(x, 2),) * 2, 1) if stride == 2 else x
            x = affine(y + x, at + "bn3")
            y = rprelu(affine(gated(x, at + "conv2", 1), at + "bn2"), at + "rprelu2")
            x = affine(y + x, at + "bn4")
    return F.linear(x.mean((2, 3)), p["linear_weight"], p["linear_bias"])


def test_the_published_arrays_make_the_published_network(file: Path) -> None:
    x, given = images(3), arrays()
    with torch.no_grad():
        scores = published(file).double()(x.double())
        torch.testing.assert_close(scores, in_thirds(given, x), rtol=1e-3, atol=1e-3)
        given["layer2_1_conv1_threshold"] += 1
        assert (scores - in_thirds(given, x)).abs().max() > 1e-2


def test_arrays_of_another_network_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", **{**arrays(), "conv9_weight": np.zeros(1)})
    with pytest.raises(
        ValueError, match=r"other\.npz must hold the 167 arrays of the published FracBNN, and no others"
    ):
        published(tmp_path / "other.npz")


def test_statistics_keep_what_the_network_computes(file: Path) -> None:
    x = images(4)
    with torch.no_grad():
        before = published(file).double()(x.double())
        net = with_statistics(published(file).double(), x.double(), 2)
        torch.testing.assert_close(net(x.double()), before, rtol=1e-3, atol=1e-3)
    norm = net.get_submodule("layer1.0.bn1")
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    net(x.double())
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), norm.running_mean)
    torch.testing.assert_close(seen[0].var((0, 2, 3), correction=0), norm.running_var)


def fixed(file: Path, recipe: dict, x: Tensor) -> nn.Module:
    given = {**recipe, "default": {"input": "u8.0", **recipe["default"]}}
    return qfx.calibrate(qfx.convert(published(file), given, x).eval(), [x])


@pytest.mark.parametrize("hot", [False, True])
def test_every_layer_has_its_width_and_the_graph_the_integers_of_torch(file: Path, hot: bool) -> None:
    recipe = yaml.safe_load((DESIGN.folder / "two_hot.yaml").read_text()) if hot else DESIGN.content.recipe
    x = images(1)
    model = fixed(file, recipe, x)
    found = quantizers(model)
    gates = [name for name, layer in model.named_modules() if isinstance(layer, GatedConv2d)]
    assert len(gates) == 18
    assert {str(found[f"{name}.weight_quant"].format()) for name in (*gates, "conv1")} == {"s2.0"}
    assert max(each.width for each in found.values()) == 12 and found["linear.weight_quant"].width == 8
    constants = [each for name, each in found.items() if name.endswith(("scale_quant", "shift_quant", "slope_quant"))]
    assert len(constants) == 2 * 37 + 2 * 18 + 18
    assert all((each.spec.digits is not None and each.spec.digits.k == 2) == hot for each in constants)
    graph = qfx.lower(model, x)
    assert np.array_equal(graph.evaluate(x.numpy(), "NCHW"), qfx.exact(model)(x).numpy())
    assert first_wrong(graph, model, x) is None
    wrong = changed(graph, "layer1.0.conv2.beyond.shift", lambda codes: codes + 3)
    assert first_wrong(wrong, model, x) == "layer1.0.conv2"


def test_the_step_train_trains_the_design_and_counts_its_digits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, y = with_statistics(published(file), images(8)), images(8), torch.arange(8)
    save_file(net.state_dict(), tmp_path / "float.safetensors")
    monkeypatch.setattr(runs, "load_data", lambda design: Data(x, y, x, y))
    training = DESIGN.content.training.model_copy(
        update={"float_": FloatSection(checkpoint=str(tmp_path / "float.safetensors")), "batch": 4}
    )
    content = DESIGN.content.model_copy(update={"training": training, "accuracy": AccuracySection()})
    figures = steps.train(Design(DESIGN.folder, content, DESIGN.argument), out=tmp_path / "build").figures
    digits = figures["widths"]["12"]["digits"]
    assert digits["layer1.0.conv1.weight_quant"] == 16 * 16 * 9  # a digit a sign


@pytest.mark.skipif(
    not os.environ.get("QFX_CIFAR10") or not os.environ.get("QFX_CHECKPOINTS"),
    reason="needs CIFAR-10 and the published checkpoint: set QFX_CIFAR10 and QFX_CHECKPOINTS",
)
def test_the_published_checkpoint_reaches_what_it_is_known_for() -> None:
    data, net = runs.load_data(DESIGN), published(Path(os.environ["QFX_CHECKPOINTS"]) / "fracbnn_cifar10_float.npz")
    with torch.no_grad():
        assert accuracy(net, data.test_x[:1000], data.test_y[:1000]) > 87
