"""VOC and COCO folders: boxes follow their pixels, and what is wrong with a file is said with its place."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qfx.errors import TrainError
from qfx.train import Detection, coco, voc
from qfx.train.pictures import Pictures

SPLITS = {"train": ("a", "b"), "val": ("c",), "test": ("d",)}
BOXES: dict[str, list[tuple[str, int, int, int, int]]] = {
    "a": [("cat", 4, 2, 12, 6), ("dog", 0, 0, 3, 3)],
    "b": [("dog", 10, 5, 20, 10)],
    "c": [("cat", 1, 1, 2, 2)],
    "d": [],
}
WIDTH, HEIGHT = 20, 10


def paint(path: Path, boxes: list[tuple[str, int, int, int, int]]) -> None:
    """An image that is white where the first box is, and black elsewhere."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for _, left, top, right, bottom in boxes[:1]:
        pixels[top:bottom, left:right] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def entry(name: str, left: float, top: float, right: float, bottom: float, more: str = "") -> str:
    box = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<object>\n<name>{name}</name>{more}\n<bndbox>{box}</bndbox></object>\n"


def annotation(objects: str, width: int = WIDTH) -> str:
    size = f"<size><width>{width}</width><height>{HEIGHT}</height></size>"
    return f"<annotation>\n{size}\n{objects}</annotation>\n"


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for part, names in SPLITS.items():
        (tmp_path / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{name}  1\n" for name in names))
        for name in names:
            paint(tmp_path / "JPEGImages" / f"{name}.png", BOXES[name])
            text = annotation("".join(entry(*box) for box in BOXES[name]))
            (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    return tmp_path


Change = Callable[[dict[str, Any]], None]


def write_coco(folder: Path, change: Change = lambda content: None, part: str = "train") -> Path:
    """A COCO folder with the same images and boxes; ``change`` spoils the file of a part."""
    for name, images in SPLITS.items():
        content: dict[str, Any] = {
            "images": [
                {"id": ord(image), "file_name": f"{image}.png", "width": WIDTH, "height": HEIGHT} for image in images
            ],
            "annotations": [
                {
                    "id": 10 * ord(image) + number,
                    "image_id": ord(image),
                    "category_id": {"cat": 17, "dog": 18}[kind],
                    "bbox": [left, top, right - left, bottom - top],
                }
                for image in images
                for number, (kind, left, top, right, bottom) in enumerate(BOXES[image])
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        }
        for image in images:
            paint(folder / f"{name}2017" / f"{image}.png", BOXES[image])
        if name == part:
            change(content)
        place = folder / "annotations" / f"instances_{name}2017.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(content))
    return folder


def covered(data: Detection) -> Tensor:
    """The pixels that the first box of the first training image covers, as its picture shows them."""
    _, left, top, right, bottom = data.train_y[0, 0].int().tolist()
    mask = torch.zeros(data.train_x.shape[2:])
    mask[top:bottom, left:right] = 255.0
    return mask


@pytest.mark.parametrize("read", [voc, coco])
def test_both_forms_give_the_same_images_and_boxes(read: Callable[..., Detection], voc_folder: Path) -> None:
    data = read(write_coco(voc_folder), (HEIGHT, WIDTH))
    assert data.classes == ("cat", "dog")
    none = [-1.0] * 5
    assert data.train_y.tolist() == [[[0, 4, 2, 12, 6], [1, 0, 0, 3, 3]], [[1, 10, 5, 20, 10], none]]
    assert data.val_y.tolist() == [[[0, 1, 1, 2, 2]]] and data.test_y.tolist() == [[none]]
    assert torch.equal(data.train_x[0, 0], covered(data)) and torch.equal(data.test_x[:], torch.zeros(1, 3, 10, 20))


@pytest.mark.parametrize(
    ("size", "fit", "box"),
    [
        ((20, 40), "letterbox", [8, 4, 24, 12]),
        ((40, 40), "letterbox", [8, 14, 24, 22]),
        ((40, 40), "stretch", [8, 8, 24, 24]),
        ((20, 60), "letterbox", [18, 4, 34, 12]),
    ],
)
def test_boxes_follow_their_pixels(voc_folder: Path, size: tuple[int, int], fit: Any, box: list[int]) -> None:
    data = voc(voc_folder, size, fit)
    assert data.train_x.shape == (2, 3, *size) and data.train_y[0, 0, 1:].tolist() == box
    shown, wanted = data.train_x[0, 0] > 105, covered(data) > 105  # the corners of a resized box are darker
    assert torch.equal(shown, wanted)
    shifted = data.train_y[0, 0].clone()
    shifted[1:] += 1  # a box that does not follow is seen
    data.train_y[0, 0] = shifted
    assert not torch.equal(shown, covered(data) > 105)


def test_pixels_counted_from_one_difficult_objects_and_classes_in_another_order(voc_folder: Path) -> None:
    place = voc_folder / "Annotations" / "a.xml"
    place.write_text(annotation(entry("cat", 5, 3, 12, 6) + entry("dog", 1, 1, 3, 3, "<difficult>1</difficult>")))
    data = voc(voc_folder, (HEIGHT, WIDTH), one_based=True, classes=["dog", "cat"])
    assert data.train_y[0].tolist() == [[1, 4, 2, 12, 6]]
    assert torch.equal(data.train_x[0, 0], covered(data))
    kept = voc(voc_folder, (HEIGHT, WIDTH), one_based=True, difficult=True)
    assert kept.train_y[0].tolist() == [[0, 4, 2, 12, 6], [1, 0, 0, 3, 3]]


def test_without_test_the_validation_set_is_the_test_set(voc_folder: Path) -> None:
    (voc_folder / "ImageSets" / "Main" / "test.txt").unlink()
    data = voc(voc_folder, (HEIGHT, WIDTH))
    assert data.test_y.tolist() == [[[0, 1, 1, 2, 2]]] and len(data.val_x) == 0
    (write_coco(voc_folder) / "annotations" / "instances_test2017.json").unlink()
    assert coco(voc_folder, (HEIGHT, WIDTH)).test_y.tolist() == [[[0, 1, 1, 2, 2]]]


def test_mending_clips_boxes_and_leaves_empty_ones_out(voc_folder: Path) -> None:
    place = voc_folder / "Annotations" / "b.xml"
    place.write_text(annotation(entry("dog", -2, 5, 25, 10) + entry("dog", 3, 3, 3, 9)))
    assert voc(voc_folder, (HEIGHT, WIDTH), mend=True).train_y[1].tolist() == [[1, 0, 5, 20, 10], [-1] * 5]

    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][2]["bbox"] = [10, 5, 40, 9]
        content["annotations"].append({"id": 1, "image_id": ord("b"), "category_id": 17, "bbox": [1, 1, 0, 5]})

    assert coco(write_coco(voc_folder, spoil), (10, 20), mend=True).train_y[1].tolist() == [
        [1, 10, 5, 20, 10],
        [-1] * 5,
    ]


def test_crowds_and_other_classes_are_left_out(tmp_path: Path) -> None:
    def mark(content: dict[str, Any]) -> None:
        content["annotations"][1]["iscrowd"] = 1

    folder = write_coco(tmp_path, mark)
    assert coco(folder, (10, 20)).train_y[0].tolist() == [[0, 4, 2, 12, 6]]
    assert coco(folder, (10, 20), crowd=True).train_y[0, 1].tolist() == [1, 0, 0, 3, 3]
    assert coco(folder, (10, 20), classes=["dog"], crowd=True).train_y[0].tolist() == [[0, 0, 0, 3, 3]]


def test_voc_and_coco_leave_out_the_same_boxes_where_classes_are_named(voc_folder: Path) -> None:
    (voc_folder / "Annotations" / "d.xml").write_text(annotation(entry("cow", 1, 1, 2, 2)))
    dogs = voc(voc_folder, (HEIGHT, WIDTH), classes=["dog"])
    same = coco(write_coco(voc_folder), (HEIGHT, WIDTH), classes=["dog"])
    assert dogs.classes == same.classes == ("dog",) and dogs.train_y[..., 0].max() == 0
    assert torch.equal(dogs.train_y, same.train_y)


@pytest.mark.parametrize("read", [voc, coco])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 20}, r"size must be height and width, such as \(32, 32\), not 20"),
        ({"size": (0, 8)}, r"size must be height and width, such as \(32, 32\), not \(0, 8\)"),
        ({"fit": "crop"}, "fit must be 'letterbox' or 'stretch', not 'crop'"),
        ({"classes": "cat"}, r'classes must be a list of different names, such as \["cat", "dog"\], not \'cat\''),
        ({"classes": ["cat", "cat"]}, r"classes must be a list of different names, .* not \['cat', 'cat'\]"),
        ({"classes": []}, r"classes must be a list of different names, .* not \[\]"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    read: Callable[..., Detection], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainError, match=said):
        read(tmp_path, **{"size": (HEIGHT, WIDTH), **changes})


def test_images_that_have_no_room_stay_on_disk(voc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = voc(voc_folder, (40, 40))
    monkeypatch.setattr("qfx.train.pictures.HELD", 0)
    data = voc(voc_folder, (40, 40))
    assert isinstance(data.train_x, Pictures) and isinstance(held.train_x, Tensor)
    assert torch.equal(data.train_x[:], held.train_x) and torch.equal(data.train_y, held.train_y)


def spoil_xml(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "Annotations" / f"{name}.xml").write_text(text)

    return spoil


def spoil_list(part: str, text: str | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "ImageSets" / "Main" / f"{part}.txt"
        path.write_text(text) if text is not None else path.unlink()

    return spoil


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]>\n<annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: (f / "JPEGImages" / "b.png").unlink(),
            r"b.xml must have its image, but there is no .*JPEGImages/b.jpg",
        ),
        (lambda f: (f / "JPEGImages" / "b.png").write_bytes(b"no"), r"JPEGImages/b.png must be an image, but: "),
        (lambda f: (f / "Annotations" / "c.xml").unlink(), r"val.txt:1: image 'c' must have its boxes in .*c.xml, but"),
        (
            spoil_list("train", "a\n\nb\na\n"),
            r"train.txt:4: image 'a' must stand once, but stands at .*train.txt:1 too",
        ),
        (spoil_list("test", "b\n"), r"test.txt:1: image 'b' must stand once, but stands at .*train.txt:2 too"),
        (spoil_list("train", "\n"), r"train.txt must list images, but is empty"),
        (
            spoil_list("train", None),
            r"Main must hold train.txt, and test.txt or val.txt, but holds val, test \(nothing",
        ),
        (
            spoil_xml("b", annotation(entry("dog", 10, 5, 21, 10))),
            r"b.xml:5: the box of a dog must lie within its image of 20 x 10 pixels and not be empty, not 10, 5 to 21, "
            "10: correct it, or read with mend=True, which clips boxes and leaves empty ones out",
        ),
        (
            spoil_xml("b", annotation(entry("dog", 10, 5, 10, 9))),
            r"b.xml:5: the box of a dog must .* not be empty, not 10, 5",
        ),
        (
            spoil_xml("d", annotation(entry("cow", 1, 1, 2, 2))),
            r"d.xml:3: an object must be of one of the classes cat, dog, not 'cow'",
        ),
        (spoil_xml("a", annotation("", 21)), r"a.xml:2: the size must be that of the image, 20 x 10, not 21 x 10"),
        (spoil_xml("a", "<annotation>\n<object></annotation>"), r"a.xml:2: the file must be XML, but: mismatched tag"),
        (spoil_xml("a", ""), r"a.xml:1: the file must be XML, but: no element found"),
        (spoil_xml("a", BOMB), r"a.xml:2: the file must have no document type \(DOCTYPE\), but has"),
        (spoil_xml("a", annotation("<object>\n</object>")), r"a.xml:3: object must have a name, but has none"),
        (
            spoil_xml("a", annotation("<object><name>cat</name></object>")),
            r"a.xml:3: an object must have a bndbox, but",
        ),
        (spoil_xml("a", annotation(entry("cat", "x", 1, 2, 2))), r"a.xml:5: xmin must be a number, not 'x'"),  # type: ignore[arg-type]
        (spoil_xml("a", annotation(entry("cat", "nan", 1, 2, 2))), r"a.xml:5: xmin must be a number, not 'nan'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_with_a_voc_folder_is_said(voc_folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(voc_folder)
    with pytest.raises(TrainError, match=said):
        voc(voc_folder, (HEIGHT, WIDTH))


def test_a_class_without_a_box_is_refused(voc_folder: Path) -> None:
    said = f"the training set of {voc_folder} must have a box of every class, but has none of cow: leave them out of"
    with pytest.raises(TrainError, match=re.escape(said)):
        voc(voc_folder, (10, 20), classes=["cat", "dog", "cow"])
    spoil = write_coco(voc_folder, lambda content: content["annotations"].pop(0))
    with pytest.raises(TrainError, match="must have a box of every class, but has none of cat: leave them out of"):
        coco(spoil, (10, 20))


def put(key: str, number: int, **values: Any) -> Change:
    return lambda content: content[key][number].update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("images", 1, file_name="z.png"), r"json: image 98 must have its image, but there is no .*train2017/z.png"),
        (put("images", 1, file_name="../b.png"), r"json: image 98 must have a file_name within .*2017, not '../b.png'"),
        (put("images", 1, file_name="a.png"), r"each of images, and its file_name, must stand once, but a.png stands"),
        (put("images", 1, id=97), r"2017.json: each of images, and its id, must stand once, but 97 stands twice"),
        (put("images", 0, width=21), r"json: image 97 must have the size of its file, 20 x 10, not 21 x 10"),
        (put("annotations", 0, id=980), r"each of annotations, and its id, must stand once, but 980 stands twice"),
        (put("annotations", 0, id="x"), r"each of annotations must be a mapping with an integer id, not {'id': 'x'"),
        (put("annotations", 0, image_id=5), r"json: annotation 970 must be of an image of this file, not of 5"),
        (put("annotations", 0, category_id=[1]), r"annotation 970 must be of a category of this file, not of \[1\]"),
        (put("annotations", 0, bbox=[1, 2, 3]), r"annotation 970 must have a bbox of four numbers .*, not \[1, 2, 3\]"),
        (put("annotations", 0, bbox=[1, 2, 3, float("nan")]), r"annotation 970 must have a bbox of four numbers"),
        (
            put("annotations", 0, bbox=[15, 2, 6, 3]),
            r"annotation 970, its box, must lie within its image of 20 x 10 pixels and not be empty, not 15, 2 to 21",
        ),
        (
            put("annotations", 0, bbox=[1, 2, 0, 3]),
            r"annotation 970, its box, must lie .* not be empty, not 1, 2 to 1, 5",
        ),
        (put("categories", 0, name="cat"), r"json must hold categories with names that differ, but does not"),
        (put("categories", 0, name="cow"), r"instances_val2017.json must have the categories of .*, but has others"),
        (lambda content: content.pop("images"), r"json must hold the lists images, annotations, categories"),
        (lambda content: content["images"].clear(), r"json must list images, but has none"),
    ],
)
def test_what_is_wrong_with_a_coco_file_is_said(tmp_path: Path, change: Change, said: str) -> None:
    with pytest.raises(TrainError, match=said):
        coco(write_coco(tmp_path, change), (HEIGHT, WIDTH))


def test_files_that_are_missing_or_no_json_are_said(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    place = folder / "annotations" / "instances_train2017.json"
    place.write_text('{"images": [')
    with pytest.raises(TrainError, match=r"instances_train2017.json must be JSON, but: Expecting value: line 1"):
        coco(folder, (10, 20))
    place.rename(place.with_name("instances_trainval2017.json"))
    place.write_text("{}")
    with pytest.raises(
        TrainError, match=r"must hold one file instances_train\*.json, not instances_train2017.json and"
    ):
        coco(folder, (10, 20))
    with pytest.raises(TrainError, match=r"annotations must hold instances_train\*.json, and one for test or val, but"):
        coco(tmp_path / "nowhere", (10, 20))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            [2.0, 0, 0, 1, 1],
            "train boxes must be of a class 0..1 and lie within 20 x 10 pixels, left before right, top",
        ),
        ([0.0, 0, 0, 21, 1], r"top before bottom, not \[0.0, 0.0, 0.0, 21.0, 1.0\]"),
        ([0.0, 3, 0, 3, 1], r"not \[0.0, 3.0, 0.0, 3.0, 1.0\]"),
        ([0, float("nan"), 0, 3, 1], r"not \[0.0, nan, 0.0, 3.0, 1.0\]"),
    ],
)
def test_boxes_made_by_hand_are_checked(row: list[float], said: str) -> None:
    images = torch.zeros(1, 3, 10, 20)
    good = torch.tensor([[[0.0, 0, 0, 1, 1]]])
    assert len(Detection(images, good, images, good, ("cat", "dog")).val_x) == 0
    with pytest.raises(TrainError, match=said):
        Detection(images, torch.tensor([[row]]), images, good, ("cat", "dog"))
    with pytest.raises(TrainError, match=r"images \(N, C, H, W\) and boxes \(N, rows, 5\), not \(1, 3, 10, 20\) and"):
        Detection(images, good[0], images, good, ("cat", "dog"))
