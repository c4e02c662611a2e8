"""Images with boxes: what VOC and COCO folders are read into, checked before anything is trained on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from qfx.arguments import require_choice
from qfx.errors import TrainError
from qfx.train.pictures import Inputs, Read, pictures, require_size

Fit = Literal["letterbox", "stretch"]
NONE = -1  # the class of a row without a box


@dataclass(frozen=True)
class Detection:
    """Images (N, C, H, W), real values, and their boxes (N, rows, 5): class, left, top, right, bottom in pixels.

    A pixel is a square of side 1: the whole image is the box 0, 0, W, H. Rows that an image does not need have class
    -1. The validation set may be empty; of the test set holds what Data says.
    """

    train_x: Inputs
    train_y: Tensor
    test_x: Inputs
    test_y: Tensor
    classes: tuple[str, ...]
    val_x: Inputs = field(default_factory=lambda: torch.empty(0))
    val_y: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        for part in ("train", "test", "val"):
            x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
            if part == "val" and len(x) == len(y) == 0:
                continue
            if len(x) == 0 or len(x.shape) != 4 or y.dim() != 3 or len(x) != len(y) or y.shape[2] != 5:
                raise TrainError(
                    f"{part} data must be N > 0 images (N, C, H, W) and boxes (N, rows, 5), not {tuple(x.shape)} and "
                    f"{tuple(y.shape)}"
                )
            if isinstance(x, Tensor) and not torch.isfinite(x).all():
                raise TrainError(f"{part} data must be finite, but holds NaN or infinity")
            self._require_boxes(part, y[y[..., 0] != NONE], x.shape[3], x.shape[2])

    def _require_boxes(self, part: str, boxes: Tensor, width: int, height: int) -> None:
        kind, left, top, right, bottom = boxes.T
        known = (kind == kind.round()) & (kind >= 0) & (kind < len(self.classes))
        inside = (left >= 0) & (left < right) & (right <= width) & (top >= 0) & (top < bottom) & (bottom <= height)
        if not (known & inside).all():
            wrong = boxes[~(known & inside)][0].tolist()
            raise TrainError(
                f"{part} boxes must be of a class 0..{len(self.classes) - 1} and lie within {width} x {height} pixels, "
                f"left before right, top before bottom, not {[round(number, 3) for number in wrong]}"
            )


@dataclass(frozen=True)
class Labelled:
    """One image on disk as its data set describes it: boxes are class, left, top, right, bottom in its own pixels."""

    path: Path
    size: tuple[int, int]  # width, height
    boxes: tuple[tuple[int, float, float, float, float], ...]


def checked_box(
    where: str, box: Sequence[float], size: tuple[int, int], mend: bool
) -> tuple[float, float, float, float] | None:
    """Return left, top, right, bottom of a box that lies within an image; None where nothing is left of it.

    Raises:
        TrainError: it is empty or reaches out of the image, and is not to be mended.
    """
    left, top, right, bottom = box
    width, height = size
    if mend:
        left, right = max(left, 0.0), min(right, float(width))
        top, bottom = max(top, 0.0), min(bottom, float(height))
    if 0 <= left < right <= width and 0 <= top < bottom <= height:
        return left, top, right, bottom
    if mend:
        return None
    raise TrainError(
        f"{where} must lie within its image of {width} x {height} pixels and not be empty, not {left:g}, {top:g} to "
        f"{right:g}, {bottom:g}: correct it, or read with mend=True, which clips boxes and leaves empty ones out"
    )


def image_size(path: Path, where: str) -> tuple[int, int]:
    """Return width and height of an image file, which ``where`` speaks of.

    Raises:
        TrainError: there is none, or it cannot be read.
    """
    from PIL import Image

    if not path.is_file():
        raise TrainError(f"{where} must have its image, but there is no {path}")
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainError(f"{path} must be an image, but: {error}") from error


def require_choices(size: object, fit: object, classes: Sequence[str] | None) -> None:
    """Raise TrainError unless size, fit and classes are what the readers of folders take."""
    require_size(size)
    require_choice(TrainError, "fit", fit, get_args(Fit))
    names = [] if classes is None or isinstance(classes, str) else list(classes)
    if classes is not None and (not names or len(set(names)) < len(names)):
        raise TrainError(f'classes must be a list of different names, such as ["cat", "dog"], not {classes!r}')


def detection(
    parts: dict[str, list[Labelled]], classes: tuple[str, ...], size: tuple[int, int], fit: Fit, where: Path
) -> Detection:
    """Return the images of ``train``, ``test`` and ``val`` in one size, with their boxes; ``where`` is for messages.

    Raises:
        TrainError: a class has no box in the training set.
    """
    used = {box[0] for image in parts["train"] for box in image.boxes}
    if absent := [name for number, name in enumerate(classes) if number not in used]:
        raise TrainError(
            f"the training set of {where} must have a box of every class, but has none of {', '.join(absent)}: leave "
            "them out of classes"
        )
    found = {}
    for part, images in parts.items():
        if images:
            found[f"{part}_x"] = pictures([image.path for image in images], _reader(size, fit))
            found[f"{part}_y"] = _rows(images, size, fit)
    return Detection(classes=classes, **found)


def _rows(images: Sequence[Labelled], size: tuple[int, int], fit: Fit) -> Tensor:
    """The boxes of images, moved with their pixels: (N, rows, 5)."""
    most = max(max(len(image.boxes) for image in images), 1)
    rows = torch.full((len(images), most, 5), float(NONE))
    bounds = torch.tensor([size[1], size[0], size[1], size[0]])
    for number, image in enumerate(images):
        if image.boxes:
            boxes = torch.tensor(image.boxes, dtype=torch.float64)
            width, height, left, top = _placed(image.size, size, fit)
            boxes[:, 1::2] = boxes[:, 1::2] * width / image.size[0] + left
            boxes[:, 2::2] = boxes[:, 2::2] * height / image.size[1] + top
            rows[number, : len(boxes)] = boxes.float()
            rows[number, : len(boxes), 1:] = torch.minimum(rows[number, : len(boxes), 1:], bounds)
    return rows


def _placed(has: tuple[int, int], size: tuple[int, int], fit: Fit) -> tuple[int, int, int, int]:
    """Where an image lies in the common size: its new width and height, and how far from the left and the top."""
    height, width = size
    if fit == "stretch":
        return width, height, 0, 0
    scale = min(width / has[0], height / has[1])
    w, h = max(round(has[0] * scale), 1), max(round(has[1] * scale), 1)
    return w, h, (width - w) // 2, (height - h) // 2


def _reader(size: tuple[int, int], fit: Fit) -> Read:
    """What reads an image in the common size: in a letterbox, black around it."""
    from PIL import Image

    def read(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise TrainError(f"{path} must be an image, but: {error}") from error
        width, height, left, top = _placed(image.size, size, fit)
        whole = Image.new("RGB", (size[1], size[0]))
        whole.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        return np.asarray(whole).transpose(2, 0, 1)

    return read
