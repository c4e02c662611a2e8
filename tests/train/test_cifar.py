"""CIFAR from its three forms: one content, whatever the form, and a clear word about what is wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qfx.errors import TrainError
from qfx.train import Data, cifar

TRAIN, TEST = 20, 10


def arrays(rng: np.random.Generator, classes: int = 10) -> dict[str, np.ndarray]:
    train, test = TRAIN * classes // 10, TEST * classes // 10
    return {
        "x_train": rng.integers(0, 256, (train, 32, 32, 3), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": rng.integers(0, 256, (test, 32, 32, 3), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def write_npz(folder: Path, found: dict[str, np.ndarray], classes: int = 10) -> None:
    np.savez(folder / f"cifar{classes}.npz", **found)


def write_pickle(path: Path, images: np.ndarray, labels: np.ndarray, key: str) -> None:
    content = {
        b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
        key.encode(): labels.tolist(),
        b"batch_label": b"a batch",
    }
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_python(folder: Path, found: dict[str, np.ndarray], classes: int = 10) -> None:
    key = "labels" if classes == 10 else "fine_labels"
    if classes == 100:
        write_pickle(folder / "train", found["x_train"], found["y_train"], key)
        write_pickle(folder / "test", found["x_test"], found["y_test"], key)
        return
    for number in range(5):
        part = slice(number * TRAIN // 5, (number + 1) * TRAIN // 5)
        write_pickle(folder / f"data_batch_{number + 1}", found["x_train"][part], found["y_train"][part], key)
    write_pickle(folder / "test_batch", found["x_test"], found["y_test"], key)


def write_tree(folder: Path, found: dict[str, np.ndarray], classes: int = 10) -> None:
    for part in ("train", "test"):
        for number, (image, label) in enumerate(zip(found[f"x_{part}"], found[f"y_{part}"], strict=True)):
            place = folder / part / f"class{label:03}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number:05}.png")


def same(data: Data, found: dict[str, np.ndarray], by_class: bool) -> bool:
    """Whether ``data`` holds ``found``, in its order, or, from a tree, of each class in turn."""
    for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        labels = found[f"y_{part}"]
        turn = [int((labels[:place] == label).sum()) for place, label in enumerate(labels)]
        order = np.lexsort((labels, turn)) if by_class else np.arange(len(y))
        images = torch.from_numpy(found[f"x_{part}"][order].transpose(0, 3, 1, 2).copy()).float()
        if not torch.equal(x, images) or y.tolist() != found[f"y_{part}"][order].tolist():
            return False
    return True


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("write", [write_npz, write_python, write_tree])
def test_every_form_gives_the_same_images_and_labels(rng, tmp_path, write, classes) -> None:
    found = arrays(rng, classes)
    write(tmp_path, found, classes)
    data = cifar(classes, tmp_path)
    assert same(data, found, write is write_tree)
    found["x_test"][3, 4, 5, 1] ^= 1
    assert not same(data, found, write is write_tree)


def test_the_environment_names_the_folder(rng, tmp_path, monkeypatch) -> None:
    write_npz(tmp_path, arrays(rng))
    monkeypatch.setenv("QFX_CIFAR10", str(tmp_path))
    assert len(cifar().train_x) == TRAIN
    monkeypatch.delenv("QFX_CIFAR10")
    with pytest.raises(
        TrainError,
        match=r"^the environment variable QFX_CIFAR10 must name the folder of the data, but is not set: a folder with "
        r"cifar10.npz, or with data_batch_1 .. data_batch_5 and test_batch .*nothing is downloaded",
    ):
        cifar()


def test_a_folder_without_the_data_is_named_with_what_was_expected(tmp_path) -> None:
    with pytest.raises(
        TrainError, match=rf"^the folder of CIFAR-100 must exist, not {tmp_path}/nowhere: a folder with"
    ):
        cifar(100, tmp_path / "nowhere")
    with pytest.raises(TrainError, match=rf"^{tmp_path} must hold CIFAR-10, but does not: a folder with cifar10.npz"):
        cifar(10, tmp_path)
    with pytest.raises(TrainError, match="CIFAR must have 10 or 100 classes, not 11"):
        cifar(11, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("x_train", None, "cifar10.npz must hold x_train, y_train, x_test, y_test, but has no x_train"),
        (
            "x_train",
            np.zeros((20, 3, 32, 32), np.uint8),
            "x_train of .* must be N x 32 x 32 x 3, not 20 x 3 x 32 x 32",
        ),
        ("x_test", np.zeros((10, 32, 32, 3), np.float32), r"the test set in .* must be bytes \(uint8\), not float32"),
        ("y_test", np.arange(9), "the test set in .* must hold N > 0 images and N integer labels, not 10 and 9 int64"),
        ("y_train", np.arange(20), r"labels of the train set in .* must lie in 0..9, not in 0..19"),
        ("y_train", np.arange(20) % 9, "train set in .* must hold images of every class, but has none of class 9"),
    ],
)
def test_wrong_arrays_are_refused(rng, tmp_path, key, value, message) -> None:
    found = arrays(rng)
    write_npz(
        tmp_path, {name: value if name == key else a for name, a in found.items() if name != key or value is not None}
    )
    with pytest.raises(TrainError, match=message):
        cifar(10, tmp_path)


def test_damaged_files_are_named(rng, tmp_path) -> None:
    found = arrays(rng)
    write_python(tmp_path, found)
    (tmp_path / "data_batch_3").write_bytes(b"no pickle")
    with pytest.raises(TrainError, match="data_batch_3 must be a file of CIFAR's python version, but: "):
        cifar(10, tmp_path)
    write_pickle(tmp_path / "data_batch_3", found["x_train"], found["y_train"], "other")
    with pytest.raises(TrainError, match="data_batch_3 must hold b'data' and b'labels'"):
        cifar(10, tmp_path)
    write_pickle(tmp_path / "data_batch_3", found["x_train"][:, :16], found["y_train"], "labels")
    with pytest.raises(TrainError, match="b'data' of .*data_batch_3 must be N x 3072, not 20 x 1536"):
        cifar(10, tmp_path)
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(TrainError, match="data_batch_3 must exist beside the other files"):
        cifar(10, tmp_path)
    (tmp_path / "cifar10.npz").write_bytes(b"no archive")
    with pytest.raises(TrainError, match="cifar10.npz must be a file of numpy arrays, but is damaged, another kind"):
        cifar(10, tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(Path))
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Path))
    with pytest.raises(TrainError, match=r"data_batch_1 must be a file .*, but: it asks for pathlib"):
        cifar(10, tmp_path)


def test_a_tree_with_an_empty_class_or_a_wrong_image_is_refused(rng, tmp_path) -> None:
    write_tree(tmp_path, arrays(rng))
    (tmp_path / "train" / "class000" / "00000.png").write_bytes(b"no image")
    with pytest.raises(TrainError, match="00000.png must be an image, but: "):
        cifar(10, tmp_path)
    Image.new("RGB", (16, 32)).save(tmp_path / "train" / "class000" / "00000.png")
    with pytest.raises(TrainError, match="00000.png must have 32 x 32 pixels, not 16 x 32"):
        cifar(10, tmp_path)
    for path in (tmp_path / "train" / "class000").iterdir():
        path.unlink()
    with pytest.raises(TrainError, match=r"class000 must hold images \(.png\), but there are none"):
        cifar(10, tmp_path)
    (tmp_path / "train" / "class000").rmdir()
    with pytest.raises(TrainError, match="train must hold 10 folders, one for each class, not 9"):
        cifar(10, tmp_path)
