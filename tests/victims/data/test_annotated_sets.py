"""Pascal VOC, Oxford-IIIT Pet and COCO in the layouts of torchvision, with what is wrong with their labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from splitleak.victims.data.base import IGNORED, Source
from splitleak.victims.data.sources.coco import Coco
from splitleak.victims.data.sources.oxford_pets import OxfordPets
from splitleak.victims.data.sources.pascal_voc import THINGS, VOCDetection, VOCSegmentation
from splitleak.victims.errors import InvalidInputError

WIDE = (24, 16)
"""Width and height; the central square begins 4 pixels from the left."""


def photo(path: Path, size: tuple[int, int] = WIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path, numbers: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8))
    if path.parent.name == "SegmentationClass":  # numbers are places in a palette there
        image.putpalette([channel for colour in range(256) for channel in (colour, 255 - colour, 0)])
    image.save(path)


def halves(left: int, right: int, size: tuple[int, int] = WIDE) -> np.ndarray[Any, Any]:
    """A mask of two numbers side by side."""
    numbers = np.full((size[1], size[0]), left)
    numbers[:, size[0] // 2 :] = right
    return numbers


def lines(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def xml(things: list[tuple[str, tuple[int, ...], int]], size: tuple[int, int] = WIDE) -> str:
    boxes = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, difficult in things
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{boxes}</annotation>"


def voc_segmentation(root: Path) -> VOCSegmentation:
    base = root / "VOCdevkit" / "VOC2012"
    for part, names in (("train", ["2007_000001", "2007_000002"]), ("val", ["2007_000003"])):
        lines(base / "ImageSets" / "Segmentation" / f"{part}.txt", names)
        for name in names:
            photo(base / "JPEGImages" / f"{name}.jpg")
            mask(base / "SegmentationClass" / f"{name}.png", halves(15, 255))
    return VOCSegmentation(path=str(root))


def voc_detection(root: Path) -> VOCDetection:
    base = root / "VOCdevkit" / "VOC2012"
    # the first box lies left of the central square, the second half in it, the third counts for nobody
    things = [("dog", (1, 1, 4, 8), 0), ("person", (1, 1, 12, 16), 0), ("cat", (9, 1, 12, 4), 1)]
    for part, names in (("train", ["a1", "a2"]), ("val", ["a3"])):
        lines(base / "ImageSets" / "Main" / f"{part}.txt", names)
        for name in names:
            photo(base / "JPEGImages" / f"{name}.jpg")
            lines(base / "Annotations" / f"{name}.xml", [xml(things)])
    return VOCDetection(path=str(root))


def oxford_pets(root: Path) -> OxfordPets:
    base = root / "oxford-iiit-pet"
    for part, rows in (("trainval", ["Abyssinian_1 1 1 1", "beagle_1 2 2 1"]), ("test", ["Abyssinian_2 1 1 1"])):
        lines(base / "annotations" / f"{part}.txt", rows)
        for row in rows:
            photo(base / "images" / f"{row.split()[0]}.jpg")
            numbers = halves(1, 2)
            numbers[:, 11:13] = 3
            mask(base / "annotations" / "trimaps" / f"{row.split()[0]}.png", numbers)
    return OxfordPets(path=str(root))


def coco(root: Path, **changed: Any) -> Coco:
    photos = [{"id": 9, "file_name": "9.jpg", "width": 24, "height": 16}, {"id": 4, "file_name": "4.jpg"}]
    photos[1] |= {"width": 24, "height": 16}
    for one in photos:
        photo(root / "val2017" / str(one["file_name"]))
    things = [
        {"image_id": 9, "category_id": 18, "bbox": [4, 0, 8, 16], "iscrowd": 0},
        {"image_id": 9, "category_id": 1, "bbox": [4, 0, 8, 16], "iscrowd": 1},
    ]
    things[0] |= changed
    kinds = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    told = {"images": photos, "annotations": things, "categories": kinds}
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))
    return Coco(path=str(root))


def test_voc_masks_lie_on_the_central_square(tmp_path: Path) -> None:
    source = voc_segmentation(tmp_path)
    catalog = source.catalog()
    assert catalog.split == ("train", "train", "target")
    assert catalog.annotations["things"].classes == ("background", *THINGS)
    (found,) = source.annotate("things", [2], 16)
    assert found.dtype == torch.uint8
    assert (found[:, :8] == THINGS.index("person") + 1).all()
    assert (found[:, 8:] == IGNORED).all()
    assert source.read([2], 16).images.shape == (1, 3, 16, 16)


def test_voc_boxes_of_things_that_are_on_the_square_are_shares_of_it(tmp_path: Path) -> None:
    source = voc_detection(tmp_path)
    catalog = source.catalog()
    assert catalog.names == ("a1.jpg", "a2.jpg", "a3.jpg")
    assert catalog.notes == ("left out 3 things: their authors call them difficult",)
    found = source.annotate("things", [0], 32)
    # 8 of the 12 columns of the person are on the square, none of the dog's
    assert found.tolist() == [[[0.0, 0.0, 0.5, 1.0, THINGS.index("person")]]]


def test_pets_have_outlines_species_and_breeds(tmp_path: Path) -> None:
    source = oxford_pets(tmp_path)
    catalog = source.catalog()
    assert catalog.labels["species"].values.tolist() == [0, 1, 0]
    assert catalog.labels["breed"].classes == ("Abyssinian", "Beagle")
    assert catalog.split == ("train", "train", "target")
    (found,) = source.annotate("outline", [1], 16)
    assert found[0].tolist() == [1] * 7 + [IGNORED] * 2 + [0] * 7


def test_coco_boxes_leave_crowds_out_and_number_classes_in_their_order(tmp_path: Path) -> None:
    source = coco(tmp_path)
    catalog = source.catalog()
    assert catalog.names == ("4.jpg", "9.jpg")
    assert catalog.annotations["things"].classes == ("person", "dog")
    assert catalog.notes == ("left out 1 thing: they are crowds",)
    found = source.annotate("things", [0, 1], 16)
    assert found[0].tolist() == [[-1] * 5]
    assert found[1].tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]


def outside(root: Path) -> Source:
    return coco(root, bbox=[20, 0, 9, 4])


def without_area(root: Path) -> Source:
    return coco(root, bbox=[4, 2, 0, 4])


def odd_category(root: Path) -> Source:
    return coco(root, category_id=77)


def voc_outside(root: Path) -> Source:
    source = voc_detection(root)
    lines(root / "VOCdevkit/VOC2012/Annotations/a2.xml", [xml([("dog", (1, 1, 30, 8), 0)])])
    return source


def odd_thing(root: Path) -> Source:
    source = voc_detection(root)
    lines(root / "VOCdevkit/VOC2012/Annotations/a2.xml", [xml([("dragon", (1, 1, 3, 8), 0)])])
    return source


def no_xml(root: Path) -> Source:
    source = voc_detection(root)
    lines(root / "VOCdevkit/VOC2012/Annotations/a2.xml", ["<annotation><size>"])
    return source


def of_another_photo(root: Path) -> Source:
    source = voc_detection(root)
    photo(root / "VOCdevkit/VOC2012/JPEGImages/a2.jpg", (20, 20))
    return source


def small_mask(root: Path) -> Source:
    source = oxford_pets(root)
    mask(root / "oxford-iiit-pet/annotations/trimaps/beagle_1.png", halves(1, 2, (8, 8)))
    return source


def odd_number(root: Path) -> Source:
    source = oxford_pets(root)
    mask(root / "oxford-iiit-pet/annotations/trimaps/beagle_1.png", halves(1, 7))
    return source


def no_picture(root: Path) -> Source:
    source = voc_segmentation(root)
    (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000002.png").write_bytes(b"no picture")
    return source


WRONG: list[tuple[Callable[[Path], Source], str]] = [
    (outside, r"coco: '9.jpg': the box \(20, 0, 29, 4\) lies outside the photo of 24 x 16 pixels"),
    (without_area, r"coco: '9.jpg': the box \(4, 2, 4, 6\) has no area"),
    (odd_category, "coco: '9.jpg': unknown class '77'"),
    (voc_outside, r"voc_detection: 'a2.xml': the box \(0, 0, 30, 8\) lies outside the photo of 24 x 16 pixels"),
    (odd_thing, "voc_detection: 'a2.xml': unknown class 'dragon'"),
    (no_xml, "voc_detection: 'a2.xml' is no annotation of Pascal VOC"),
    (of_another_photo, "voc_detection: 'a2.jpg': the annotation is of 24 x 16 pixels, the photo of 20 x 20"),
    (small_mask, "oxford_pets: 'beagle_1.jpg': the annotation is of 8 x 8 pixels, the photo of 24 x 16"),
    (odd_number, "oxford_pets: 'beagle_1.jpg': the mask holds 7, which is no class; known: 1, 2, 3"),
    (no_picture, "voc_segmentation: '2007_000002.jpg': the mask is unreadable"),
]


@pytest.mark.parametrize(("made", "said"), WRONG)
def test_a_bad_label_is_one_clear_line(made: Callable[[Path], Source], said: str, tmp_path: Path) -> None:
    source = made(tmp_path)
    with pytest.raises(InvalidInputError, match=said) as caught:
        source.annotate(next(iter(source.catalog().annotations)), [0, 1], 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("made", [voc_segmentation, voc_detection, oxford_pets, coco])
def test_the_fingerprint_follows_the_labels(made: Callable[[Path], Source], tmp_path: Path) -> None:
    source = made(tmp_path)
    before = source.fingerprint()
    file = next(
        path
        for path in sorted(tmp_path.rglob("*"))
        if path.suffix in (".xml", ".json") or path.parent.name in ("trimaps", "SegmentationClass")
    )
    file.write_bytes(file.read_bytes() + b" ")
    assert source.fingerprint() != before


@pytest.mark.parametrize("made", [voc_segmentation, voc_detection, oxford_pets, coco])
def test_a_missing_root_says_how_to_get_the_data(made: Callable[[Path], Source], tmp_path: Path) -> None:
    kind = type(made(tmp_path))
    with pytest.raises(InvalidInputError, match=kind.how_to_get.partition(" ")[0]):  # type: ignore[attr-defined]
        kind(path=str(tmp_path / "nowhere")).catalog()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="needs the file"):
        kind(path=str(tmp_path / "empty")).catalog()


def test_another_label_than_these_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown annotation of coco: 'masks'"):
        coco(tmp_path).annotate("masks", [0], 16)
