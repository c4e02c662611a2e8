"""Labelled data from one file of numpy arrays."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from qfx.errors import TrainError
from qfx.train.data import Data

NAMES = ("x_train", "y_train", "x_test", "y_test")


def npz(path: Path | str) -> Data:
    """Return the data of an .npz file with x_train, y_train, x_test and y_test.

    Images are (N, H, W) or (N, H, W, channels), features (N, features); labels are integers (N,).

    Raises:
        TrainError: there is no such file, an array is missing, or its axes are others.
    """
    arrays = npz_arrays(Path(path))
    parts = []
    for name in NAMES:
        array = arrays[name]
        if name.startswith("y"):
            if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
                raise TrainError(f"{name} of {path} must be integers (N,), not {_shape(array)} {array.dtype}")
            if (array < 0).any():
                raise TrainError(f"{name} of {path} must be classes 0.., not {array.min()}")
            parts.append(torch.from_numpy(array.astype(np.int64)))
            continue
        if array.ndim not in (2, 3, 4) or not np.issubdtype(array.dtype, np.number):
            raise TrainError(
                f"{name} of {path} must be numbers N x features, N x H x W or N x H x W x channels, not "
                f"{_shape(array)} {array.dtype}"
            )
        image = array[..., None] if array.ndim == 3 else array
        image = image.transpose(0, 3, 1, 2) if image.ndim == 4 else image
        parts.append(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)))
    return Data(*parts)


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays NAMES of a file.

    Raises:
        TrainError: it is no such file, or has not all of them.
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            missing = [name for name in NAMES if name not in file]
            if missing:
                raise TrainError(f"{path} must hold {', '.join(NAMES)}, but has no {', '.join(missing)}")
            return {name: file[name] for name in NAMES}
    except FileNotFoundError:
        raise TrainError(f"{path} must exist, but there is no such file") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        fault = "is damaged, another kind of file, or holds Python objects"
        if isinstance(error, OSError) and error.strerror:
            fault = f"cannot be read: {error.strerror}"
        raise TrainError(
            f"{path} must be a file of numpy arrays, but {fault}: write it with numpy.savez(path, x_train=...)"
        ) from error


def _shape(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))
