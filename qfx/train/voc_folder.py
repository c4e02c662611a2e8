"""Pascal VOC folders (Everingham et al., 2010): images with boxes from XML files; nothing is downloaded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from qfx.arguments import as_path
from qfx.errors import TrainError
from qfx.train.detection import Detection, Fit, Labelled, checked_box, detection, image_size, require_choices

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc(
    folder: Path | str,
    size: tuple[int, int],
    fit: Fit = "letterbox",
    classes: Sequence[str] | None = None,
    one_based: bool = False,
    difficult: bool = False,
    mend: bool = False,
) -> Detection:
    """Return the images of ``JPEGImages`` that ``ImageSets/Main/{train,val,test}.txt`` list, pixels 0..255, with boxes.

    Boxes come from ``Annotations/<id>.xml``. There must be train.txt and one of the others; without test.txt, val.txt
    is the test set.

    Args:
        size: height and width that all images get (bilinear).
        fit: ``letterbox`` keeps the proportions, black around the image; ``stretch`` does not.
        classes: their names, in the order of the labels, boxes of others being left out; by default all of the training
            set, in alphabetical order, and one that only another set has is refused.
        one_based: xmin and ymin count pixels from 1, as in the original VOC data sets.
        difficult: keep objects that are marked so, too.
        mend: clip boxes that reach out of their image and leave out those that are empty, instead of refusing them.

    Raises:
        TrainError: a file is missing or not as it must be; its name and the line are said.
    """
    require_choices(size, fit, classes)
    folder = as_path(TrainError, "folder", folder)
    lists = folder / "ImageSets" / "Main"
    there = [part for part in ("train", "val", "test") if (lists / f"{part}.txt").is_file()]
    if "train" not in there or len(there) == 1:
        raise TrainError(
            f"{lists} must hold train.txt, and test.txt or val.txt, but holds {', '.join(there) or 'none of them'} "
            "(nothing is downloaded)"
        )
    read = {part: list(_annotations(folder, ids)) for part, ids in _ids(lists, there).items()}
    names = _classes(read["train"]) if classes is None else tuple(classes)
    numbers = {name: number for number, name in enumerate(names)}
    parts = {
        part: [
            _image(folder, path, root, numbers, classes is not None, one_based, difficult, mend) for path, root in found
        ]
        for part, found in read.items()
    }
    if "test" not in parts:
        parts["test"] = parts.pop("val")
    return detection(parts, names, size, fit, folder)


def _ids(lists: Path, parts: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """The ids of each part, and where each stands; one stands once in all of them."""
    seen: dict[str, str] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    for part in parts:
        path = lists / f"{part}.txt"
        found[part] = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if words := line.split():
                where = f"{path}:{number}"
                if words[0] in seen:
                    raise TrainError(f"{where}: image {words[0]!r} must stand once, but stands at {seen[words[0]]} too")
                seen[words[0]] = where
                found[part].append((words[0], where))
        if not found[part]:
            raise TrainError(f"{path} must list images, but is empty")
    return found


def _annotations(folder: Path, ids: Sequence[tuple[str, str]]) -> Iterator[tuple[Path, Element]]:
    for name, where in ids:
        path = folder / "Annotations" / f"{name}.xml"
        if not path.is_file():
            raise TrainError(f"{where}: image {name!r} must have its boxes in {path}, but there is no such file")
        yield path, parsed(path)


def _classes(read: Sequence[tuple[Path, Element]]) -> tuple[str, ...]:
    names = {_text(path, entry, "name") for path, root in read for entry in root.iter("object")}
    if not names:
        raise TrainError(f"{read[0][0].parent} must hold objects of the training set, but there are none")
    return tuple(sorted(names))


def _image(
    folder: Path,
    path: Path,
    root: Element,
    numbers: dict[str, int],
    others: bool,  # whether objects may be of other classes, and are left out
    one_based: bool,
    difficult: bool,
    mend: bool,
) -> Labelled:
    names = [folder / "JPEGImages" / f"{path.stem}{suffix}" for suffix in _SUFFIXES]
    place = next((name for name in names if name.is_file()), names[0])
    size = image_size(place, str(path))
    _require_size(path, root, size)
    boxes = []
    for entry in root.iter("object"):
        name, where = _text(path, entry, "name"), _place(path, entry)
        if name not in numbers and others:
            continue
        if name not in numbers:
            raise TrainError(f"{where}: an object must be of one of the classes {', '.join(numbers)}, not {name!r}")
        if entry.findtext("difficult", "0").strip() == "1" and not difficult:
            continue
        given = entry.find("bndbox")
        if given is None:
            raise TrainError(f"{where}: an object must have a bndbox, but has none")
        left, top, right, bottom = (_number(path, given, side) for side in _SIDES)
        corner = (left - one_based, top - one_based, right, bottom)
        if box := checked_box(f"{_place(path, given)}: the box of a {name}", corner, size, mend):
            boxes.append((numbers[name], *box))
    return Labelled(place, size, tuple(boxes))


def _require_size(path: Path, root: Element, size: tuple[int, int]) -> None:
    stated = root.find("size")
    if stated is not None:
        said = (_number(path, stated, "width"), _number(path, stated, "height"))
        if said != size:
            raise TrainError(
                f"{_place(path, stated)}: the size must be that of the image, {size[0]} x {size[1]}, not "
                f"{said[0]:g} x {said[1]:g}"
            )


def _number(path: Path, entry: Element, name: str) -> float:
    text = _text(path, entry, name)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise TrainError(f"{_place(path, entry)}: {name} must be a number, not {text!r}")
    return value


def _text(path: Path, entry: Element, name: str) -> str:
    text = (entry.findtext(name) or "").strip()
    if not text:
        raise TrainError(f"{_place(path, entry)}: {entry.tag} must have a {name}, but has none")
    return text


def _place(path: Path, entry: Element) -> str:
    return f"{path}:{entry.get(_LINE)}"


_LINE = "line"  # the attribute that an element is given for messages


def parsed(path: Path) -> Element:
    """Return the root of an XML file, each element with its line; no document type, and so no entity, is taken.

    Raises:
        TrainError: it is no such file.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise TrainError(f"{path}:{parser.CurrentLineNumber}: the file must have no document type (DOCTYPE), but has")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, _: builder.start(tag, {_LINE: str(parser.CurrentLineNumber)})
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise TrainError(
            f"{path}:{error.lineno}: the file must be XML, but: {expat.ErrorString(error.code)}"
        ) from error
    root: Element = builder.close()
    return root
