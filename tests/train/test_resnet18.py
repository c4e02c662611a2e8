"""designs/resnet18: torchvision's network, exact after lowering, and one command that trains it from a folder."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import qfx
from qfx import steps
from qfx.design import Design
from qfx.errors import DesignError
from qfx.nn import calibrate, exact, quantizers
from qfx.train import runs
from qfx.train.float_checkpoint import load_float
from qfx.train.pictures import Pictures

FOLDER = Path(__file__).parents[2] / "designs" / "resnet18"


def network() -> nn.Module:
    return runs.float_model(Design.load(FOLDER))


def test_keys_and_size_are_those_of_torchvisions_checkpoints(tmp_path: Path) -> None:
    state = network().state_dict()
    public = {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}
    assert len(public) == 122
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.0.downsample.1.bias": (512,),
        "layer4.1.bn2.num_batches_tracked": (),
        "fc.weight": (1000, 512),
    }
    assert {name: tuple(public[name].shape) for name in shapes} == shapes
    assert sum(parameter.numel() for parameter in network().parameters()) == 11_689_512
    torch.save(public, tmp_path / "public.pth")
    loaded = load_float(network(), tmp_path / "public.pth").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in public.items())


def interpreted(side: int) -> None:
    """Lower the network with random weights at a side of ``side`` pixels: interpreter = torch, and a fault is seen."""
    design = Design.load(FOLDER)
    x = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1)).float()
    recipe = design.content.recipe
    default = {"input": "u8.0", **recipe["default"]}
    model = calibrate(qfx.convert(network().eval(), {**recipe, "default": default}, x), [x])
    widths = {name: quantizer.width for name, quantizer in quantizers(model).items()}
    assert (widths["conv1.weight_quant"], widths["layer3.1.conv2.weight_quant"], widths["fc.weight_quant"]) == (8, 4, 8)
    assert (widths["layer3.1.conv2.input_quant"], widths["layer3.1.bn2.output_quant"]) == (4, 8)
    graph, expected = qfx.lower(model, x), exact(model)(x).numpy()
    assert np.array_equal(graph.evaluate(x.numpy(), "NCHW"), expected)
    other = x.clone()
    other[0, 1, side // 2, side // 2] = 255 - other[0, 1, side // 2, side // 2]
    assert not np.array_equal(graph.evaluate(other.numpy(), "NCHW"), expected)


def test_it_is_exact_with_random_weights_on_small_images() -> None:
    interpreted(32)


@pytest.mark.full
def test_it_is_exact_with_random_weights_on_images_of_its_own_size() -> None:
    interpreted(224)


def imagenet(folder: Path, images: int) -> Path:
    """A folder like ImageNet's: three classes, JPEG images of various sizes."""
    generator = np.random.default_rng(0)
    for part, count in (("train", images), ("val", 2)):
        for label, name in enumerate(("n01440764", "n01443537", "n01484850")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(40, 90, 2)
                pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[..., label] += 120
                Image.fromarray(pixels).save(folder / part / name / f"{name}_{number}.JPEG")
    return folder


def small(folder: Path, side: int) -> Path:
    """The design with images of ``side`` pixels and two short runs."""
    copy = Path(shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("build", "__pycache__")))
    model, yaml = copy / "model.py", copy / "design.yaml"
    model.write_text(model.read_text().replace("SIDE = 224", f"SIDE = {side}"))
    text = re.sub(r"float: \{epochs: 90, lr: 1.0e-3\}", "float: {epochs: 1, lr: 1.0e-3}", yaml.read_text())
    text = text.replace("fixed: {epochs: 5", "fixed: {epochs: 1").replace("batch: 256", "batch: 6")
    yaml.write_text(text.replace("[224, 224, 3]", f"[{side}, {side}, 3]"))
    return copy


def trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> Path:
    """Train from images that stay on disk."""
    monkeypatch.setenv("QFX_IMAGENET", str(imagenet(tmp_path / "imagenet", 4)))
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    copy = small(tmp_path / "resnet18", side)
    data = runs.load_data(Design.load(copy))
    assert isinstance(data.train_x, Pictures) and data.train_x.shape == (12, 3, side, side)
    assert data.train_y.tolist() == [0, 1, 2] * 4 and len(data.test_x) == 6
    figures = steps.train(copy).figures
    assert figures["images"] == {"train": 12, "test": 6} and 0 <= figures["widths"]["4"]["accuracy"] <= 100
    return copy


def test_one_command_trains_it_from_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains(tmp_path, monkeypatch, 32)


@pytest.mark.full
def test_one_command_trains_it_at_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.lower(trains(tmp_path, monkeypatch, 224))  # which compares interpreter and torch


def test_without_the_folder_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QFX_IMAGENET", raising=False)
    said = r"the environment variable QFX_IMAGENET must name the folder of ImageNet, with train/CLASS/\*.JPEG and"
    with pytest.raises(DesignError, match=said):
        runs.load_data(Design.load(FOLDER))


def test_parts_are_mirrored_and_scaled_and_stay_bytes() -> None:
    design = Design.load(FOLDER)
    augment = runs.augmentation(design)
    torch.manual_seed(0)
    columns = torch.arange(64.0).expand(40, 3, 64, 64) * 4
    found = augment(columns)
    assert found.shape == columns.shape and torch.equal(found, found.round().clamp(0, 255))
    rising = found[:, 0, 32, 63] > found[:, 0, 32, 0]
    assert 8 < rising.sum() < 32
    part = (found[:, 0, 32].amax(1) - found[:, 0, 32].amin(1)) / (columns[0, 0, 32].amax() - columns[0, 0, 32].amin())
    assert 0.35**0.5 * 0.8 < part.min() and part.max() <= 1 and part.std() > 0.05
