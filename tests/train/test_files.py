"""Data from a folder for each class and from a file of arrays, and clear words about what is wrong with them."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qfx.errors import TrainError
from qfx.train import Data, Settings, fit, image_folder, npz
from qfx.train.pictures import Pictures, in_turn


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path: Path, pixels: np.ndarray) -> Path:
    """Two classes, two training images and one test image each."""
    for number, image in enumerate(pixels):
        part, label = ("test", number - 4) if number > 3 else ("train", number % 2)
        place = tmp_path / part / ("ant", "bee")[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return tmp_path


def test_a_folder_for_each_class(tree: Path, pixels: np.ndarray) -> None:
    data = image_folder(tree)
    assert data.train_y.tolist() == [0, 1, 0, 1] and data.test_y.tolist() == [0, 1]
    wanted = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float()
    assert torch.equal(data.train_x, wanted[:4]) and torch.equal(data.test_x, wanted[4:])
    (tree / "test").rename(tree / "val")
    assert torch.equal(image_folder(str(tree)).test_x, wanted[4:])


def test_images_are_resized_and_made_gray(tree: Path) -> None:
    data = image_folder(tree, size=(8, 6), gray=True)
    assert data.train_x.shape == (4, 1, 8, 6) and data.test_x.shape == (2, 1, 8, 6)
    assert data.train_x.min() >= 0 and data.train_x.max() <= 255 and torch.equal(data.train_x, data.train_x.round())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tree: (tree / "train" / "cat").mkdir(), r"train/cat must hold images (.png, "),
        (lambda tree: (tree / "test" / "cat").mkdir(), "test/cat must be a class of "),
        (lambda tree: (tree / "train" / "ant" / "0.png").write_bytes(b"no"), "0.png must be an image, but: "),
        (
            lambda tree: Image.new("RGB", (9, 9)).save(tree / "train" / "bee" / "9.png"),
            "train/ant/0.png, not 9 x 9: give size, such as size=(32, 32)",
        ),
        (
            lambda tree: (tree / "test").rename(tree / "other"),
            "must hold the folders train and test (or val), with one",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tree: Path, spoil: object, said: str) -> None:
    spoil(tree)
    with pytest.raises(TrainError, match=re.escape(said)):
        image_folder(tree)


def test_arrays(tmp_path: Path, pixels: np.ndarray) -> None:
    arrays = {"x_train": pixels[:4], "y_train": np.arange(4), "x_test": pixels[4:], "y_test": np.arange(2)}
    np.savez(tmp_path / "a.npz", **arrays)
    data = npz(tmp_path / "a.npz")
    assert torch.equal(data.train_x, torch.from_numpy(pixels[:4].transpose(0, 3, 1, 2)).float())
    np.savez(tmp_path / "b.npz", **{**arrays, "x_train": pixels[:4, ..., 0], "x_test": pixels[4:, ..., 0]})
    assert npz(str(tmp_path / "b.npz")).test_x.shape == (2, 1, 5, 4)
    np.savez(tmp_path / "c.npz", **{**arrays, "x_train": np.ones((4, 7)), "x_test": np.ones((2, 7))})
    assert npz(tmp_path / "c.npz").train_x.shape == (4, 7)


@pytest.mark.parametrize("size", [8, (0, 8), (8,), (8.0, 8), "88"])
def test_a_size_that_is_none_is_refused(tree: Path, size: object) -> None:
    said = re.escape(f"size must be height and width, such as (32, 32), not {size!r}")
    with pytest.raises(TrainError, match=said):
        image_folder(tree, size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y_train": np.ones(4)}, "a.npz must be integers (N,), not 4 float64"),
        ({"x_test": np.ones(3)}, "must be numbers N x features, N x H x W or N x H x W x channels, not 3 float64"),
        ({"y_train": np.array([0, 1, -1, 2])}, "a.npz must be classes 0.., not -1"),
        (
            {"x_test": np.ones((2, 5, 5, 3))},
            "test data must have the shape of train data, (3, 5, 4) each, not (3, 5, 5)",
        ),
        ({"y_test": np.array([None, 1])}, "must be a file of numpy arrays, but is damaged, another kind of file, or"),
        ({"y_test": np.arange(3)}, "test data must be N > 0 inputs and N integer labels, not (2, 3, 5, 4) and (3,)"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(tmp_path: Path, pixels: np.ndarray, change: object, said: str) -> None:
    arrays = {"x_train": pixels[:4], "y_train": np.arange(4), "x_test": pixels[4:], "y_test": np.arange(2)}
    np.savez(tmp_path / "a.npz", **{**arrays, **change})
    with pytest.raises(TrainError, match=re.escape(said)):
        npz(tmp_path / "a.npz")


def test_a_file_that_is_damaged_or_of_another_kind_is_said(tmp_path: Path, pixels: np.ndarray) -> None:
    arrays = {"x_train": pixels[:4], "y_train": np.arange(4), "x_test": pixels[4:], "y_test": np.arange(2)}
    np.savez(tmp_path / "a.npz", **arrays)
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "array.npy", pixels)
    one = (tmp_path / "array.npy").read_bytes()
    for content in (b"nothing", b"", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPX"), one):
        (tmp_path / "a.npz").write_bytes(content)
        said = (
            "a.npz must be a file of numpy arrays, but is damaged, another kind of file, or holds Python objects: write"
        )
        with pytest.raises(TrainError, match=said):
            npz(tmp_path / "a.npz")
    with pytest.raises(
        TrainError, match=r"must be a file of numpy arrays, but cannot be read: Is a directory: write it"
    ):
        npz(tmp_path)
    with pytest.raises(TrainError, match="b.npz must exist, but there is no such file"):
        npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x_train=pixels)
    with pytest.raises(TrainError, match="c.npz must hold .*, but has no y_train, x_test, y_test"):
        npz(tmp_path / "c.npz")


def test_images_without_room_are_read_when_they_are_needed_and_train_to_the_same_bits(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    held = image_folder(tree)
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    data = image_folder(tree)
    assert isinstance(data.train_x, Pictures) and data.train_x.shape == held.train_x.shape
    assert torch.equal(data.train_x[:], held.train_x) and torch.equal(data.test_x[1:], held.test_x[1:])
    assert torch.equal(data.train_x[torch.tensor([3, 0])], held.train_x[[3, 0]]) and len(data.train_x[:0]) == 0
    assert torch.equal(torch.cat(list(data.train_x.split(3))), held.train_x)
    found = [fit(network(), each, Settings(epochs=3, lr=0.01, batch=2)).state_dict() for each in (held, data)]
    assert found[0].keys() == found[1].keys() and all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def held_out_wrongly(whole: Data, parts: Data, count: int) -> list[str]:
    """What is wrong with parts that are to be the training images alone, the last ``count`` of them for testing."""
    x, y = (torch.cat(both) for both in ((parts.train_x[:], parts.test_x[:]), (parts.train_y, parts.test_y)))
    labelled = list(zip(whole.train_x[:].flatten(1).tolist(), whole.train_y.tolist(), strict=True))
    found = list(zip(x.flatten(1).tolist(), y.tolist(), strict=True))
    wrong = {
        "size": len(parts.test_x) != count or len(parts.test_y) != count,
        "in both": any(torch.equal(one, other) for one in parts.train_x[:] for other in parts.test_x[:]),
        "another image": sorted(found) != sorted(labelled),
        "order": found != labelled,
    }
    return [name for name, is_so in wrong.items() if is_so]


def test_the_last_training_images_are_held_out_each_in_one_part_and_in_order(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = image_folder(tree)
    every = whole.train_x[:]
    assert len({tuple(image.flatten().tolist()) for image in every}) == len(every)  # no two are the same
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    unread = image_folder(tree).held_out(2)
    assert isinstance(unread.train_x, Pictures) and isinstance(unread.test_x, Pictures)
    for found in (whole.held_out(2), unread):
        assert held_out_wrongly(whole, found, 2) == []
    with pytest.raises(TrainError, match=r"count of inputs to hold out must lie in 1..\d+, not 0"):
        whole.held_out(0)


@pytest.mark.parametrize(
    ("train", "test", "labels", "wrong"),
    [
        (slice(0, -2), slice(-3, -1), slice(-3, -1), ["in both", "another image", "order"]),  # one too early
        (slice(0, -1), slice(-2, None), slice(-2, None), ["in both", "another image", "order"]),
        (slice(2, None), slice(0, 2), slice(0, 2), ["order"]),  # the first ones
        (slice(0, -2), slice(-2, None), slice(1, 3), ["another image", "order"]),  # labels of others
        (slice(0, -3), slice(-3, None), slice(-3, None), ["size"]),
    ],
)
def test_images_held_out_wrongly_are_found(
    tree: Path, train: slice, test: slice, labels: slice, wrong: list[str]
) -> None:
    whole = image_folder(tree)
    x, y = whole.train_x[:], whole.train_y
    assert held_out_wrongly(whole, Data(x[train], y[train], x[test], y[labels]), 2) == wrong


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 2))


def test_an_image_that_is_spoilt_while_it_lies_on_disk_is_named_when_its_turn_comes(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    data = image_folder(tree)
    (tree / "train" / "bee" / "3.png").write_bytes(b"no")
    with pytest.raises(TrainError, match=r"train/bee/3.png must be an image, but: "):
        fit(network(), data, Settings(epochs=1, lr=0.01, batch=2))
    Image.new("RGB", (9, 9)).save(tree / "train" / "bee" / "3.png")
    with pytest.raises(TrainError, match=r"bee/3.png must have 4 x 5 pixels like .*ant/0.png, not 9 x 9: give size"):
        fit(network(), data, Settings(epochs=1, lr=0.01, batch=2))


def test_a_crop_keeps_proportions_and_takes_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((40, 100, 3), dtype=np.uint8)
    pixels[:, 30:70] = 255  # a square in the middle of a wide image
    for part in ("train", "test"):
        (tmp_path / part / "ant").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / part / "ant" / "0.png")
    assert image_folder(tmp_path, (20, 20), crop=1.0).train_x[:].min() > 200
    assert image_folder(tmp_path, (20, 20)).train_x[:].min() == 0
    wide = image_folder(tmp_path, (20, 40), crop=0.5).train_x[0, 0]  # 20 x 40 of 40 x 100 pixels
    assert wide.min() == 255 and wide.shape == (20, 40)
    for size, crop in ((None, 0.5), ((4, 4), 0.0), ((4, 4), 1.5)):
        with pytest.raises(TrainError, match="crop must lie above 0 and be at most 1, and come with size, not "):
            image_folder(tmp_path, size, crop=crop)


def test_the_images_that_wait_on_disk_come_in_the_order_asked_for(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    data = image_folder(tree)
    chunks = [torch.tensor([2, 1]), torch.tensor([0]), torch.tensor([3])]
    found = list(in_turn(data.train_x, chunks))
    assert all(chunk is given for (chunk, _), given in zip(found, chunks, strict=True))
    assert all(torch.equal(x, data.train_x[chunk]) for chunk, x in found)


def test_training_on_images_on_disk_that_was_stopped_ends_in_the_same_bits(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    data, settings = image_folder(tree), Settings(epochs=3, lr=0.01, batch=1)
    whole = fit(network(), data, settings, augment=lambda x: x + torch.rand_like(x)).state_dict()

    def stop(done: float, doing: str) -> None:
        if doing.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    run = {"augment": lambda x: x + torch.rand_like(x), "folder": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        fit(network(), data, settings, progress=stop, **run)
    found = fit(network(), data, settings, **run).state_dict()
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    other = fit(network(), data, replace(settings, seed=1), augment=run["augment"]).state_dict()
    assert not all(torch.equal(other[key], whole[key]) for key in whole)
