"""Microsoft COCO's boxes, in the layout that torchvision.datasets.CocoDetection describes.

The annotations' file is read as the JSON that it is: torchvision's reader needs a package of its own for that.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from splitleak.victims.data.annotations import Box, Boxes, class_of
from splitleak.victims.data.base import Annotation, Catalog
from splitleak.victims.data.notes import shown
from splitleak.victims.data.sources.annotated import Boxed, Listing
from splitleak.victims.data.sources.torchvision_sets import FileList
from splitleak.victims.settings import doc


@dataclass(frozen=True)
class Coco(Boxed):
    """Microsoft COCO: Lin et al., ECCV 2014. Boxes of 80 kinds of things.

    The task "things"; crowds, which are boxed as one, are left out. One of its sets is taken, without a split.
    """

    summary: ClassVar[str] = "Microsoft COCO: boxes of 80 kinds of things, one of its sets"
    how_to_get: ClassVar[str] = (
        "get photos and annotations from https://cocodataset.org and unpack both in the root folder"
    )

    image_set: Annotated[Literal["train2017", "val2017", "train2014", "val2014"], doc("which of its sets")] = (
        "val2017"
    )

    def _folder(self) -> Path:
        return self._root() / self.image_set

    def _files(self) -> FileList:
        return [(f"annotations/instances_{self.image_set}.json", None)]

    def _load(self, root: Path) -> Any:
        told = json.loads((root / self._files()[0][0]).read_bytes())
        return _Told.of(told, self.name)

    def catalog(self) -> Catalog:
        """Photos in the order of their numbers."""
        data = self._data()
        return Catalog(self._complete(), annotations={"things": Annotation("boxes", data.classes)}, notes=data.notes)


@dataclass(frozen=True)
class _Told(Listing):
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any], source: str) -> "_Told":
        """What a file of annotations says; a key that it lacks raises KeyError."""
        kinds = sorted(told["categories"], key=lambda kind: int(kind["id"]))
        numbers = {str(kind["id"]): number for number, kind in enumerate(kinds)}
        photos = sorted(told["images"], key=lambda photo: int(photo["id"]))
        of_photo: dict[int, list[Any]] = defaultdict(list)
        for thing in told["annotations"]:
            of_photo[thing["image_id"]].append(thing)
        boxes = []
        for photo in photos:
            where, size = f"{source}: '{shown(photo['file_name'])}'", (photo["width"], photo["height"])
            found = []
            for thing in of_photo[photo["id"]]:
                left, top, width, height = thing["bbox"]
                label = class_of(str(thing["category_id"]), numbers, where)
                box = Box(left, top, left + width, top + height, label).checked(size, where)
                found += [] if thing.get("iscrowd") else [box]
            boxes.append(Boxes(size, tuple(found)))
        crowds = sum(bool(thing.get("iscrowd")) for thing in told["annotations"])
        names = tuple(photo["file_name"] for photo in photos)
        return cls(names, tuple(boxes), crowds, "they are crowds", tuple(kind["name"] for kind in kinds))
