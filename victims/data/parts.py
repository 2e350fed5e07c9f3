"""Divides a data set into train, auxiliary, validation, target and test, and guards that they stay disjoint."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge
from torch import Tensor

from splitleak.victims.data.base import Catalog
from splitleak.victims.errors import InvalidInputError
from splitleak.victims.settings import Settings, doc

Indices = npt.NDArray[np.int64]

PRECEDENCE = ("target", "validation", "auxiliary", "train")
"""The order in which parts are filled, and in which they keep a photo that several of them contain."""
TEST = "test"
"""The part on which utility is measured; it is filled last, from what the others leave."""
PHOTOS_PER_PERSON = 4
"""In one part, at most: further ones tell about that person, and little about people."""

HASH_BYTES = 16


class OverlapError(ValueError):
    """Two parts share a photo, a person or a photo's content: every number measured on them would be void."""


@dataclass(frozen=True)
class PartSizes(Settings):
    """How many photos each part gets."""

    train: Annotated[int, Ge(0), doc("photos that train the victim; 0 for a victim that is trained already")]
    auxiliary: Annotated[int, Ge(1), doc("photos that the attacker trains on")]
    validation: Annotated[int, Ge(1), doc("photos for model selection, on both sides")]
    target: Annotated[int, Ge(1), doc("photos whose reconstructions are scored; nobody trains on them")]
    test: Annotated[
        int | None, Ge(0), doc("photos on which utility is measured; 0: on the target photos; none: all others")
    ] = 0
    photos_per_person: Annotated[
        int, Ge(0), doc("of each person in a part, at most, where people are known; 0: no limit")
    ] = PHOTOS_PER_PERSON

    @property
    def total(self) -> int:
        """Of all parts, as far as that is said."""
        return self.train + self.auxiliary + self.validation + self.target + (self.test or 0)

    def wanted(self, part: str, left: int) -> int:
        """How many photos a part gets, of so many that are left for it.

        A test part of all others is there where they are at least as many as the targets: a smaller one would tell
        less than these do.
        """
        size: int | None = getattr(self, part)
        return size if size is not None else left * (left >= self.target)


@dataclass(frozen=True)
class Parts:
    """``indices``: part -> int64 (k,), the part's photos in the catalogue, in random order."""

    indices: Mapping[str, Tensor]

    def manifest(
        self,
        catalog: Catalog,
        task: str | None,
        distinct: "Distinct",
        corrupt: Mapping[str, Sequence[str]],
        notes: Sequence[str],
    ) -> dict[str, Any]:
        """What the parts contain, as plain values that JSON can hold.

        Per part: n, photos per class (None where a photo has none), number of known identities (None where the data
        has none), names, content hashes, duplicates dropped and kept, and ``corrupt``, the names of
        unreadable photos that were left out. ``notes``: what a reader should know of the data, as sentences.
        "sha256" is taken over all the rest.
        """
        parts = {
            part: {
                "n": len(indices),
                "labels": _label_counts(catalog, task, indices),
                "identities": None if catalog.identity is None else len(_people(catalog.identity, indices)),
                "names": [catalog.names[index] for index in indices.tolist()],
                "hashes": list(distinct.hashes[part]),
                "duplicates_dropped": distinct.dropped[part],
                "duplicates_kept": distinct.repeated(part),
                "corrupt": list(corrupt[part]),
            }
            for part, indices in self.indices.items()
        }
        content = {"task": task, "parts": parts, "notes": list(notes)}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return content | {"sha256": hashlib.sha256(canonical.encode()).hexdigest()}


def divide(catalog: Catalog, sizes: PartSizes, task: str | None, seed: int) -> Parts:
    """Choose the photos of each part at random; the same seed gives the same parts.

    - Each part has exactly the size asked for, and no photo is in two parts. The test part, where its size is left
      open, has all labelled photos that remain (see ``PartSizes.wanted``); without a task there is none.
    - A person is in one part only. Photos of unknown identity stand for themselves. A part takes whole
      persons until it is full; what is left of the last one is not used anywhere. At most
      ``sizes.photos_per_person`` photos of a person, drawn at random, are in a part.
    - The authors' split holds: target photos go to target only, validation ones to validation only, train
      ones to train or auxiliary, free ones anywhere. Where the authors fixed no target photos at all (or no
      validation photos), train photos fill that part too. A part takes the photos that fit the fewest parts
      first, so free ones are left for whichever part needs them.
    - With a task, photos with an unknown label are left out, and each part's label proportions follow those
      of the photos it is drawn from: to within about one photo per class, or one person where a person's
      photos stay together (a person counts by the commonest label). Large groups come late in the order, so
      none fills a part by itself where others can.

    The target part depends on the seed and its own size only, validation on the seed and these two sizes,
    and so on in the order of PRECEDENCE: a plan may grow its train part without a change of targets.

    Raises:
        InvalidInputError: unknown task, or too few photos.
    """
    division = Division(catalog, task, seed, sizes.photos_per_person)
    chosen: dict[str, Tensor] = {}
    for part in division.parts:
        turn = division.turn(part)
        size = sizes.wanted(part, turn.left)
        if turn.left < size:
            raise _too_few(catalog, sizes, task, part, turn.left)
        if size or part != TEST:
            chosen[part] = turn.take(size)
    return Parts(chosen)


class Division:
    """A catalogue's photos as they are handed out to the parts, which take their turn in the order of ``parts``.

    Raises:
        InvalidInputError: unknown task.
    """

    def __init__(self, catalog: Catalog, task: str | None, seed: int, photos_per_person: int = 0) -> None:
        count = len(catalog)
        self.seed, self.photos_per_person = seed, photos_per_person
        self.parts = PRECEDENCE if task is None else (*PRECEDENCE, TEST)
        self.labels = catalog.strata(task).numpy()
        self.units = _units(catalog)
        self.fits = _fits(catalog) & (self.labels >= 0)
        held = [np.bincount(self.units, weights=row) > 0 for row in self.fits[: len(PRECEDENCE)]]
        self.freedom: Indices = np.sum(held, axis=0)  # the test part takes what is left, whatever that is
        self.free = np.ones(count, bool)

    def turn(self, part: str) -> "Turn":
        """The part's turn, once those before it have had theirs."""
        position = self.parts.index(part)
        generator = np.random.default_rng((self.seed, position))
        candidates = np.flatnonzero(self.fits[position] & self.free)
        if self.photos_per_person:
            drawn = np.random.default_rng((self.seed, position, self.photos_per_person)).permutation(candidates)
            candidates = np.sort(drawn[_repeat(self.units[drawn]) < self.photos_per_person])
        return Turn(self, _order(candidates, self.units, self.labels, self.freedom, generator), generator)


class Turn:
    """The photos that one part may take, in an order of which any beginning is a stratified sample."""

    def __init__(self, division: Division, order: Indices, generator: np.random.Generator) -> None:
        self._division, self._order, self._generator = division, order, generator

    @property
    def left(self) -> int:
        """How many photos there are still."""
        return len(self._order)

    def take(self, count: int) -> Tensor:
        """The next photos in random order, fewer where no more are left; their persons go to no other part."""
        taken, self._order = self._order[:count], self._order[count:]
        units = self._division.units
        self._division.free &= ~np.isin(units, units[taken])
        return torch.from_numpy(self._generator.permutation(taken))


def _repeat(units: Indices) -> Indices:
    """Of each of these how many of the same unit come before it."""
    order = np.argsort(units, kind="stable")
    _, first = np.unique(units[order], return_index=True)
    repeat = np.empty(len(units), np.int64)
    repeat[order] = np.arange(len(units)) - np.repeat(first, np.diff([*first, len(units)]))
    return repeat


def _units(catalog: Catalog) -> Indices:
    """The number of the unit that each photo moves with: its person, or itself where that is unknown."""
    count = len(catalog)
    if catalog.identity is None:
        return np.arange(count)
    identity = catalog.identity.numpy()
    # photos of unknown persons get numbers that no person has
    own = np.where(identity < 0, identity.max(initial=0) + 1 + np.arange(count), identity)
    return np.unique(own, return_inverse=True)[1]


def _fits(catalog: Catalog) -> npt.NDArray[np.bool_]:
    """Bool (5, n): whether the authors' split lets each photo go to each part of PRECEDENCE, and to TEST.

    Utility is measured where leakage is: on photos that the authors let nobody train on.
    """
    if catalog.split is None:
        return np.ones((len(PRECEDENCE) + 1, len(catalog)), bool)
    split = np.array(catalog.split)
    allowed = {part: {part, ""} for part in PRECEDENCE}
    allowed["auxiliary"] = {"train", ""}
    for part in ("target", "validation"):
        if part not in catalog.split:
            allowed[part].add("train")
    allowed[TEST] = allowed["target"]
    return np.stack([np.isin(split, list(allowed[part])) for part in (*PRECEDENCE, TEST)])


def _order(
    photos: Indices, units: Indices, labels: Indices, freedom: Indices, generator: np.random.Generator
) -> Indices:
    """The photos, unit by unit, in an order of which any beginning is a stratified sample.

    Units with less freedom come first. Among equals, those of one label are lined up at random and stretched
    over the interval from 0 to 1, each as long as it has photos; the units of all labels are then sorted by
    their middles (systematic sampling). So every beginning holds the same share of every label.
    """
    photos = generator.permutation(photos)
    names, unit, size = np.unique(units[photos], return_inverse=True, return_counts=True)
    tier, label = freedom[names], _commonest(unit, labels[photos])
    line = np.lexsort((generator.permutation(len(names)), label, tier))
    size, tier, label = size[line], tier[line], label[line]
    stratum = np.cumsum(np.diff(tier, prepend=0).astype(bool) | np.diff(label, prepend=-1).astype(bool)) - 1
    end = np.cumsum(size)
    total = np.bincount(stratum, weights=size)
    start = np.cumsum(total) - total
    middle = (end - size / 2 - start[stratum]) / total[stratum]
    rank = np.empty(len(names), np.int64)
    rank[line[np.lexsort((generator.permutation(len(names)), middle, tier))]] = np.arange(len(names))
    return photos[np.argsort(rank[unit], kind="stable")]


def _commonest(unit: Indices, labels: Indices) -> Indices:
    """The commonest label of each unit's photos; ``unit``: 0, 1, ... per photo."""
    pairs, counts = np.unique(np.stack([unit, labels]), axis=1, return_counts=True)
    rising = np.argsort(counts, kind="stable")
    commonest = np.zeros(unit.max(initial=-1) + 1, np.int64)
    commonest[pairs[0, rising]] = pairs[1, rising]  # of repeated writes the last one stays
    return commonest


def _too_few(catalog: Catalog, sizes: PartSizes, task: str | None, part: str, found: int) -> InvalidInputError:
    asked = [*reversed(PRECEDENCE), *([TEST] if sizes.test else [])]
    needed = ", ".join(f"{name} {getattr(sizes, name)}" for name in asked)
    there = f"{len(catalog)} photos"
    if catalog.split is not None:
        kinds = [f"{name or 'free'} {catalog.split.count(name)}" for name in ("train", "validation", "target", "")]
        there += f" ({', '.join(kinds)})"
    if task is not None:
        there += f", {int((catalog.strata(task) >= 0).sum())} of them with a known '{task}'"
    if catalog.identity is not None:
        there += f", {len(_people(catalog.identity, torch.arange(len(catalog))))} persons, who stay in one part"
    return InvalidInputError(f"too few photos: needed {needed}; '{part}' found only {found}; the data has {there}")


def _people(identity: Tensor, indices: Tensor) -> set[int]:
    return set(identity[indices].tolist()) - {-1}


def _label_counts(catalog: Catalog, task: str | None, indices: Tensor) -> dict[str, int] | None:
    labels = None if task is None else catalog.labels.get(task)
    if labels is None:
        return None
    counts = torch.bincount(labels.values[indices], minlength=len(labels.classes))
    return dict(zip(labels.classes, counts.tolist(), strict=True))


def content_hashes(images: Tensor) -> tuple[str, ...]:
    """BLAKE2b of each photo's pixels, 16 bytes as hexadecimal digits. ``images``: uint8 (n, 3, h, w)."""
    pixels = images.contiguous().numpy()
    return tuple(hashlib.blake2b(photo.data, digest_size=HASH_BYTES).hexdigest() for photo in pixels)


class Distinct:
    """Photos without those whose pixels occur in a part of higher precedence: target, validation, auxiliary, train.

    Copies inside one part are counted and kept. ``hashes``: part -> content hashes of the photos that were kept;
    ``positions``: part -> which of all that were offered they are; ``dropped``: part -> how many were not kept.
    """

    def __init__(self) -> None:
        self.hashes: dict[str, list[str]] = {}
        self.positions: dict[str, list[int]] = {}
        self.dropped: dict[str, int] = {}
        self._offered: dict[str, set[str]] = {}

    def admit(self, part: str, images: Tensor) -> Tensor:
        """Those of further photos, uint8 (n, 3, h, w), that are new to the part; parts come in their precedence."""
        hashes, positions = self.hashes.setdefault(part, []), self.positions.setdefault(part, [])
        before = len(positions) + self.dropped.setdefault(part, 0)
        seen = set[str]().union(*(codes for other, codes in self._offered.items() if other != part))
        found = content_hashes(images)
        new = [row for row, code in enumerate(found) if code not in seen]
        hashes += [found[row] for row in new]
        positions += [before + row for row in new]
        self.dropped[part] += len(found) - len(new)
        self._offered.setdefault(part, set()).update(found)
        return images if len(new) == len(found) else images[new]

    def repeated(self, part: str) -> int:
        """How many of the part's photos repeat an earlier one of it."""
        return len(self.hashes[part]) - len(set(self.hashes[part]))


def refuse_overlap(
    indices: Mapping[str, Tensor], identity: Tensor | None, hashes: Mapping[str, Sequence[str]]
) -> None:
    """The guard against an attacker or victim that has seen what it is scored on.

    ``indices`` and ``hashes``: per part; ``identity``: int64 per photo of the catalogue, -1 where unknown.

    Raises:
        OverlapError: two parts share a photo, a person or a photo's content.
    """
    overlap = next(_overlaps(indices, identity, hashes), None)
    if overlap is not None:
        kind, first, second, common = overlap
        raise OverlapError(f"{first} and {second} share {len(common)} {kind}, such as {min(common)}")


def _overlaps(
    indices: Mapping[str, Tensor], identity: Tensor | None, hashes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str, set[Any]]]:
    kinds: dict[str, dict[str, set[Any]]] = {
        "photos": {part: set(chosen.tolist()) for part, chosen in indices.items()},
        "photos by content": {part: set(codes) for part, codes in hashes.items()},
    }
    if identity is not None:
        kinds["persons"] = {part: _people(identity, chosen) for part, chosen in indices.items()}
    for kind, members in kinds.items():
        for first, second in combinations(members, 2):
            common = members[first] & members[second]
            if common:
                yield kind, first, second, common
