"""Images from a folder for each class, as torchvision's ImageFolder has them; nothing is downloaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from qfx.errors import TrainError
from qfx.train.data import Data

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TEST = ("test", "val")


def image_folder(folder: Path | str, size: tuple[int, int] | None = None, gray: bool = False) -> Data:
    """Return the images below ``train/CLASS`` and ``test/CLASS`` (or ``val/CLASS``), pixels 0..255.

    Labels are the places of the class names in their alphabetical order; the test set may lack none of them.

    Args:
        size: height and width to which each image is resized (bilinear); without it, all must have one size.
        gray: one channel instead of three.

    Raises:
        TrainError: a folder is missing or empty, an image cannot be read, or sizes differ.
    """
    folder = Path(folder)
    tests = [folder / name for name in _TEST if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        raise TrainError(
            f"{folder} must hold the folders train and test (or val), with one folder a class, but does not"
        )
    names = class_names(folder / "train")
    if extra := [name for name in class_names(tests[0]) if name not in names]:
        raise TrainError(f"{tests[0] / extra[0]} must be a class of {folder / 'train'} too, but is none")
    train, test = (
        read_classes(place, names, SUFFIXES, lambda path: read_image(path, size, gray))
        for place in (folder / "train", tests[0])
    )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise TrainError(
            f"{tests[0]} must hold images like those of {folder / 'train'}: give size, such as size=(32, 32)"
        )
    return Data(
        *(torch.from_numpy(part) for images, labels in (train, test) for part in (images.astype(np.float32), labels))
    )


def class_names(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, in alphabetical order."""
    return sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def read_classes(
    folder: Path, names: Sequence[str], suffixes: Sequence[str], read: Callable[[Path], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, C, H, W) of the classes ``names`` and their labels, int64.

    Raises:
        TrainError: a class has no images, or one of another size than the first.
    """
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        place = folder / name
        paths = sorted(path for path in place.glob("*") if path.suffix.lower() in suffixes)
        if not paths:
            raise TrainError(f"{place} must hold images ({', '.join(suffixes)}), but there are none")
        for path in paths:
            image = read(path)
            if images and image.shape != images[0].shape:
                raise TrainError(
                    f"{path} must have {_size(images[0])} pixels like the images before it, not {_size(image)}: give "
                    "size, such as size=(32, 32)"
                )
            images.append(image)
            labels.append(label)
    if not images:
        raise TrainError(f"{folder} must hold a folder for each class, but there is none")
    return np.stack(images), np.array(labels, dtype=np.int64)


def read_image(path: Path, size: tuple[int, int] | None = None, gray: bool = False) -> np.ndarray:
    """Return one image as bytes (C, H, W)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = file.convert("L" if gray else "RGB")
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise TrainError(f"{path} must be an image, but: {error}") from error
    return pixels[None] if gray else pixels.transpose(2, 0, 1)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
