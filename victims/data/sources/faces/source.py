"""The portraits as a data set."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from splitleak.victims.contents import digest
from splitleak.victims.data.base import Annotation, Catalog, Labels, Pixels, Source
from splitleak.victims.data.sources.faces.draws import draw_labels, draw_person, draw_shot
from splitleak.victims.data.sources.faces.painting import render, render_with_parts
from splitleak.victims.data.sources.faces.parameters import EXPRESSIONS, NO_YES, PARTS, ROLL, Portrait
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import doc

FACE = dict.fromkeys(("skin", "eyes", "mouth", "glasses"), "face")
MASKS = {
    "parts": (PARTS[:-1], {"body": "background"}),
    "regions": (("background", "face", "hair", "mask"), {"body": "background", **FACE}),
}
"""Of each label of pixels its classes, and as which of them a part counts that has none of its own."""
ANNOTATIONS = {
    **{name: Annotation("mask", classes) for name, (classes, _) in MASKS.items()},
    "pose": Annotation("values", ("yaw", "roll")),
}
CHUNK_PIXELS = 64 * 64 * 64
"""Pixels rendered at a time: a plane of them (1 MiB) stays in the cache."""


@contextmanager
def one_thread_each() -> Iterator[Executor]:
    """A pool of as many threads as torch may use, each of which runs its operations alone.

    Chunks side by side need no barrier after every operation, which costs little on an idle machine and
    nearly everything on one whose cores are shared.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Faces(Source):
    """Procedural portraits of people who do not exist; photo i is the same however many are asked for.

    Tasks: "expression" (neutral, happy, surprised, angry: a quarter each), "glasses" (30 %), "mask" (35 %); of each
    pixel "parts" (skin, hair, eyes, mouth, glasses, mask, background) and, coarser, "regions" (face, hair, mask,
    background); the head's "pose" as numbers. Consecutive photos show the same person.
    """

    summary: ClassVar[str] = "procedural portraits: expression, glasses, mask, identity, parts; nothing to download"

    seed: Annotated[int, doc("another seed, other people")] = 0
    photos: Annotated[int, Gt(0), doc("number of photos")] = 10_000
    photos_per_identity: Annotated[int, Gt(0), doc("photos of each person")] = 5

    def fingerprint(self) -> str:
        """A digest of the settings: beside the code, there is nothing else that the photos depend on."""
        return digest(self.name, self.choices())

    def catalog(self) -> Catalog:
        """Names, labels and identities; draws no pixel."""
        photo = torch.arange(self.photos)
        classes = {"expression": EXPRESSIONS, "glasses": NO_YES, "mask": NO_YES}
        labels = {task: Labels(values, classes[task]) for task, values in draw_labels(self.seed, photo).items()}
        names = tuple(f"face_{number:06d}" for number in range(self.photos))
        return Catalog(names, labels, identity=photo // self.photos_per_identity, annotations=ANNOTATIONS)

    def portraits(self, chosen: Sequence[int]) -> Portrait:
        """All parameters of the chosen photos."""
        photo = torch.as_tensor(chosen, dtype=torch.int64)
        person = draw_person(self.seed, photo // self.photos_per_identity)
        return Portrait(person, draw_shot(self.seed, photo))

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Render the chosen photos; none is ever corrupt.

        Raises:
            InvalidInputError: a photo that the catalogue does not have, or a size below 1.
        """
        check_request(self.name, chosen, self.photos, size)
        return Pixels(
            in_chunks(render, self.portraits(chosen), size, torch.empty(0, 3, size, size, dtype=torch.uint8))
        )

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """Parts or regions of each pixel, as the most of it is; or the head's pose.

        Raises:
            InvalidInputError: as ``read`` does, or another name.
        """
        check_request(self.name, chosen, self.photos, size)
        if name == "pose":
            shot = self.portraits(chosen).shot
            return torch.stack([shot.yaw.flatten(), shot.roll.flatten() / ROLL], 1)
        if name not in MASKS:
            return super().annotate(name, chosen, size)
        parts = in_chunks(_parts, self.portraits(chosen), size, torch.empty(0, size, size, dtype=torch.uint8))
        classes, merged = MASKS[name]
        return torch.tensor([classes.index(merged.get(part, part)) for part in PARTS], dtype=torch.uint8)[
            parts.long()
        ]


def _parts(portrait: Portrait, size: int) -> Tensor:
    return render_with_parts(portrait, size)[1].argmax(1).to(torch.uint8)


def check_request(name: str, chosen: Sequence[int], photos: int, size: int) -> None:
    """Whether a source of this name can render what it is asked for.

    Raises:
        InvalidInputError: a photo that it does not have, or a size below 1.
    """
    if size < 1:
        raise InvalidInputError(f"{name} cannot be rendered at {size} pixels; give a size of at least 1")
    for number in chosen:
        if not 0 <= number < photos:
            raise InvalidInputError(f"{name} has the photos 0 to {photos - 1}, not {number}")


def in_chunks(make: Callable[[Portrait, int], Tensor], portraits: Portrait, size: int, empty: Tensor) -> Tensor:
    """What is made of portraits, some at a time on each thread; ``empty``: what is made of none."""
    step = max(1, CHUNK_PIXELS // (size * size))
    count = len(portraits.shot.mask)
    chunks = [portraits[start : start + step] for start in range(0, count, step)]
    with one_thread_each() as pool:
        made = list(pool.map(make, chunks, itertools.repeat(size)))
    return torch.cat([empty, *made])
