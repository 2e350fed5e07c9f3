"""Decodes the photos of the parts, and makes sure that these share nothing."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from splitleak.victims.data.base import Catalog, Source
from splitleak.victims.data.notes import counted, listed
from splitleak.victims.data.parts import (
    Distinct,
    Division,
    Parts,
    PartSizes,
    Turn,
    divide,
    refuse_overlap,
)
from splitleak.victims.errors import InvalidInputError

CHUNK_BYTES = 2**27
"""Of the photos that are decoded at a time."""

MOST_COPIES = 0.5
"""Of a part: one that lacks more than this because the rest are copies is no longer what was asked for."""

ROUNDS = 64
"""How often a part takes further photos in the place of those left out; only data that is nearly all copies needs as
many."""


class Shelf(Protocol):
    """Takes the photos of a part as they are decoded."""

    def add(self, images: Tensor) -> None:
        """Further photos, uint8 (n, 3, size, size)."""

    def tensor(self) -> Tensor:
        """All of them; called once, at the end."""


class InMemory:
    """A shelf that keeps them in memory."""

    def __init__(self, part: str) -> None:
        self.chunks: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Keep them."""
        self.chunks.append(images)

    def tensor(self) -> Tensor:
        """As one tensor."""
        return torch.cat(self.chunks)


@dataclass(frozen=True)
class LoadedParts:
    """The parts, decoded.

    ``images``: part -> uint8 (k, 3, size, size). ``labels``: part -> attribute -> int64 (k,), -1 where unknown;
    ``classes``: label -> what its values mean. ``identities``: part -> int64 (k,), -1 where unknown, or None
    where the data has none. ``manifest``: what was used, as plain values (see Parts.manifest). ``targets``: part ->
    the task's label, where it is no single class, in its ``Form``; not of the attacker's photos.
    """

    images: Mapping[str, Tensor]
    labels: Mapping[str, Mapping[str, Tensor]]
    identities: Mapping[str, Tensor] | None
    classes: Mapping[str, tuple[str, ...]]
    manifest: Mapping[str, Any]
    targets: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class _Reading:
    """What becomes of the photos of one data set. ``corrupt``: part -> names of the unreadable ones."""

    source: Source
    size: int
    catalog: Catalog
    distinct: Distinct = field(default_factory=Distinct)
    corrupt: dict[str, list[str]] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)

    def fill(self, part: str, count: int, turn: Turn, shelf: Shelf, open_end: bool = False) -> Tensor:
        """Put photos on a part's shelf until there are ``count`` or no more to take; returns which, int64 (k,).

        One that is unreadable, or a copy of a photo in a part of higher precedence, leaves its place to the next.
        ``open_end``: the part takes what there is, and no number was asked for.

        Raises:
            InvalidInputError: the part stays too small.
        """
        lost = self.corrupt.setdefault(part, [])
        readable = kept = torch.empty(0, dtype=torch.int64)
        for _ in range(ROUNDS):
            taken = turn.take(count - len(kept))
            for rows in taken.split(max(1, CHUNK_BYTES // (3 * self.size**2))):
                decoded = self.source.read(rows.tolist(), self.size)
                self.remarks.update(decoded.remarks)
                lost += [self.catalog.names[rows[position]] for position in decoded.corrupt]
                shelf.add(self.distinct.admit(part, decoded.images))
                readable = torch.cat([readable, _others(rows, decoded.corrupt)])
            kept = readable[torch.tensor(self.distinct.positions[part], dtype=torch.int64)]
            if len(kept) == count or not turn.left:
                break
        if not open_end:
            self._check(part, len(kept), count)
        return kept

    def _check(self, part: str, found: int, count: int) -> None:
        lost, copies = len(self.corrupt[part]), self.distinct.dropped[part]
        if found == count or (not lost and found > MOST_COPIES * count):
            return
        why = [f"{counted(copies, 'photo')} left out as copies of photos in other parts"] if copies else []
        why += [f"{counted(lost, 'photo')} left out as unreadable"] if lost else []
        raise InvalidInputError(
            f"too few photos: part '{part}' needs {count} and got {found}: {', '.join(why)}; ask for fewer, or put "
            "further photos there"
        )

    def notes(self) -> Iterator[str]:
        """The catalogue's, and what came up in decoding."""
        yield from self.catalog.notes
        for remark, count in sorted(self.remarks.items()):
            yield f"{counted(count, 'photo')} {remark}"
        if lost := [name for names in self.corrupt.values() for name in names]:
            yield f"left out {counted(len(lost), 'unreadable photo')}: {listed(lost)}"
        if dropped := {part: count for part, count in self.distinct.dropped.items() if count}:
            where = ", ".join(f"{part} {count}" for part, count in dropped.items())
            yield f"left out {counted(sum(dropped.values()), 'photo')} as copies of photos in other parts: {where}"
        if repeated := {part: count for part in self.corrupt if (count := self.distinct.repeated(part))}:
            where = ", ".join(f"{part} {count}" for part, count in repeated.items())
            yield f"{counted(sum(repeated.values()), 'photo')} repeat another one of their part: {where}"


def load_parts(
    source: Source,
    sizes: PartSizes,
    size: int,
    task: str | None,
    seed: int,
    shelf: Callable[[str], Shelf] = InMemory,
) -> LoadedParts:
    """Divide a data set, decode its parts at ``size`` pixels, and make sure that they share nothing.

    Photos are decoded some at a time and put on the shelf of their part, so that they need not fit the memory.
    Unreadable photos (where the source skips them) and copies of photos in a part of higher precedence are left out,
    and others take their places. Where none are left, copies may make a part smaller than asked for, by MOST_COPIES
    at most; the manifest has the true numbers.

    Raises:
        InvalidInputError: the data is missing, unreadable or too small, or the task unknown.
        OverlapError: a bug let two parts share something.
    """
    catalog = source.catalog()
    planned = divide(catalog, sizes, task, seed)  # what cannot be is refused before anything is decoded
    division = Division(catalog, task, seed, sizes.photos_per_person)
    reading = _Reading(source, size, catalog)
    images, indices = {}, {}
    for part, photos in planned.indices.items():
        shelved = shelf(part)
        open_end = getattr(sizes, part) is None
        indices[part] = reading.fill(part, len(photos), division.turn(part), shelved, open_end)
        images[part] = shelved.tensor()
    parts = Parts(indices)
    refuse_overlap(parts.indices, catalog.identity, reading.distinct.hashes)
    return LoadedParts(
        images=images,
        labels={
            part: {name: labels.values[indices] for name, labels in catalog.labels.items()}
            for part, indices in parts.indices.items()
        },
        identities=None
        if catalog.identity is None
        else {part: catalog.identity[indices] for part, indices in parts.indices.items()},
        classes={name: catalog.task(name).classes for name in (*catalog.labels, *catalog.annotations)},
        manifest=parts.manifest(catalog, task, reading.distinct, reading.corrupt, tuple(reading.notes())),
        targets=_targets(source, catalog, task, parts, size),
    )


def _targets(source: Source, catalog: Catalog, task: str | None, parts: Parts, size: int) -> dict[str, Tensor]:
    if task is None or task not in catalog.annotations:
        return {}
    seen = {part: indices.tolist() for part, indices in parts.indices.items() if part != "auxiliary"}
    return {part: source.annotate(task, indices, size) for part, indices in seen.items()}


def _others(indices: Tensor, positions: tuple[int, ...]) -> Tensor:
    """All of ``indices`` but those at these positions."""
    keep = torch.ones(len(indices), dtype=torch.bool)
    keep[list(positions)] = False
    return indices[keep]
