"""COCO folders (Lin et al., 2014): images with boxes from a JSON file for each part; nothing is downloaded."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qfx.arguments import as_path
from qfx.errors import TrainError
from qfx.train.detection import Detection, Fit, Labelled, checked_box, detection, image_size, require_choices

_INSTANCES = "instances_"


def coco(
    folder: Path | str,
    size: tuple[int, int],
    fit: Fit = "letterbox",
    classes: Sequence[str] | None = None,
    crowd: bool = False,
    mend: bool = False,
) -> Detection:
    """Return the images of COCO's ``train*``, ``val*`` and ``test*``, pixels 0..255, with boxes.

    The boxes of the images in ``train2017`` come from ``annotations/instances_train2017.json``; other years likewise.
    There must be train and one of the others; without test, val is the test set.

    Args:
        size: height and width that all images get (bilinear).
        fit: ``letterbox`` keeps the proportions, black around the image; ``stretch`` does not.
        classes: their names, in the order of the labels, boxes of others being left out; by default all categories, in
            the order of their ids.
        crowd: keep boxes that are marked ``iscrowd``, too.
        mend: clip boxes that reach out of their image and leave out those that are empty, instead of refusing them.

    Raises:
        TrainError: a file is missing or not as it must be; its name and the id are said.
    """
    require_choices(size, fit, classes)
    folder = as_path(TrainError, "folder", folder)
    files = _files(folder)
    contents = {part: _content(path) for part, path in files.items()}
    names = {part: _categories(files[part], content) for part, content in contents.items()}
    for part, found in names.items():
        if found != names["train"]:
            raise TrainError(f"{files[part]} must have the categories of {files['train']}, but has others")
    known = names["train"]
    order = tuple(known.values()) if classes is None else tuple(classes)
    if unknown := [name for name in order if name not in known.values()]:
        raise TrainError(f"classes must be categories of {files['train']}, but it has no {unknown[0]!r}")
    numbers = {number: order.index(name) if name in order else None for number, name in known.items()}
    parts = {part: _images(files[part], contents[part], numbers, crowd, mend) for part in files}
    if "test" not in parts:
        parts["test"] = parts.pop("val")
    return detection(parts, order, size, fit, folder)


def _files(folder: Path) -> dict[str, Path]:
    """The file of each part."""
    place = folder / "annotations"
    found: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        paths = sorted(place.glob(f"{_INSTANCES}{part}*.json"))
        if len(paths) > 1:
            raise TrainError(f"{place} must hold one file {_INSTANCES}{part}*.json, not {paths[0].name} and others")
        if paths:
            found[part] = paths[0]
    if "train" not in found or len(found) == 1:
        raise TrainError(
            f"{place} must hold {_INSTANCES}train*.json, and one for test or val, but holds "
            f"{', '.join(path.name for path in found.values()) or 'none of them'} (nothing is downloaded)"
        )
    return found


def _content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a file, each entry a mapping."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TrainError(f"{path} must be JSON, but: {error}") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in lists):
        raise TrainError(f"{path} must hold the lists {', '.join(lists)}, as COCO's instances do")
    for key in lists:
        for entry in content[key]:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise TrainError(f"{path}: each of {key} must be a mapping with an integer id, not {str(entry)[:60]}")
        _require_once(path, f"{key}, and its id,", [entry["id"] for entry in content[key]])
    return {key: content[key] for key in lists}


def _require_once(path: Path, key: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise TrainError(f"{path}: each of {key} must stand once, but {value} stands twice")
        seen.add(value)


def _categories(path: Path, content: Mapping[str, list[dict[str, Any]]]) -> dict[int, str]:
    """The names of categories by id, in the order of ids."""
    found = {entry["id"]: str(entry.get("name", "")).strip() for entry in content["categories"]}
    if not found or not all(found.values()) or len(set(found.values())) < len(found):
        raise TrainError(f"{path} must hold categories with names that differ, but does not")
    return dict(sorted(found.items()))


def _images(
    path: Path,
    content: Mapping[str, list[dict[str, Any]]],
    numbers: Mapping[int, int | None],
    crowd: bool,
    mend: bool,
) -> list[Labelled]:
    """The images of a part with their boxes, in the order of ids."""
    if not content["images"]:
        raise TrainError(f"{path} must list images, but has none")
    place = path.parent.parent / path.stem.removeprefix(_INSTANCES)
    _require_once(path, "images, and its file_name,", [entry.get("file_name") for entry in content["images"]])
    sizes = {entry["id"]: _size(path, entry, place) for entry in content["images"]}
    boxes: dict[int, list[tuple[int, float, float, float, float]]] = {number: [] for number in sizes}
    for entry in content["annotations"]:
        where = f"{path}: annotation {entry['id']}"
        image, kind = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image, int) or image not in sizes:
            raise TrainError(f"{where} must be of an image of this file, not of {image!r}")
        if not isinstance(kind, int) or kind not in numbers:
            raise TrainError(f"{where} must be of a category of this file, not of {kind!r}")
        number = numbers[kind]
        if number is None or (entry.get("iscrowd") and not crowd):
            continue
        left, top, width, height = _bbox(where, entry)
        corners = (left, top, left + width, top + height)
        if box := checked_box(f"{where}, its box,", corners, sizes[image][1], mend):
            boxes[image].append((number, *box))
    return [Labelled(*sizes[number], tuple(boxes[number])) for number in sorted(sizes)]


def _size(path: Path, entry: Mapping[str, Any], place: Path) -> tuple[Path, tuple[int, int]]:
    """Where an image is, and its size, which must be the one that is stated."""
    where = f"{path}: image {entry['id']}"
    name = entry.get("file_name")
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts or not name:
        raise TrainError(f"{where} must have a file_name within {place}, not {name!r}")
    size = image_size(place / name, where)
    stated = (entry.get("width", size[0]), entry.get("height", size[1]))
    if stated != size:
        raise TrainError(
            f"{where} must have the size of its file, {size[0]} x {size[1]}, not {stated[0]} x {stated[1]}"
        )
    return place / name, size


def _bbox(where: str, entry: Mapping[str, Any]) -> list[float]:
    box = entry.get("bbox")
    numbers = isinstance(box, list) and len(box) == 4
    numbers = numbers and all(isinstance(v, int | float) and math.isfinite(v) for v in box or ())
    if not numbers:
        raise TrainError(f"{where} must have a bbox of four numbers (left, top, width, height), not {box!r}")
    return [float(value) for value in box or ()]
