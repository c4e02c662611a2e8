"""Images of equal size: held in memory where they have room there, else on disk until they are asked for."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from qfx.errors import TrainError

HELD = 1 << 30  # bytes of float32 that images may take in memory

Read = Callable[[Path], np.ndarray]  # an image as bytes (C, H, W)


class Pictures:
    """Images on disk (N, C, H, W), read by several threads each time that they are asked for; pixels are float32.

    It is indexed as a tensor is along its first axis, and gives the same values each time.
    """

    def __init__(self, paths: Sequence[Path], read: Read) -> None:
        self._paths, self._read = tuple(paths), read
        self.shape = torch.Size((len(paths), *read(paths[0]).shape))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        places = range(len(self))[which] if isinstance(which, slice) else which.tolist()
        if not places:
            return torch.empty(0, *self.shape[1:])
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            images = list(pool.map(self._image, places))
        return torch.from_numpy(np.stack(images)).float()

    def part(self, which: slice) -> "Pictures":
        """Return some of the images, unread."""
        return Pictures(self._paths[which], self._read)

    def split(self, count: int) -> Iterator[Tensor]:
        """Yield the images, ``count`` at a time."""
        return (self[start : start + count] for start in range(0, len(self), count))

    def _image(self, place: int) -> np.ndarray:
        path = self._paths[place]
        image = self._read(path)
        if image.shape != self.shape[1:]:
            raise TrainError(
                f"{path} must have {_size(self.shape)} pixels like {self._paths[0]}, not {_size(image.shape)}: give "
                "size, such as size=(32, 32)"
            )
        return image


Inputs: TypeAlias = Tensor | Pictures


def pictures(paths: Sequence[Path], read: Read) -> Inputs:
    """Return the images at ``paths``, as a tensor if they have room in memory."""
    found = Pictures(paths, read)
    return found[:] if 4 * found.shape.numel() <= HELD else found


def in_turn(inputs: Inputs, chunks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each tensor of indices with the inputs there; those on disk are read while the last ones are in use."""
    if isinstance(inputs, Tensor):
        yield from ((chunk, inputs[chunk]) for chunk in chunks)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for chunk in chunks:
            following = chunk, pool.submit(inputs.__getitem__, chunk)
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], waiting[1].result()


def require_size(size: object) -> None:
    """Raise TrainError unless ``size`` is a height and a width."""
    sides = size if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise TrainError(f"size must be height and width, such as (32, 32), not {size!r}")


def read_image(
    path: Path, size: tuple[int, int] | None = None, gray: bool = False, crop: float | None = None
) -> np.ndarray:
    """Return one image as bytes (C, H, W).

    Args:
        size: height and width to which it is resized (bilinear).
        crop: keep the proportions, and of the largest rectangle of these proportions take this part of each side.

    Raises:
        TrainError: it is no image, or damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert("L" if gray else "RGB")
        if size is not None:
            box = None if crop is None else _middle(image.size, (size[1], size[0]), crop)
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)
        pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainError(f"{path} must be an image, but: {error}") from error
    return pixels[None] if gray else pixels.transpose(2, 0, 1)


def _middle(has: tuple[int, int], wanted: tuple[int, int], part: float) -> tuple[float, float, float, float]:
    """The rectangle in the middle of an image, with the proportions wanted: left, top, right, bottom."""
    scale = part * min(has[0] / wanted[0], has[1] / wanted[1])
    x, y = scale * wanted[0] / 2, scale * wanted[1] / 2
    return has[0] / 2 - x, has[1] / 2 - y, has[0] / 2 + x, has[1] / 2 + y


def _size(shape: Sequence[int]) -> str:
    return f"{shape[-1]} x {shape[-2]}"
