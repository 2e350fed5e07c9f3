"""Several portraits in one picture, and where their heads are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from splitleak.victims.contents import digest
from splitleak.victims.data.base import Annotation, Catalog, Labels, Pixels, Source
from splitleak.victims.data.sources.faces.draws import Draws, draw_person, draw_shot
from splitleak.victims.data.sources.faces.painting import render, render_with_parts
from splitleak.victims.data.sources.faces.parameters import PARTS, Portrait
from splitleak.victims.data.sources.faces.source import check_request, in_chunks
from splitleak.victims.settings import doc

MOST = 4
"""People in a scene: one in each quarter at most, so that nobody hides another."""
SHARES = (0.40, 0.44, 0.48)
"""Sides of a portrait, as shares of the scene's."""
OUTLINE = 64
"""Pixels of the portrait on which a head is measured, whatever the scene's size."""
BACKDROP = 1 << 30
"""Photos from this number on are walls without anybody."""


@dataclass(frozen=True)
class FaceScenes(Source):
    """Procedural scenes of one to four people who do not exist; scene i is the same however many are asked for.

    Tasks: "heads" (a box around each, with hair and neck; whether it wears a mask), "people" (how many).
    Nobody is in two scenes.
    """

    summary: ClassVar[str] = "procedural scenes of one to four portraits: boxes of heads; nothing to download"

    seed: Annotated[int, doc("another seed, other people")] = 0
    photos: Annotated[int, Gt(0), doc("number of scenes")] = 10_000

    def fingerprint(self) -> str:
        """A digest of the settings: beside the code, there is nothing else that the scenes depend on."""
        return digest(self.name, self.choices())

    def catalog(self) -> Catalog:
        """Names and labels; draws no pixel."""
        people = self._people(torch.arange(self.photos)).sum(1) - 1
        return Catalog(
            tuple(f"scene_{number:06d}" for number in range(self.photos)),
            {"people": Labels(people, ("one", "two", "three", "four"))},
            annotations={"heads": Annotation("boxes", ("bare", "masked"))},
        )

    def read(self, chosen: Sequence[int], size: int) -> Pixels:
        """Render the chosen scenes; none is ever corrupt.

        Raises:
            InvalidInputError: a scene that the catalogue does not have, or a size below 1.
        """
        check_request(self.name, chosen, self.photos, size)
        scene = torch.as_tensor(chosen, dtype=torch.int64)
        walls = self._portraits(BACKDROP + scene)
        images = in_chunks(partial(render, alone=True), walls, size, torch.empty(0, 3, size, size, dtype=torch.uint8))
        there, shares, places = self._people(scene), self._shares(scene), self._places(scene)
        for share in SHARES:
            side = max(1, round(share * size))
            rows, slots = (there & (shares == share)).nonzero().unbind(1)
            portraits = self._portraits(scene[rows] * MOST + slots)
            made = in_chunks(_person, portraits, side, torch.empty(0, 4, side, side))
            for row, slot, person in zip(rows.tolist(), slots.tolist(), made, strict=True):
                left, top = (round(edge * size) for edge in places[row, slot].tolist())
                into = images[row, :, top : top + side, left : left + side]
                person = person[:, : into.shape[1], : into.shape[2]]
                blended = into + (person[:3] - into) * person[3]
                into.copy_(blended.add_(0.5).clamp_(0, 255).to(torch.uint8))
        return Pixels(images)

    def annotate(self, name: str, chosen: Sequence[int], size: int) -> Tensor:
        """The heads' boxes, the same at every size.

        Raises:
            InvalidInputError: as ``read`` does, or another name.
        """
        if name != "heads":
            return super().annotate(name, chosen, size)
        check_request(self.name, chosen, self.photos, size)
        scene = torch.as_tensor(chosen, dtype=torch.int64)
        boxes = torch.zeros(len(scene), MOST, 5)
        boxes[..., 4] = -1
        rows, slots = self._people(scene).nonzero().unbind(1)
        portraits = self._portraits(scene[rows] * MOST + slots)
        heads = in_chunks(_head, portraits, OUTLINE, torch.empty(0, 4))
        corner, share = self._places(scene)[rows, slots], self._shares(scene)[rows, slots]
        boxes[rows, slots, :4] = corner.repeat(1, 2) + heads * share[:, None]
        boxes[rows, slots, 4] = portraits.shot.mask.float()
        return boxes

    def _draws(self, scene: Tensor) -> Draws:
        return Draws(self.seed, "scene", scene)

    def _people(self, scene: Tensor) -> Tensor:
        """Which quarters hold somebody, bool (n, MOST)."""
        draws = self._draws(scene)
        count = (draws.many("count", 1) * MOST).long() + 1
        return draws.many("order", MOST).argsort(1).argsort(1) < count

    def _shares(self, scene: Tensor) -> Tensor:
        """Of the scene's side, (n, MOST)."""
        return torch.tensor(SHARES)[(self._draws(scene).many("share", MOST) * len(SHARES)).long()]

    def _places(self, scene: Tensor) -> Tensor:
        """Left and top edges of the portraits, each within its quarter, as shares of the side, (n, MOST, 2)."""
        free = (0.5 - self._shares(scene))[..., None]
        quarter = torch.tensor([[column, row] for row in (0.0, 0.5) for column in (0.0, 0.5)])
        return quarter + self._draws(scene).many("place", 2 * MOST).view(-1, MOST, 2) * free

    def _portraits(self, number: Tensor) -> Portrait:
        """All parameters; each person is on one photo."""
        return Portrait(draw_person(self.seed, number), draw_shot(self.seed, number))


def _person(portrait: Portrait, size: int) -> Tensor:
    """Colours 0 to 255, and how much of each pixel is the person, (n, 4, size, size)."""
    images, parts = render_with_parts(portrait, size)
    return torch.cat([images.float(), 1 - parts[:, :1]], 1)


def _head(portrait: Portrait, size: int) -> Tensor:
    """Edges of a head with its hair, as shares of the portrait's side, (n, 4)."""
    parts = render_with_parts(portrait, size)[1].argmax(1)
    head = (parts != PARTS.index("background")) & (parts != PARTS.index("body"))
    edges = []
    for line in (head.any(1), head.any(2)):
        first = line.float().argmax(1)
        last = size - line.flip(1).float().argmax(1)
        edges.append((first, last))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1) / size
