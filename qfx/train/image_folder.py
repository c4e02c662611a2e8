"""Images from a folder for each class, as torchvision's ImageFolder has them; nothing is downloaded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qfx.arguments import as_path
from qfx.errors import TrainError
from qfx.train.data import Data
from qfx.train.pictures import pictures, read_image, require_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TEST = ("test", "val")


def image_folder(
    folder: Path | str, size: tuple[int, int] | None = None, gray: bool = False, crop: float | None = None
) -> Data:
    """Return the images below ``train/CLASS`` and ``test/CLASS`` (or ``val/CLASS``), pixels 0..255.

    Labels are the places of the class names in their alphabetical order; the test set may lack none of them. Images
    come from each class in turn, so that any first ones are of all classes. A set that takes more than 1 GiB as float32
    stays on disk, and each image is decoded whenever it is needed.

    Args:
        size: height and width to which each image is resized (bilinear); without it, all must have one size.
        gray: one channel instead of three.
        crop: keep the proportions, and of the largest rectangle with those of ``size``, in the middle of the image,
            take this part of each side (0.875 is usual for ImageNet); without it, the whole image is stretched.

    Raises:
        TrainError: a folder is missing or empty, an image cannot be read, or sizes differ.
    """
    folder = as_path(TrainError, "folder", folder)
    if size is not None:
        require_size(size)
    if crop is not None and (size is None or not 0 < crop <= 1):
        raise TrainError(f"crop must lie above 0 and be at most 1, and come with size, not {crop} and {size}")
    tests = [folder / name for name in _TEST if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not tests:
        raise TrainError(
            f"{folder} must hold the folders train and test (or val), with one folder a class, but does not"
        )
    names = class_names(folder / "train")
    if extra := [name for name in class_names(tests[0]) if name not in names]:
        raise TrainError(f"{tests[0] / extra[0]} must be a class of {folder / 'train'} too, but is none")
    parts = []
    for place in (folder / "train", tests[0]):
        paths, labels = listed(place, names, SUFFIXES)
        parts += [pictures(paths, lambda path: read_image(path, size, gray, crop)), torch.from_numpy(labels)]
    if parts[0].shape[1:] != parts[2].shape[1:]:
        raise TrainError(
            f"{tests[0]} must hold images like those of {folder / 'train'}: give size, such as size=(32, 32)"
        )
    return Data(*parts)


def class_names(folder: Path) -> list[str]:
    """Return the names of the folders in ``folder``, in alphabetical order."""
    return sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def listed(folder: Path, names: Sequence[str], suffixes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    """Return the images of the classes ``names``, the first of each class, then the second, and their labels, int64.

    Raises:
        TrainError: a class has no images, or there is no class.
    """
    found: list[tuple[int, int, Path]] = []
    for label, name in enumerate(names):
        place = folder / name
        paths = sorted(path for path in place.glob("*") if path.suffix.lower() in suffixes)
        if not paths:
            raise TrainError(f"{place} must hold images ({', '.join(suffixes)}), but there are none")
        found += [(number, label, path) for number, path in enumerate(paths)]
    if not found:
        raise TrainError(f"{folder} must hold a folder for each class, but there is none")
    found.sort()
    return [path for _, _, path in found], np.array([label for _, label, _ in found], dtype=np.int64)
