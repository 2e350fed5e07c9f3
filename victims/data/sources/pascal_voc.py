"""Pascal Visual Object Classes, in the layout of torchvision.datasets.VOCSegmentation and VOCDetection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from xml.etree.ElementTree import Element, ParseError, parse

from torch import Tensor
from torchvision import datasets
from torchvision.datasets.voc import DATASET_YEAR_DICT

from splitleak.victims.data.annotations import Box, Boxes, class_of
from splitleak.victims.data.base import IGNORED, Annotation, Catalog
from splitleak.victims.data.notes import shown
from splitleak.victims.data.sources.annotated import Boxed, Listing, Masked
from splitleak.victims.data.sources.torchvision_sets import FileList, PhotosOfTorchvision
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc

THINGS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SETS = {"train": "train", "val": "target"}
"""torchvision's image sets, and what they are here."""
EDGES = ("xmin", "ymin", "xmax", "ymax")
BORDER = 255


@dataclass(frozen=True)
class _PascalVOC(PhotosOfTorchvision):
    how_to_get: ClassVar[str] = (
        "get it from http://host.robots.ox.ac.uk/pascal/VOC/ or with torchvision.datasets.VOCDetection(root, "
        "download=True)"
    )
    lists: ClassVar[str]
    """The folder below ImageSets."""
    labels: ClassVar[tuple[str, str]]
    """The folder of the annotations, and how their names end."""

    year: Annotated[Literal["2007", "2012"], doc("of the challenge")] = "2012"

    def _base(self) -> str:
        return Path(DATASET_YEAR_DICT[self.year]["base_dir"]).as_posix()

    def _folder(self) -> Path:
        return self._root() / self._base() / "JPEGImages"

    def _listed(self, part: str) -> list[str]:
        path = self._root() / self._base() / "ImageSets" / self.lists / f"{part}.txt"
        if not path.is_file():
            raise InvalidInputError(f"{self.name} needs the file {path}; {self.how_to_get}")
        return path.read_text().split()

    def _label(self, name: str) -> str:
        folder, ending = self.labels
        return f"{self._base()}/{folder}/{name}{ending}"

    def _files(self) -> FileList:
        lists = [f"{self._base()}/ImageSets/{self.lists}/{part}.txt" for part in SETS]
        labels = [self._label(name) for part in SETS for name in self._listed(part)]
        return [(name, None) for name in (*lists, *labels)]

    def _split(self) -> tuple[str, ...]:
        return tuple(ours for part, ours in SETS.items() for _ in self._listed(part))


@dataclass(frozen=True)
class VOCSegmentation(_PascalVOC, Masked):
    """Pascal VOC: Everingham, Van Gool, Williams, Winn, Zisserman, IJCV 2010. Of each pixel, which of 20 things.

    The task "things"; pixels at borders count nowhere. The authors' val set, which nobody trains on, are the targets.
    """

    name: ClassVar[str] = "voc_segmentation"
    summary: ClassVar[str] = "Pascal VOC: 20 things and background, of each pixel, official split"
    lists: ClassVar[str] = "Segmentation"
    labels: ClassVar[tuple[str, str]] = ("SegmentationClass", ".png")

    def _load(self, root: Path) -> Any:
        return tuple(
            Path(image).name for part in SETS for image in datasets.VOCSegmentation(str(root), self.year, part).images
        )

    def _names(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self._data()
        return names

    def catalog(self) -> Catalog:
        """The train set, then the val set."""
        annotations = {"things": Annotation("mask", ("background", *THINGS))}
        return Catalog(self._complete(), split=self._split(), annotations=annotations)

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """Masks on the photo's central square.

        Raises:
            InvalidInputError: another name, or a mask of another size or with a number that is no class.
        """
        return self._masks(chosen, size) if name == "things" else super().annotate(name, chosen, size)

    def _mask(self, root: Path, name: str) -> Path:
        return root / self._label(Path(name).stem)

    def _numbers(self) -> dict[int, int]:
        return {**{number: number for number in range(1 + len(THINGS))}, BORDER: IGNORED}


@dataclass(frozen=True)
class VOCDetection(_PascalVOC, Boxed):
    """Pascal VOC: Everingham, Van Gool, Williams, Winn, Zisserman, IJCV 2010. Boxes of 20 kinds of things.

    The task "things"; those that the authors call difficult are left out, as in the challenge. The authors' val set
    are the targets.
    """

    name: ClassVar[str] = "voc_detection"
    summary: ClassVar[str] = "Pascal VOC: boxes of 20 kinds of things, official split"
    lists: ClassVar[str] = "Main"
    labels: ClassVar[tuple[str, str]] = ("Annotations", ".xml")

    def _load(self, root: Path) -> Any:
        names: list[str] = []
        boxes: list[Boxes] = []
        left_out = 0
        for part in SETS:
            files = datasets.VOCDetection(str(root), self.year, part)
            for image, annotation in zip(files.images, files.annotations, strict=True):
                found, difficult = _boxes(Path(annotation), f"{self.name}: '{shown(Path(annotation).name)}'")
                names.append(Path(image).name)
                boxes.append(found)
                left_out += difficult
        return Listing(tuple(names), tuple(boxes), left_out, "their authors call them difficult")

    def catalog(self) -> Catalog:
        """The train set, then the val set."""
        annotations = {"things": Annotation("boxes", THINGS)}
        return Catalog(self._complete(), split=self._split(), annotations=annotations, notes=self._data().notes)


def _boxes(path: Path, where: str) -> tuple[Boxes, int]:
    """What a file says, and how many difficult things it names."""
    try:
        root = parse(path).getroot()
        size = (int(_text(root, "size/width")), int(_text(root, "size/height")))
        things = [(of, _text(of, "name"), _text(of, "difficult", "0") == "1") for of in root.findall("object")]
        edges = [[float(_text(of, f"bndbox/{edge}")) for edge in EDGES] for of, _, _ in things]
    except (ParseError, ValueError) as error:
        raise InvalidInputError(f"{where} is no annotation of Pascal VOC: {error}") from None
    numbers = {name: number for number, name in enumerate(THINGS)}
    found = []
    for (_, name, difficult), (left, top, right, bottom) in zip(things, edges, strict=True):
        # edges count pixels from 1
        box = Box(left - 1, top - 1, right, bottom, class_of(name, numbers, where)).checked(size, where)
        found += [] if difficult else [box]
    return Boxes(size, tuple(found)), sum(difficult for _, _, difficult in things)


def _text(node: Element, path: str, otherwise: str | None = None) -> str:
    text = node.findtext(path, otherwise)
    if text is None:
        raise ValueError(f"<{path}> is missing")
    return text.strip()
