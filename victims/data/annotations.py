"""Boxes and masks of photos in files, as they lie on the central square that a photo is decoded to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from splitleak.victims.data.decode import UNREADABLE, upright_size
from splitleak.victims.data.notes import shown
from splitleak.victims.errors import InvalidInputError

SHOWN = 0.5
"""Of a box: one of which less lies in the central square is of a thing that is not on the photo any more."""
ROUNDING = 1.0
"""Pixels by which an edge may lie outside a photo: some tools count from 1, others round."""


@dataclass(frozen=True)
class Box:
    """A thing on a photo: left, top, right and bottom edges in pixels, and its class."""

    left: float
    top: float
    right: float
    bottom: float
    label: int

    def checked(self, size: tuple[int, int], where: str) -> "Box":
        """Itself, within a photo of this width and height.

        Raises:
            InvalidInputError: it lies outside, or has no area; ``where`` says of which photo it is.
        """
        width, height = size
        edges = f"({self.left:g}, {self.top:g}, {self.right:g}, {self.bottom:g})"
        if not (self.left < self.right and self.top < self.bottom):
            raise InvalidInputError(f"{where}: the box {edges} has no area; edges are left, top, right, bottom")
        if min(self.left, self.top) < -ROUNDING or self.right > width + ROUNDING or self.bottom > height + ROUNDING:
            raise InvalidInputError(f"{where}: the box {edges} lies outside the photo of {width} x {height} pixels")
        return Box(max(self.left, 0), max(self.top, 0), min(self.right, width), min(self.bottom, height), self.label)


@dataclass(frozen=True)
class Boxes:
    """All things on one photo of so many pixels, width and height."""

    size: tuple[int, int]
    things: tuple[Box, ...]


def class_of(name: str, classes: Mapping[str, int], where: str) -> int:
    """The number of a class.

    Raises:
        InvalidInputError: there is no such class.
    """
    if name not in classes:
        known = ", ".join(list(classes)[:5])
        raise InvalidInputError(f"{where}: unknown class '{shown(name)}'; known: {known}, ... ({len(classes)})")
    return classes[name]


def check_size(content: bytes, size: tuple[int, int], where: str) -> None:
    """Whether an annotation was made for this photo.

    Raises:
        InvalidInputError: it is of another size.
    """
    with_photo = upright_size(content)
    if with_photo != size:
        said, own = (f"{width} x {height}" for width, height in (size, with_photo))
        raise InvalidInputError(f"{where}: the annotation is of {said} pixels, the photo of {own}")


def boxes_tensor(photos: Sequence[Boxes]) -> Tensor:
    """The form "boxes" of photos that are cut to their central square: float32 (n, most, 5)."""
    rows = [_on_square(photo) for photo in photos]
    found = torch.full((len(rows), max([1, *map(len, rows)]), 5), -1.0)
    for place, row in zip(found, rows, strict=True):
        place[: len(row)] = torch.tensor(row).view(-1, 5)
    return found


def _on_square(photo: Boxes) -> list[list[float]]:
    width, height = photo.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    rows = []
    for box in photo.things:
        edges = [box.left - left, box.top - top, box.right - left, box.bottom - top]
        inner = [min(max(edge / side, 0.0), 1.0) for edge in edges]
        area = (inner[2] - inner[0]) * (inner[3] - inner[1]) * side**2
        if area >= SHOWN * (box.right - box.left) * (box.bottom - box.top):
            rows.append([*inner, float(box.label)])
    return rows


def mask_on_square(content: bytes, photo: bytes, size: int, where: str) -> Tensor:
    """The numbers of a mask's file, (size, size) uint8: central square, the nearest pixel's.

    Raises:
        InvalidInputError: it is no picture, or of another size than its photo.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
            numbers = image if image.mode in ("P", "L") else image.convert("L")
    except UNREADABLE as error:
        raise InvalidInputError(f"{where}: the mask is unreadable ({shown(str(error))})") from None
    check_size(photo, numbers.size, where)
    side = min(numbers.size)
    left, top = (numbers.width - side) // 2, (numbers.height - side) // 2
    square = numbers.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(square, dtype=np.uint8))


def renamed(mask: Tensor, numbers: Mapping[int, int], where: str) -> Tensor:
    """A mask in which each number of a file means the class that ``numbers`` gives it.

    Raises:
        InvalidInputError: it holds a number that means none.
    """
    table = torch.full((256,), -1, dtype=torch.int64)
    table[torch.tensor(list(numbers))] = torch.tensor(list(numbers.values()))
    found = table[mask.long()]
    if (found < 0).any():
        odd = int(mask[found < 0][0])
        raise InvalidInputError(f"{where}: the mask holds {odd}, which is no class; known: {_listed(numbers)}")
    return found.to(torch.uint8)


def _listed(numbers: Mapping[int, int]) -> str:
    first, *_, last = sorted(numbers) if len(numbers) > 1 else [*numbers] * 2
    return f"{first} to {last}" if len(numbers) > 3 else ", ".join(map(str, sorted(numbers)))
