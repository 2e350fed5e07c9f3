"""The Oxford-IIIT Pet Dataset, in the layout of torchvision.datasets.OxfordIIITPet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets

from splitleak.victims.data.base import IGNORED, Annotation, Catalog, Labels
from splitleak.victims.data.sources.annotated import Masked
from splitleak.victims.data.sources.torchvision_sets import FileList
from splitleak.victims.errors import InvalidInputError

BASE = "oxford-iiit-pet"
SETS = {"trainval": "train", "test": "target"}
"""torchvision's splits, and what they are here."""


@dataclass(frozen=True)
class OxfordPets(Masked):
    """Oxford-IIIT Pet: Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012. 7,349 photos of 37 breeds of cats and dogs.

    Tasks: "outline" (the pet, of each pixel; its border counts nowhere), "species" and "breed".
    """

    summary: ClassVar[str] = "Oxford-IIIT Pet: 7,349 cats and dogs, outlines, 37 breeds, official test set"
    how_to_get: ClassVar[str] = (
        "get it from https://www.robots.ox.ac.uk/~vgg/data/pets/ or with "
        "torchvision.datasets.OxfordIIITPet(root, download=True)"
    )

    def _folder(self) -> Path:
        return self._root() / BASE / "images"

    def _files(self) -> FileList:
        lists = [f"{BASE}/annotations/{part}.txt" for part in SETS]
        found: FileList = [(name, None) for name in lists]
        for name in lists:
            path = self._root() / name
            if not path.is_file():
                raise InvalidInputError(f"{self.name} needs the file {path}; {self.how_to_get}")
            found += [(self._label(line.split()[0]), None) for line in path.read_text().splitlines() if line.strip()]
        return found

    def _label(self, name: str) -> str:
        return f"{BASE}/annotations/trimaps/{name}.png"

    def _load(self, root: Path) -> Any:
        return [datasets.OxfordIIITPet(str(root), part) for part in SETS]

    def _names(self) -> tuple[str, ...]:
        return tuple(path.name for part in self._data() for path in part._images)

    def catalog(self) -> Catalog:
        """The trainval set, then the test set."""
        parts = self._data()
        species, breed = (
            torch.tensor([label for part in parts for label in getattr(part, field)], dtype=torch.int64)
            for field in ("_bin_labels", "_labels")
        )
        return Catalog(
            self._complete(),
            {"species": Labels(species, ("cat", "dog")), "breed": Labels(breed, tuple(parts[0].classes))},
            split=tuple(ours for part, ours in zip(parts, SETS.values(), strict=True) for _ in part._images),
            annotations={"outline": Annotation("mask", ("background", "pet"))},
        )

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """Outlines on the photo's central square.

        Raises:
            InvalidInputError: another name, or a trimap of another size or with another number than 1, 2 and 3.
        """
        return self._masks(chosen, size) if name == "outline" else super().annotate(name, chosen, size)

    def _mask(self, root: Path, name: str) -> Path:
        return root / self._label(Path(name).stem)

    def _numbers(self) -> dict[int, int]:
        return {1: 1, 2: 0, 3: IGNORED}
