"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from a folder, in the three usual forms; nothing is downloaded."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qfx.errors import TrainError
from qfx.train.data import Data
from qfx.train.image_folder import class_names, listed
from qfx.train.npz_file import npz_arrays
from qfx.train.pictures import read_image

Part = tuple[np.ndarray, np.ndarray]  # images (N, 3, 32, 32) as bytes, labels (N,)
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def cifar(classes: int = 10, folder: Path | None = None) -> Data:
    """Return CIFAR-10 or CIFAR-100 (``classes``: 10 or 100), pixels 0..255, the test set being its own.

    Args:
        folder: what holds the data, as ``cifar10.npz`` (x_train, y_train, x_test, y_test; images N x 32 x 32 x 3), as
            the files of the "python version" (``data_batch_1`` .. ``5`` and ``test_batch``, or ``train`` and ``test``),
            or as ``train/CLASS/*.png`` and ``test/CLASS/*.png``. By default what QFX_CIFAR10 or QFX_CIFAR100 names.

    Raises:
        TrainError: there is no such folder, none of these forms is in it, or its content is not as it must be.
    """
    name = f"cifar{classes}"
    if classes not in (10, 100):
        raise TrainError(f"CIFAR must have 10 or 100 classes, not {classes}")
    folder = _folder(name) if folder is None else folder
    if not folder.is_dir():
        raise TrainError(f"the folder of CIFAR-{classes} must exist, not {folder}: {_expected(classes)}")
    for is_there, read in _FORMS:
        if is_there(folder, classes):
            train, test = (_checked(part, classes, folder, name) for part, name in read(folder, classes))
            return Data(_images(train[0]), _labels(train[1]), _images(test[0]), _labels(test[1]))
    raise TrainError(f"{folder} must hold CIFAR-{classes}, but does not: {_expected(classes)}")


def _folder(name: str) -> Path:
    variable = f"QFX_{name.upper()}"
    place = os.environ.get(variable)
    if not place:
        raise TrainError(
            f"the environment variable {variable} must name the folder of the data, but is not set: "
            f"{_expected(int(name.removeprefix('cifar')))}"
        )
    return Path(place)


def _expected(classes: int) -> str:
    python = "data_batch_1 .. data_batch_5 and test_batch" if classes == 10 else "train and test"
    return (
        f"a folder with cifar{classes}.npz, or with {python} of the python version, or with train/CLASS/*.png and "
        "test/CLASS/*.png (nothing is downloaded)"
    )


# The forms --------------------------------------------------------------------------------------------------------

Read = Callable[[Path, int], list[tuple[Part, str]]]


def _npz_there(folder: Path, classes: int) -> bool:
    return (folder / f"cifar{classes}.npz").is_file()


def _read_npz(folder: Path, classes: int) -> list[tuple[Part, str]]:
    path = folder / f"cifar{classes}.npz"
    arrays = npz_arrays(path)
    for part in ("x_train", "x_test"):
        if arrays[part].ndim != 4 or arrays[part].shape[1:] != (_SIDE, _SIDE, 3):
            raise TrainError(f"{part} of {path} must be N x 32 x 32 x 3, not {_shape(arrays[part])}")
    return [((arrays[f"x_{part}"].transpose(0, 3, 1, 2), arrays[f"y_{part}"]), part) for part in ("train", "test")]


def _python_files(classes: int) -> tuple[list[str], list[str]]:
    return ([f"data_batch_{n}" for n in range(1, 6)], ["test_batch"]) if classes == 10 else (["train"], ["test"])


def _python_there(folder: Path, classes: int) -> bool:
    train, test = _python_files(classes)
    return any((folder / name).is_file() for name in (*train, *test))


def _read_python(folder: Path, classes: int) -> list[tuple[Part, str]]:
    label = b"labels" if classes == 10 else b"fine_labels"
    found = []
    for names, part in zip(_python_files(classes), ("train", "test"), strict=True):
        batches = [_unpickled(folder / name, label) for name in names]
        images = np.concatenate([images for images, _ in batches])
        found.append(((images, np.concatenate([labels for _, labels in batches])), part))
    return found


class _Plain(pickle.Unpickler):
    """Makes arrays, and nothing else that a file asks for."""

    _ARRAYS = {"_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar"}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in self._ARRAYS:
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(path: Path, label: bytes) -> Part:
    try:
        with path.open("rb") as file:
            content = _Plain(file, encoding="bytes").load()
    except FileNotFoundError:
        raise TrainError(f"{path} must exist beside the other files of CIFAR's python version") from None
    except Exception as error:  # whatever a damaged pickle raises
        raise TrainError(f"{path} must be a file of CIFAR's python version, but: {error}") from error
    if not isinstance(content, Mapping) or b"data" not in content or label not in content:
        raise TrainError(f"{path} must hold b'data' and {label!r}, as CIFAR's python version does")
    images = np.asarray(content[b"data"])
    if images.ndim != 2 or images.shape[1] != _PIXELS:
        raise TrainError(f"b'data' of {path} must be N x {_PIXELS}, not {_shape(images)}")
    return images.reshape(-1, 3, _SIDE, _SIDE), np.asarray(content[label])


def _tree_there(folder: Path, classes: int) -> bool:
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _read_tree(folder: Path, classes: int) -> list[tuple[Part, str]]:
    names = class_names(folder / "train")
    if len(names) != classes:
        raise TrainError(f"{folder / 'train'} must hold {classes} folders, one for each class, not {len(names)}")
    found = []
    for part in ("train", "test"):
        paths, labels = listed(folder / part, names, (".png",))
        found.append(((np.stack([_small(path) for path in paths]), labels), part))
    return found


def _small(path: Path) -> np.ndarray:
    image = read_image(path)
    if image.shape != (3, _SIDE, _SIDE):
        raise TrainError(f"{path} must have 32 x 32 pixels, not {image.shape[2]} x {image.shape[1]}")
    return image


_FORMS: tuple[tuple[Callable[[Path, int], bool], Read], ...] = (
    (_npz_there, _read_npz),
    (_python_there, _read_python),
    (_tree_there, _read_tree),
)


# What all of them must fulfil ---------------------------------------------------------------------------------------


def _checked(part: Part, classes: int, folder: Path, name: str) -> Part:
    images, labels = part
    where = f"the {name} set in {folder}"
    if images.dtype != np.uint8:
        raise TrainError(f"the images of {where} must be bytes (uint8), not {images.dtype}")
    if len(images) == 0 or labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise TrainError(
            f"{where} must hold N > 0 images and N integer labels, not {len(images)} and {_shape(labels)} "
            f"{labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise TrainError(f"the labels of {where} must lie in 0..{classes - 1}, not in {labels.min()}..{labels.max()}")
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    if absent:
        raise TrainError(f"{where} must hold images of every class, but has none of class {absent[0]}")
    return images, labels


def _shape(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


def _images(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).float()


def _labels(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))
