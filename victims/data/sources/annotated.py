"""What data sets of photos with boxes or masks have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from splitleak.victims.data.annotations import Boxes, boxes_tensor, check_size, mask_on_square, renamed
from splitleak.victims.data.containers import FolderFiles
from splitleak.victims.data.decode import UNREADABLE
from splitleak.victims.data.notes import counted, shown
from splitleak.victims.data.sources.torchvision_sets import PhotosOfTorchvision
from splitleak.victims.errors import InvalidInputError


@dataclass(frozen=True)
class Boxed(PhotosOfTorchvision):
    """Photos with boxes. What torchvision reads of it is a ``Listing``."""

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """Boxes of the things of which half is on the photo's central square.

        Raises:
            InvalidInputError: another name, or boxes that were made for a photo of another size.
        """
        if name != "things":
            return super().annotate(name, chosen, size)
        names, photos, boxes = self._names(), self._photos(), self._data().boxes
        for index in chosen:
            check_size(_content(photos, names[index]), boxes[index].size, f"{self.name}: '{shown(names[index])}'")
        return boxes_tensor([boxes[index] for index in chosen])

    def _names(self) -> tuple[str, ...]:
        names: tuple[str, ...] = self._data().names
        return names


@dataclass(frozen=True)
class Listing:
    """What a data set says of its photos: their names and boxes. ``left_out``: things that do not count, and why."""

    names: tuple[str, ...]
    boxes: tuple[Boxes, ...]
    left_out: int = 0
    why: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        return (f"left out {counted(self.left_out, 'thing')}: {self.why}",) if self.left_out else ()


@dataclass(frozen=True)
class Masked(PhotosOfTorchvision):
    """Photos with masks of their pixels."""

    @abstractmethod
    def _mask(self, root: Path, name: str) -> Path:
        """The file of a photo's mask, by the photo's name."""

    @abstractmethod
    def _numbers(self) -> dict[int, int]:
        """What the numbers of a mask's file mean."""

    def _masks(self, chosen: Sequence[int], size: int) -> Tensor:
        root, names, photos, numbers = self._root(), self._names(), self._photos(), self._numbers()
        masks = torch.empty(len(chosen), size, size, dtype=torch.uint8)
        for row, index in zip(masks, chosen, strict=True):
            file, where = self._mask(root, names[index]), f"{self.name}: '{shown(names[index])}'"
            mask = mask_on_square(file.read_bytes(), _content(photos, names[index]), size, where)
            row.copy_(renamed(mask, numbers, where))
        return masks


def _content(photos: FolderFiles, name: str) -> bytes:
    try:
        return photos.content(name)
    except UNREADABLE as error:
        raise InvalidInputError(f"photo '{shown(name)}' is unreadable ({shown(str(error))})") from None
